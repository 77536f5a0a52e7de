//! The breakers: around the database, Redis and the service outside, which other machines can break,
//! and one around each area, which its own bugs can.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use escala_cluster::{
    AsResponse, Breaker, BreakerConfig, BreakerLayer, BreakerStats, ConfigError, Outcome,
};

use super::store::StoreError;

/// Longer than a request can wait for what is our own: 2 s for a node with a free place and 5 s for a
/// connection of it. Whoever waits longer waits for the server, which is frozen then: no such call
/// ever fails, and those behind it only find the pool busy.
const FROZEN: Duration = Duration::from_secs(8);
/// Calls that show whether a server is frozen: it does not take a busy minute to see it.
const FEW: u32 = 20;
/// How long the database is left alone at first, and at most. Short: the router finds out by itself
/// who is the primary now, and then everything is well at once.
const DATABASE_OPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The same of Redis, whose place the memory takes meanwhile.
const REDIS_OPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Every breaker of the server.
#[derive(Clone, Debug)]
pub struct Breakers {
    /// Reads of the database, whichever node they go to. Apart from the writes: standbys go on
    /// without a primary.
    pub reads: Breaker,
    /// Writes of the database.
    pub writes: Breaker,
    /// Redis as the caches use it.
    pub redis: Breaker,
    /// The service that knows exchange rates.
    pub rates: Breaker,
    /// The routes of an area: one goes on while another one has a bug.
    pub trading: Breaker,
    /// See `trading`.
    pub financial: Breaker,
    /// See `trading`.
    pub affiliate: Breaker,
}

impl Breakers {
    pub(super) fn new() -> Result<Self, ConfigError> {
        // Who hangs up says nothing about what he waited for: a place in the pool, or a service whose
        // time is not over yet. Everything behind these breakers has a timeout of its own, and a
        // server that is frozen shows in the calls under way.
        let config = BreakerConfig::default().abandoned_after(None);
        let database = config
            .clone()
            .slow_call_rate(0.5)
            .slow_call(FROZEN)
            .minimum_calls(FEW)
            .open_for(DATABASE_OPEN.0)
            .open_for_max(DATABASE_OPEN.1);
        let redis = config.clone().open_for(REDIS_OPEN.0).open_for_max(REDIS_OPEN.1);
        let area = |name| Breaker::new(name, config.clone());
        Ok(Self {
            reads: Breaker::new("database reads", database.clone())?,
            writes: Breaker::new("database writes", database)?,
            redis: Breaker::new("redis", redis)?,
            rates: Breaker::new("exchange rates", config.clone())?,
            trading: area("trading")?,
            financial: area("financial")?,
            affiliate: area("affiliate")?,
        })
    }

    /// The figures of each that is in use.
    pub(super) fn stats(&self, redis: bool, rates: bool) -> Vec<BreakerStats> {
        let Self { reads, writes, trading, financial, affiliate, .. } = self;
        let mut used = vec![reads, writes, trading, financial, affiliate];
        used.extend(redis.then_some(&self.redis));
        used.extend(rates.then_some(&self.rates));
        used.into_iter().map(Breaker::stats).collect()
    }
}

/// Runs an operation of the database, unless that is being left alone.
pub(super) async fn guarded<T>(
    breaker: &Breaker,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let permit = breaker.admit().map_err(StoreError::LeftAlone)?;
    let result = operation.await;
    permit.judged(judge(&result));
    result
}

/// What the result of an operation says about the database.
fn judge<T>(result: &Result<T, StoreError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        // What the client wanted cannot be; the database has said so.
        Err(error) if error.is_answer() => Outcome::Success,
        // Our own pool is full, or the server has too much to do: leaving it alone would make a
        // peak an outage.
        Err(error) if error.is_busy() => Outcome::Ignored,
        Err(error) if error.may_pass() => Outcome::Failure,
        // A statement that every server would refuse.
        Err(_) => Outcome::Ignored,
    }
}

type JudgeArea = fn(Result<&Response, &Infallible>) -> Outcome;

/// A breaker around the routes of an area. A 503 is no bug of theirs: whatever it stands for has a
/// breaker of its own, or is only busy.
pub(super) fn around_area(breaker: &Breaker) -> BreakerLayer<JudgeArea, AsResponse> {
    BreakerLayer::http(breaker.clone()).classify(|result: Result<&Response, &Infallible>| {
        let status = match result {
            Ok(response) => response.status(),
            Err(never) => match *never {},
        };
        match status {
            StatusCode::SERVICE_UNAVAILABLE => Outcome::Ignored,
            status if status.is_server_error() => Outcome::Failure,
            _ => Outcome::Success,
        }
    })
}
