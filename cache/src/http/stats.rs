//! What an HTTP cache has done so far, and the tokens that keep its sums true.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Counter;
use crate::http::engine::Refusal;
use crate::stats::{Emit, figure};

/// A snapshot of one [`HttpCache`](crate::http::HttpCache).
///
/// `requests` = `hits` + `stale` + `revalidated` + `coalesced` + `misses` + `bypassed` +
/// `unsatisfiable` + `purges` + `failed` + `cancelled` + `in_flight`, always.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HttpCacheStats {
    /// Name of the cache.
    pub name: String,
    /// Requests that came to a layer over this cache.
    pub requests: u64,
    /// Requests answered by a fresh stored response.
    pub hits: u64,
    /// Requests answered by a stale one: while it was revalidated, in place of an error, or as
    /// the client allowed.
    pub stale: u64,
    /// Requests answered by a stored response that the origin confirmed first.
    pub revalidated: u64,
    /// Requests answered by the answer to another.
    pub coalesced: u64,
    /// Requests that the origin answered, stored or not.
    pub misses: u64,
    /// Requests the cache kept out of: another method, a body, the bypass function.
    pub bypassed: u64,
    /// Requests that wanted a stored response or none, and got 504.
    pub unsatisfiable: u64,
    /// Purges asked for by `PURGE`, refused ones too.
    pub purges: u64,
    /// Requests that got the inner service's error, or its panic.
    pub failed: u64,
    /// Requests dropped before their response's head.
    pub cancelled: u64,
    /// Requests without a response's head now.
    pub in_flight: u64,
    /// Responses stored, freshened ones too.
    pub stored: u64,
    /// Responses not stored since a removal came while they were under way.
    pub discarded: u64,
    /// Responses not stored since their body is too long.
    pub too_large: u64,
    /// Responses not stored since their body broke off or had not its announced length.
    pub incomplete: u64,
    /// Responses not stored since they have too many surrogate keys, or one that is too long.
    pub untaggable: u64,
    /// Responses not stored since they may not be, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Keys marked as not to be waited for.
    pub hit_for_miss: u64,
    /// Requests that waited for another's answer as long as they may.
    pub wait_timeouts: u64,
    /// Revalidations in the background that were begun.
    pub revalidations: u64,
    /// Revalidations in the background under way now.
    pub revalidations_in_flight: u64,
    /// Revalidations not begun, since as many were under way as may be.
    pub revalidations_skipped: u64,
    /// Targets removed by a request with an unsafe method.
    pub invalidations: u64,
    /// Answers under way that others can wait for.
    pub flights: u64,
}

impl HttpCacheStats {
    /// Hands every figure to `emit`, labelled with the name of the cache.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            requests,
            hits,
            stale,
            revalidated,
            coalesced,
            misses,
            bypassed,
            unsatisfiable,
            purges,
            failed,
            cancelled,
            in_flight,
            stored,
            discarded,
            too_large,
            incomplete,
            untaggable,
            refused,
            hit_for_miss,
            wait_timeouts,
            revalidations,
            revalidations_in_flight,
            revalidations_skipped,
            invalidations,
            flights,
        } = self;
        let outcomes = [
            ("hit", hits),
            ("stale", stale),
            ("revalidated", revalidated),
            ("coalesced", coalesced),
            ("miss", misses),
            ("bypassed", bypassed),
            ("unsatisfiable", unsatisfiable),
            ("purge", purges),
            ("failed", failed),
            ("cancelled", cancelled),
        ];
        for (outcome, count) in outcomes {
            let labels = [("cache", name.as_str()), ("outcome", outcome)];
            emit("http_cache_outcomes_total", &labels, figure(*count));
        }
        let unstored = [
            ("discarded", discarded),
            ("too-large", too_large),
            ("incomplete", incomplete),
            ("untaggable", untaggable),
        ];
        let refused = refused.iter().map(|(reason, count)| (*reason, count));
        for (reason, count) in unstored.into_iter().chain(refused) {
            let labels = [("cache", name.as_str()), ("reason", reason)];
            emit("http_cache_unstored_total", &labels, figure(*count));
        }
        let figures = [
            ("http_cache_requests_total", requests),
            ("http_cache_in_flight", in_flight),
            ("http_cache_stored_total", stored),
            ("http_cache_hit_for_miss_total", hit_for_miss),
            ("http_cache_wait_timeouts_total", wait_timeouts),
            ("http_cache_revalidations_total", revalidations),
            ("http_cache_revalidations_in_flight", revalidations_in_flight),
            ("http_cache_revalidations_skipped_total", revalidations_skipped),
            ("http_cache_invalidations_total", invalidations),
            ("http_cache_flights", flights),
        ];
        for (figure_name, count) in figures {
            emit(figure_name, &[("cache", name.as_str())], figure(*count));
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Hit,
    Stale,
    Revalidated,
    Coalesced,
    Miss,
    Bypassed,
    Unsatisfiable,
    Purge,
    Failed,
    Cancelled,
}

