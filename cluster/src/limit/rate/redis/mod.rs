//! Buckets on Redis, which all processes share: one script, a hard timeout, a breaker, and a memory
//! of what was refused.

mod config;
mod deny;
mod limiter;
mod link;
mod script;
mod stats;
mod units;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redis::RedisError;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

pub use self::config::RedisRateConfig;
pub use self::limiter::RedisRateLimiter;
pub use self::stats::RedisRateStats;

use self::deny::{Denial, Denials};
use self::link::Link;
use self::script::Ask;
use self::stats::{Counters, End};
use self::units::Units;
use super::remote::{Answer, RemoteStore, Spent, Verdict};
use super::{Decision, Quota};
use crate::{Breaker, ConfigError, Permit};

/// Refunds on their way at once. Each is over within the timeout; a thousand of them are what a
/// thousand requests turned away in that time give back.
const REFUNDS: usize = 1_024;

/// Rate limits that all processes with the same Redis share.
///
/// A limiter is given it as its store; several limiters, with keys apart by their names, share one.
/// Clones are the same store.
///
/// Redis decides, by its own clock and in one step: however many processes ask, and whatever their
/// clocks say, a key gets what its quota says and not a unit more. A request waits no longer than
/// [`timeout`](RedisRateConfig::timeout) for that. After some failures in a row the breaker leaves
/// Redis alone, and what becomes of requests then is the limiter's choice.
///
/// # Errors
/// Its questions have none: a question that fails is counted, and the limiter told so. The first
/// failure after an answer is logged as a warning (feature `tracing`), and so is the recovery.
///
/// # Cancellation
/// Dropping a check leaves open whether its units are taken.
///
/// # Cost
/// A check is one round trip on one pipelined connection, and none for a key that was refused and
/// is to be refused still.
#[derive(Clone)]
pub struct RedisRateStore {
    inner: Arc<Inner>,
}

struct Inner {
    config: RedisRateConfig,
    /// Namespace, escaped, with what follows it in every key.
    prefix: String,
    link: Arc<Link>,
    breaker: Breaker,
    denials: Denials,
    counters: Arc<Counters>,
    refunds: Arc<Semaphore>,
    /// The last question failed: said once, not each time.
    failing: AtomicBool,
}

/// Why Redis has not answered a [`ping`](RedisRateStore::ping).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisRateError {
    /// Not within [`connect_timeout`](RedisRateConfig::connect_timeout).
    #[error("redis did not answer in time")]
    TimedOut,
    /// It could not be reached, or refused the user or the script.
    #[error("redis cannot be used for rate limits")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A question to Redis without an answer.
enum Unanswered {
    TimedOut,
    Failed(RedisError),
}

impl RedisRateStore {
    /// A store that connects with its first question.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    pub fn new(config: impl Into<RedisRateConfig>) -> Result<Self, ConfigError> {
        let config = config.into();
        config.validate()?;
        let link = Link::new(config.client()?, config.connect_timeout);
        let mut prefix = String::new();
        escape(&config.namespace, &mut prefix);
        prefix.push_str(":rate:");
        let inner = Inner {
            prefix,
            link: Arc::new(link),
            breaker: Breaker::new("rate-limit-redis", config.breaker.clone())?,
            denials: Denials::new(config.denials as usize),
            counters: Arc::default(),
            refunds: Arc::new(Semaphore::new(REFUNDS)),
            failing: AtomicBool::new(false),
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Asks Redis for the script's answer to nothing: for a start that should fail on a wrong
    /// address or password rather than run without limits, and for a health check. The breaker is
    /// not asked, and not told.
    ///
    /// # Errors
    /// What keeps Redis from answering within
    /// [`connect_timeout`](RedisRateConfig::connect_timeout).
    pub async fn ping(&self) -> Result<(), RedisRateError> {
        let deadline = Instant::now() + self.inner.config.connect_timeout;
        match self.inner.ask(&[], deadline).await {
            Ok(_) => Ok(()),
            Err(Unanswered::TimedOut) => Err(RedisRateError::TimedOut),
            Err(Unanswered::Failed(error)) => Err(RedisRateError::Failed(error.into())),
        }
    }

    /// The breaker around Redis, to watch it or to switch it by hand.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.inner.breaker
    }

    /// The figures as of now.
    #[must_use]
    pub fn stats(&self) -> RedisRateStats {
        let Inner { breaker, link, denials, counters, .. } = &*self.inner;
        counters.snapshot(breaker.stats(), link.opened(), denials.len())
    }
}

impl RemoteStore for RedisRateStore {
    fn check(&self, key: String, cost: u32, quota: Quota) -> Answer {
        let inner = Arc::clone(&self.inner);
        let check = inner.counters.begin();
        let begun = Instant::now();
        let key = inner.key(&key);
        if let Some(denial) = inner.denials.get(&key, cost, begun) {
            check.end(End::DeniedLocally);
            return Answer::Now(Verdict::Decided(limited_by(denial, begun)));
        }
        let Ok(permit) = inner.breaker.admit() else {
            check.end(End::Skipped);
            return Answer::Now(Verdict::Failed);
        };
        Answer::Later(Box::pin(async move {
            let units = units(quota);
            let asks = [Ask { key, units, price: units.price(cost), shadow: false }];
            let answer = inner.ask_guarded(&asks, begun, permit).await;
            let [Ask { key, .. }] = asks;
            let answer = match answer.as_deref() {
                Ok(&[answer]) => answer,
                Err(Unanswered::TimedOut) => {
                    check.end(End::TimedOut);
                    return Verdict::Failed;
                }
                // The script answers as many as it was asked.
                Ok(_) | Err(Unanswered::Failed(_)) => {
                    check.end(End::Failed);
                    return Verdict::Failed;
                }
            };
            Verdict::Decided(inner.decide(&key, cost, answer, begun, check))
        }))
    }

