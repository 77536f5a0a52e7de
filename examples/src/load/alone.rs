//! What the caches are worth to one user on a quiet server: the same quote without and with them.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use tokio::time::Instant;

use super::measure::{Latency, Sample, histogram};
use super::plan::Operation;
use super::user::User;
use crate::enterprise::store::SYMBOLS;

/// Enough for a p99, and done in a second.
const ROUNDS: i64 = 200;

/// A quote asked for by one user alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Alone {
    /// Answered by the database, through every layer: an order had just removed it from all.
    pub(super) uncached: Latency,
    /// The same quote once more.
    pub(super) cached: Latency,
}

/// Orders, reads what the order has removed, and reads it again; which of the two is which, the
/// server's `Cache-Status` must confirm.
///
/// # Errors
/// An answer is wrong, or the server does not say where it is from.
pub(super) async fn measure(user: &mut User) -> anyhow::Result<Alone> {
    let (mut uncached, mut cached) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let symbol = round % SYMBOLS + 1;
        user.perform(&Operation::Order { symbol, quantity: 1 }).await?;
        for (samples, hit) in [(&mut uncached, false), (&mut cached, true)] {
            let asked = Instant::now();
            user.perform(&Operation::Quote { symbol }).await?;
            let took = asked.elapsed();
            let found = user.was_cached();
            ensure!(found == Some(hit), "Cache-Status: cached {found:?} instead of {hit}");
            samples.push(Sample::new(0, true, Duration::ZERO, took));
        }
    }
    let of = |samples: &[Sample]| Latency::of(&histogram(samples));
    Ok(Alone { uncached: of(&uncached), cached: of(&cached) })
}
