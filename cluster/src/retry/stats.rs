//! The figures of one retry policy.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Emit;

/// A policy's figures at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RetryStats {
    /// The name the policy was made with.
    pub name: String,
    /// Times anything was sent: `requests_total` + `retries_total`.
    pub attempts_total: u64,
    /// Requests, each counted once.
    pub requests_total: u64,
    /// Requests sent again.
    pub retries_total: u64,
    /// Requests that were answered well after at least one retry.
    pub recovered_total: u64,
    /// Requests that could not be copied, and were sent once therefore.
    pub not_copied_total: u64,
    /// Requests that failed and were not retried, for they may have been carried out.
    pub not_idempotent_total: u64,
    /// Requests that failed as often as they may.
    pub out_of_attempts_total: u64,
    /// Requests that failed and could not have been retried before the deadline.
    pub out_of_time_total: u64,
    /// Requests that failed when too many were being retried.
    pub out_of_budget_total: u64,
}

impl RetryStats {
    /// Hands out each figure under its field's name with the label `policy`.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            attempts_total,
            requests_total,
            retries_total,
            recovered_total,
            not_copied_total,
            not_idempotent_total,
            out_of_attempts_total,
            out_of_time_total,
            out_of_budget_total,
        } = self;
        let labels = [("policy", name.as_str())];
        for (figure, value) in [
            ("attempts_total", attempts_total),
            ("requests_total", requests_total),
            ("retries_total", retries_total),
            ("recovered_total", recovered_total),
            ("not_copied_total", not_copied_total),
            ("not_idempotent_total", not_idempotent_total),
            ("out_of_attempts_total", out_of_attempts_total),
            ("out_of_time_total", out_of_time_total),
            ("out_of_budget_total", out_of_budget_total),
        ] {
            emit(figure, &labels, *value as f64);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) recovered: AtomicU64,
    pub(super) not_copied: AtomicU64,
    pub(super) not_idempotent: AtomicU64,
    pub(super) out_of_attempts: AtomicU64,
    pub(super) out_of_time: AtomicU64,
    pub(super) out_of_budget: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self, name: &str) -> RetryStats {
        let requests_total = self.requests.load(Relaxed);
        let retries_total = self.retries.load(Relaxed);
        RetryStats {
            name: name.to_owned(),
            attempts_total: requests_total + retries_total,
            requests_total,
            retries_total,
            recovered_total: self.recovered.load(Relaxed),
            not_copied_total: self.not_copied.load(Relaxed),
            not_idempotent_total: self.not_idempotent.load(Relaxed),
            out_of_attempts_total: self.out_of_attempts.load(Relaxed),
            out_of_time_total: self.out_of_time.load(Relaxed),
            out_of_budget_total: self.out_of_budget.load(Relaxed),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