    fn give_back(&self, key: String, cost: u32, quota: Quota, charge: Spent) {
        let units = units(quota);
        // Time has brought the rest back by itself.
        let owed = units.paid_in(charge.reset.saturating_sub(charge.ago));
        let price = -units.price(cost).min(owed);
        if price == 0 {
            return;
        }
        let inner = Arc::clone(&self.inner);
        let runtime = Handle::try_current();
        let room = Arc::clone(&inner.refunds).try_acquire_owned();
        let (Ok(runtime), Ok(room), Ok(permit)) = (runtime, room, inner.breaker.admit()) else {
            return inner.counters.refunded(false);
        };
        runtime.spawn(async move {
            let asks = [Ask { key: inner.key(&key), units, price, shadow: false }];
            let booked = inner.ask_guarded(&asks, Instant::now(), permit).await;
            // After the answer: a check that was refused in between is not believed any longer.
            inner.denials.remove(&asks[0].key);
            inner.counters.refunded(booked.is_ok());
            drop(room);
        });
    }
}

impl Inner {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Asks, and tells the breaker how it went.
    async fn ask_guarded(
        &self,
        asks: &[Ask],
        begun: Instant,
        permit: Permit,
    ) -> Result<Vec<script::Answer>, Unanswered> {
        let answer = self.ask(asks, begun + self.config.timeout).await;
        match &answer {
            Ok(_) => permit.succeeded(),
            // A server that minds what stands at one key is well.
            Err(Unanswered::Failed(error)) if error.code() == Some("WRONGTYPE") => {
                permit.succeeded();
            }
            Err(_) => permit.failed(),
        }
        self.report(answer.as_ref().err());
        answer
    }

    async fn ask(
        &self,
        asks: &[Ask],
        deadline: Instant,
    ) -> Result<Vec<script::Answer>, Unanswered> {
        match timeout_at(deadline, script::run(&self.link, asks)).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) if error.is_timeout() => Err(Unanswered::TimedOut),
            Ok(Err(error)) => Err(Unanswered::Failed(error)),
            Err(_) => Err(Unanswered::TimedOut),
        }
    }

    /// What an answer means, and what is remembered of it. Times count from the moment before the
    /// question was asked: Redis has looked at its clock after it, so nothing is refused here that
    /// would fit there.
    fn decide(
        &self,
        key: &str,
        cost: u32,
        answer: script::Answer,
        begun: Instant,
        check: stats::Check,
    ) -> Decision {
        let remaining = u32::try_from(answer.remaining).unwrap_or(u32::MAX);
        if !answer.limited {
            check.end(End::Allowed);
            return Decision::Allowed { remaining, reset: answer.reset };
        }
        check.end(End::Limited);
        let until = begun + answer.wait.min(self.config.denial_max);
        let (fits, whole) = (begun + answer.wait, begun + answer.reset);
        self.denials.insert(key, Denial { cost, fits, whole, remaining, until }, Instant::now());
        Decision::Limited { retry_after: Some(answer.wait), remaining, reset: answer.reset }
    }

    #[cfg(feature = "tracing")]
    fn report(&self, failure: Option<&Unanswered>) {
        let before = self.failing.load(Ordering::Relaxed);
        if before == failure.is_some()
            || self.failing.swap(failure.is_some(), Ordering::Relaxed) != before
        {
            return;
        }
        match failure {
            None => tracing::info!("redis answers again: rate limits are shared"),
            Some(Unanswered::TimedOut) => {
                tracing::warn!("redis does not answer in time: rate limits are not shared");
            }
            Some(Unanswered::Failed(error)) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "redis fails: rate limits are not shared");
            }
        }
    }

    #[cfg(not(feature = "tracing"))]
    fn report(&self, failure: Option<&Unanswered>) {
        self.failing.store(failure.is_some(), Ordering::Relaxed);
    }
}

impl fmt::Debug for RedisRateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRateStore")
            .field("prefix", &self.inner.prefix)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

fn limited_by(denial: Denial, now: Instant) -> Decision {
    Decision::Limited {
        retry_after: Some(denial.fits.saturating_duration_since(now)),
        remaining: denial.remaining,
        reset: denial.whole.saturating_duration_since(now),
    }
}

fn units(quota: Quota) -> Units {
    Units::new(quota.count.into(), quota.period, quota.burst.into())
}

/// Escapes what has a meaning in the names of keys.
fn escape(name: &str, out: &mut String) {
    for sign in name.chars() {
        match sign {
            ':' => out.push_str("%3A"),
            '%' => out.push_str("%25"),
            '{' => out.push_str("%7B"),
            '}' => out.push_str("%7D"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests;
