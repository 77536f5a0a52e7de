//! What the caches are worth to one user on a quiet server: the same quote without and with them.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::time::Instant;

use super::measure::{Latency, Sample, histogram};
use super::plan::Operation;
use super::user::User;
use crate::enterprise::store::SYMBOLS;

/// Enough for a p99, and done in a second.
const ROUNDS: i64 = 200;
/// How often a page is asked for until it is stored: the answer does not wait for that.
const ATTEMPTS: u32 = 1_000;

/// A quote asked for by one user alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Alone {
    /// Answered by the database, through every layer: an order had just removed it from all.
    pub(super) uncached: Latency,
    /// The same quote once more.
    pub(super) cached: Latency,
}

/// Orders, reads what the order has removed, and reads it again until the server's `Cache-Status`
/// says that it was stored.
///
/// # Errors
/// An answer is wrong, or the server does not say where it is from.
pub(super) async fn measure(user: &mut User) -> anyhow::Result<Alone> {
    let (mut uncached, mut cached) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let symbol = round % SYMBOLS + 1;
        user.perform(&Operation::Order { symbol, quantity: 1 }).await?;
        let (sample, hit) = ask(user, symbol).await?;
        ensure!(!hit, "an order left the page of its symbol in the cache");
        uncached.push(sample);
        let mut attempts = 0;
        let sample = loop {
            let (sample, hit) = ask(user, symbol).await?;
            if hit {
                break sample;
            }
            attempts += 1;
            ensure!(attempts < ATTEMPTS, "the page of a quote is never stored");
        };
        cached.push(sample);
    }
    let of = |samples: &[Sample]| Latency::of(&histogram(samples));
    Ok(Alone { uncached: of(&uncached), cached: of(&cached) })
}

/// One quote; whether the cache had it.
async fn ask(user: &mut User, symbol: i64) -> anyhow::Result<(Sample, bool)> {
    let asked = Instant::now();
    user.perform(&Operation::Quote { symbol }).await?;
    let took = asked.elapsed();
    let hit = user.was_cached().context("no Cache-Status")?;
    Ok((Sample::new(0, true, Duration::ZERO, took), hit))
}
