//! The figures of one store: counted as checks start and end, handed out as a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{BreakerStats, Emit};

/// A store's figures at one moment. A check is one request's question about one limit or several.
///
/// `checks_total` = `in_flight` + the seven ways to end below it, at every moment and under drop,
/// panic and abort. The figures are read one after the other, without stopping anybody.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RedisRateStats {
    /// Checks under way.
    pub in_flight: u64,
    /// Checks begun.
    pub checks_total: u64,
    /// Let through by Redis.
    pub allowed_total: u64,
    /// Refused by Redis.
    pub limited_total: u64,
    /// Refused without asking, because Redis had refused them until later.
    pub denied_locally_total: u64,
    /// Had no answer within the timeout.
    pub timeouts_total: u64,
    /// Ended with an error of Redis or of the way to it.
    pub errors_total: u64,
    /// Not asked, because the breaker was open.
    pub skipped_total: u64,
    /// Given up by the caller.
    pub cancelled_total: u64,
    /// Refunds that Redis has booked.
    pub refunds_total: u64,
    /// Refunds that were lost: Redis was away, or too many were on their way.
    pub refunds_lost_total: u64,
    /// Connections opened.
    pub connections_total: u64,
    /// Refusals remembered now.
    pub denials: u64,
    /// The breaker around Redis.
    pub breaker: BreakerStats,
}

impl RedisRateStats {
    /// Hands out each figure under its field's name; those of the breaker as
    /// [`BreakerStats::visit`] does, with `breaker_` before the name.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            in_flight,
            checks_total,
            allowed_total,
            limited_total,
            denied_locally_total,
            timeouts_total,
            errors_total,
            skipped_total,
            cancelled_total,
            refunds_total,
            refunds_lost_total,
            connections_total,
            denials,
            breaker,
        } = self;
        for (figure, value) in [
            ("in_flight", in_flight),
            ("checks_total", checks_total),
            ("allowed_total", allowed_total),
            ("limited_total", limited_total),
            ("denied_locally_total", denied_locally_total),
            ("timeouts_total", timeouts_total),
            ("errors_total", errors_total),
            ("skipped_total", skipped_total),
            ("cancelled_total", cancelled_total),
            ("refunds_total", refunds_total),
            ("refunds_lost_total", refunds_lost_total),
            ("connections_total", connections_total),
            ("denials", denials),
        ] {
            emit(figure, &[], *value as f64);
        }
        breaker.visit(&mut |name, labels, value| emit(&format!("breaker_{name}"), labels, value));
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Allowed,
    Limited,
    DeniedLocally,
    TimedOut,
    Failed,
    Skipped,
    Cancelled,
}

/// What a store counts. An end is counted after its start with release, and read before it with
/// acquire: a snapshot never shows more ends than starts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    checks: AtomicU64,
    ends: [AtomicU64; 7],
    refunds: AtomicU64,
    refunds_lost: AtomicU64,
}

/// A check that has begun; dropped, it was given up.
#[derive(Debug)]
#[must_use = "a check that is dropped counts as given up"]
pub(super) struct Check {
    counters: Arc<Counters>,
    end: End,
}

impl Check {
    pub(super) fn end(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.counters.ends[self.end as usize].fetch_add(1, Ordering::Release);
    }
}

impl Counters {
    pub(super) fn begin(self: &Arc<Self>) -> Check {
        self.checks.fetch_add(1, Ordering::Relaxed);
        Check { counters: Arc::clone(self), end: End::Cancelled }
    }

    pub(super) fn refunded(&self, arrived: bool) {
        let counter = if arrived { &self.refunds } else { &self.refunds_lost };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(
        &self,
        breaker: BreakerStats,
        connections: u64,
        denials: usize,
    ) -> RedisRateStats {
        let ends = self.ends.each_ref().map(|end| end.load(Ordering::Acquire));
        let of = |end: End| ends[end as usize];
        let checks_total = self.checks.load(Ordering::Relaxed);
        RedisRateStats {
            in_flight: checks_total - ends.iter().sum::<u64>(),
            checks_total,
            allowed_total: of(End::Allowed),
            limited_total: of(End::Limited),
            denied_locally_total: of(End::DeniedLocally),
            timeouts_total: of(End::TimedOut),
            errors_total: of(End::Failed),
            skipped_total: of(End::Skipped),
            cancelled_total: of(End::Cancelled),
            refunds_total: self.refunds.load(Ordering::Relaxed),
            refunds_lost_total: self.refunds_lost.load(Ordering::Relaxed),
            connections_total: connections,
            denials: denials as u64,
            breaker,
        }
    }
}
