//! What every operation on Redis passes: the breaker, the hard timeout, and the accounts.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::RedisError;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::RedisConfig;
use crate::error::StoreError;
use crate::shared::breaker::{Breaker, Leave};
use crate::stats::{Emit, figure};

/// A snapshot of one connection to Redis.
///
/// `operations` = `succeeded` + `failed` + `timed_out` + `cancelled` + `in_flight`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RedisStats {
    /// Operations sent.
    pub operations: u64,
    /// Operations that Redis carried out.
    pub succeeded: u64,
    /// Operations that Redis or the connection failed.
    pub failed: u64,
    /// Operations without an answer in time.
    pub timed_out: u64,
    /// Operations whose caller went away.
    pub cancelled: u64,
    /// Operations under way now.
    pub in_flight: u64,
    /// Operations not tried, since Redis is left alone.
    pub suspended: u64,
    /// Whether Redis is left alone now.
    pub open: bool,
}

impl RedisStats {
    /// Hands every figure to `emit`.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            operations,
            succeeded,
            failed,
            timed_out,
            cancelled,
            in_flight,
            suspended,
            open,
        } = self;
        emit("cache_redis_operations_total", &[], figure(*operations));
        let outcomes = [
            ("success", succeeded),
            ("error", failed),
            ("timeout", timed_out),
            ("cancelled", cancelled),
            ("suspended", suspended),
        ];
        for (outcome, count) in outcomes {
            emit("cache_redis_outcomes_total", &[("outcome", outcome)], figure(*count));
        }
        emit("cache_redis_in_flight", &[], figure(*in_flight));
        emit("cache_redis_open", &[], f64::from(u8::from(*open)));
    }
}

/// Bounds each operation in time and stops them all while Redis fails.
pub(super) struct Gate {
    timeout: Duration,
    breaker: Mutex<Breaker>,
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    cancelled: AtomicU64,
    suspended: AtomicU64,
}

impl Gate {
    pub(super) fn new(config: &RedisConfig) -> Self {
        Self {
            timeout: config.operation_timeout,
            breaker: Mutex::new(Breaker::new(config.failures, config.pause)),
            started: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            suspended: AtomicU64::new(0),
        }
    }

    /// Waits for `answer`, if Redis is to be asked at all.
    pub(super) async fn pass<T>(
        &self,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, StoreError> {
        let Some(leave) = self.breaker.lock().admit(Instant::now()) else {
            self.suspended.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::Suspended);
        };
        let operation = Operation::start(self, leave);
        let outcome = bounded(self.timeout, answer).await;
        operation.settle(&outcome);
        outcome
    }

    pub(super) fn stats(&self) -> RedisStats {
        // Ends before starts, so that never more operations have ended than started.
        let succeeded = self.succeeded.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Acquire);
        let timed_out = self.timed_out.load(Ordering::Acquire);
        let cancelled = self.cancelled.load(Ordering::Acquire);
        let operations = self.started.load(Ordering::Relaxed);
        RedisStats {
            operations,
            succeeded,
            failed,
            timed_out,
            cancelled,
            in_flight: operations - succeeded - failed - timed_out - cancelled,
            suspended: self.suspended.load(Ordering::Relaxed),
            open: self.breaker.lock().is_open(),
        }
    }
}

/// One operation under way; dropped unsettled, it counts as cancelled.
struct Operation<'a> {
    gate: &'a Gate,
    leave: Leave,
    end: Option<&'a AtomicU64>,
}

impl<'a> Operation<'a> {
    fn start(gate: &'a Gate, leave: Leave) -> Self {
        gate.started.fetch_add(1, Ordering::Relaxed);
        Self { gate, leave, end: None }
    }

    fn settle<T>(mut self, outcome: &Result<T, StoreError>) {
        let mut breaker = self.gate.breaker.lock();
        match outcome {
            Ok(_) => {
                breaker.succeeded(self.leave);
                self.end = Some(&self.gate.succeeded);
            }
            Err(error) => {
                breaker.failed(self.leave, Instant::now(), fastrand::f64());
                let timed_out = error.is_timeout();
                self.end = Some(if timed_out { &self.gate.timed_out } else { &self.gate.failed });
            }
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        let end = self.end.unwrap_or_else(|| {
            self.gate.breaker.lock().abandoned(self.leave, Instant::now());
            &self.gate.cancelled
        });
        end.fetch_add(1, Ordering::Release);
    }
}

async fn bounded<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.is_timeout() => Err(StoreError::TimedOut),
        Ok(Err(error)) => Err(StoreError::failed(error)),
        Err(_) => Err(StoreError::TimedOut),
    }
}