const OUTCOMES: usize = Outcome::Cancelled as usize + 1;

/// Everything that is counted and is not known otherwise.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Fresh hits in memory, which begin and end in one step.
    pub(crate) quick_hits: Counter,
    started: AtomicU64,
    ended: [AtomicU64; OUTCOMES],
    refused: [AtomicU64; REFUSALS.len()],
    pub(crate) stored: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) too_large: AtomicU64,
    pub(crate) incomplete: AtomicU64,
    pub(crate) untaggable: AtomicU64,
    pub(crate) hit_for_miss: AtomicU64,
    pub(crate) wait_timeouts: AtomicU64,
    pub(crate) revalidations: AtomicU64,
    pub(crate) revalidations_skipped: AtomicU64,
    pub(crate) invalidations: AtomicU64,
}

/// What [`Counts`] cannot know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauges {
    pub(crate) revalidations: usize,
    pub(crate) flights: usize,
}

impl Counts {
    /// Counts a request that begins; dropped unsettled, it counts as cancelled.
    pub(crate) fn start(self: &Arc<Self>) -> Token {
        self.started.fetch_add(1, Ordering::Relaxed);
        Token { counts: Arc::clone(self), outcome: Outcome::Cancelled }
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        if let Some(at) = REFUSALS.iter().position(|known| *known == refusal) {
            raise(&self.refused[at]);
        }
    }

    /// Reads the ends before the starts, and each end was released after its start: a snapshot
    /// never shows more requests ended than started.
    pub(crate) fn read(&self, name: &str, gauges: Gauges) -> HttpCacheStats {
        let ended: [u64; OUTCOMES] =
            array::from_fn(|outcome| self.ended[outcome].load(Ordering::Acquire));
        let started = self.started.load(Ordering::Relaxed);
        let quick_hits = self.quick_hits.get();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let end = |outcome: Outcome| ended[outcome as usize];
        let refused = REFUSALS.iter().zip(&self.refused);
        HttpCacheStats {
            name: name.to_owned(),
            requests: started + quick_hits,
            hits: end(Outcome::Hit) + quick_hits,
            stale: end(Outcome::Stale),
            revalidated: end(Outcome::Revalidated),
            coalesced: end(Outcome::Coalesced),
            misses: end(Outcome::Miss),
            bypassed: end(Outcome::Bypassed),
            unsatisfiable: end(Outcome::Unsatisfiable),
            purges: end(Outcome::Purge),
            failed: end(Outcome::Failed),
            cancelled: end(Outcome::Cancelled),
            in_flight: started - ended.iter().sum::<u64>(),
            stored: read(&self.stored),
            discarded: read(&self.discarded),
            too_large: read(&self.too_large),
            incomplete: read(&self.incomplete),
            untaggable: read(&self.untaggable),
            refused: refused.map(|(refusal, count)| (refusal.as_str(), read(count))).collect(),
            hit_for_miss: read(&self.hit_for_miss),
            wait_timeouts: read(&self.wait_timeouts),
            revalidations: read(&self.revalidations),
            revalidations_in_flight: gauges.revalidations as u64,
            revalidations_skipped: read(&self.revalidations_skipped),
            invalidations: read(&self.invalidations),
            flights: gauges.flights as u64,
        }
    }
}

/// One request without a response.
#[derive(Debug)]
#[must_use]
pub(crate) struct Token {
    counts: Arc<Counts>,
    outcome: Outcome,
}

impl Token {
    /// Ends the request.
    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // A panic of the inner service passes through the future that holds this.
        let panicking = self.outcome == Outcome::Cancelled && std::thread::panicking();
        let outcome = if panicking { Outcome::Failed } else { self.outcome };
        self.counts.ended[outcome as usize].fetch_add(1, Ordering::Release);
    }
}

pub(crate) fn raise(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

const REFUSALS: [Refusal; 13] = [
    Refusal::Method,
    Refusal::Request,
    Refusal::Status,
    Refusal::Partial,
    Refusal::NoStore,
    Refusal::Private,
    Refusal::Authorization,
    Refusal::SetCookie,
    Refusal::VaryStar,
    Refusal::NotUnderstood,
    Refusal::ErrorStatus,
    Refusal::NoLifetime,
    Refusal::Useless,
];
