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

use ::redis::RedisError;
#[cfg(feature = "tracing")]
use parking_lot::Mutex;
use smallvec::SmallVec;
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
use super::Decision;
use super::remote::{Answer, Claim, RemoteStore, Spent, Verdict, Verdicts};
use crate::{Breaker, ConfigError, Permit};

/// Refunds on their way at once. Each is over within the timeout; a thousand of them are what a
/// thousand requests turned away in that time give back.
const REFUNDS: usize = 1_024;

/// The breaker tells of its moves as well.
#[cfg(feature = "tracing")]
const LOG_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

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
/// Its questions have none: a question that fails is counted, and the limiter told so. A failure is
/// logged as a warning (feature `tracing`), one each ten seconds.
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
    /// What limiters know it as: the same for all, so that they can be asked about together.
    remote: Arc<Remote>,
}

#[derive(Debug)]
struct Remote(Arc<Inner>);

struct Inner {
    config: RedisRateConfig,
    /// Namespace, escaped, with what follows it in every key.
    prefix: String,
    link: Arc<Link>,
    breaker: Breaker,
    denials: Denials,
    counters: Arc<Counters>,
    refunds: Arc<Semaphore>,
    /// When a failure was last logged.
    #[cfg(feature = "tracing")]
    told: Mutex<Option<Instant>>,
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
            #[cfg(feature = "tracing")]
            told: Mutex::default(),
            config,
        };
        let inner = Arc::new(inner);
        Ok(Self { remote: Arc::new(Remote(Arc::clone(&inner))), inner })
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

    pub(super) fn remote(&self) -> Arc<dyn RemoteStore> {
        Arc::clone(&self.remote) as _
    }

    /// The figures as of now.
    #[must_use]
    pub fn stats(&self) -> RedisRateStats {
        let Inner { breaker, link, denials, counters, .. } = &*self.inner;
        counters.snapshot(breaker.stats(), link.opened(), denials.len())
    }
}

impl RemoteStore for Remote {
    fn check(&self, claims: &[Claim]) -> Answer {
        let inner = Arc::clone(&self.0);
        let check = inner.counters.begin();
        let begun = Instant::now();
        let asks: SmallVec<[Ask; 2]> = claims.iter().map(|claim| inner.ask_for(claim)).collect();
        if let Some(verdicts) = inner.denied(&asks, begun) {
            check.end(End::DeniedLocally);
            return Answer::Now(verdicts);
        }
        let Ok(permit) = inner.breaker.admit() else {
            check.end(End::Skipped);
            return Answer::Now(failed(&asks));
        };
        Answer::Later(Box::pin(async move {
            match inner.ask_guarded(&asks, begun, permit).await {
                Ok(answers) => inner.decide(&asks, &answers, begun, check),
                Err(unanswered) => {
                    check.end(match unanswered {
                        Unanswered::TimedOut => End::TimedOut,
                        Unanswered::Failed(_) => End::Failed,
                    });
                    failed(&asks)
                }
            }
        }))
    }

    fn give_back(&self, claim: &Claim, spent: Spent) {
        let inner = Arc::clone(&self.0);
        let mut ask = inner.ask_for(claim);
        // Time has brought the rest back by itself.
        let owed = ask.units.paid_in(spent.reset.saturating_sub(spent.ago));
        ask.price = -ask.price.min(owed);
        if ask.price == 0 {
            return;
        }
        let runtime = Handle::try_current();
        let room = Arc::clone(&inner.refunds).try_acquire_owned();
        let (Ok(runtime), Ok(room), Ok(permit)) = (runtime, room, inner.breaker.admit()) else {
            return inner.counters.refunded(false);
        };
        runtime.spawn(async move {
            let asks = [ask];
            let booked = inner.ask_guarded(&asks, Instant::now(), permit).await;
            // After the answer: a check that was refused in between is not believed any longer.
            inner.denials.remove(&asks[0].key);
            inner.counters.refunded(booked.is_ok());
            drop(room);
        });
    }
}

impl Inner {
    fn ask_for(&self, claim: &Claim) -> Ask {
        let Claim { key, cost, quota, shadow, at: _ } = claim;
        let units = Units::new(quota.count, quota.period, quota.burst);
        let key = format!("{}{key}", self.prefix);
        Ask { key, units, cost: *cost, price: units.price(*cost), shadow: *shadow }
    }

    /// The verdicts on all of them if one is known to be refused.
    fn denied(&self, asks: &[Ask], now: Instant) -> Option<Verdicts> {
        let known = |ask: &Ask| self.denials.get(&ask.key, ask.cost, ask.units, now);
        let (at, denial) = asks
            .iter()
            .enumerate()
            .find_map(|(at, ask)| known(ask).filter(|_| !ask.shadow).map(|denial| (at, denial)))?;
        let verdict = |other| {
            if other == at { Verdict::Decided(limited_by(denial, now)) } else { Verdict::Moot }
        };
        Some((0..asks.len()).map(verdict).collect())
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
        if let Err(failure) = &answer {
            self.report(failure);
        }
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
            Err(_) => {
                self.link.unanswered();
                Err(Unanswered::TimedOut)
            }
        }
    }

    /// What the answers mean, and what is remembered of them. Times count from the moment before
    /// the question was asked: Redis has looked at its clock after it, so nothing is refused here
    /// that would fit there.
    fn decide(
        &self,
        asks: &[Ask],
        answers: &[script::Answer],
        begun: Instant,
        check: stats::Check,
    ) -> Verdicts {
        let mut end = End::Allowed;
        let mut verdicts = Verdicts::new();
        for (Ask { key, units, cost, shadow, .. }, answer) in asks.iter().zip(answers) {
            let script::Answer { limited, remaining, wait, reset } = *answer;
            let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
            if !limited {
                verdicts.push(Verdict::Decided(Decision::Allowed { remaining, reset }));
                continue;
            }
            if !shadow {
                end = End::Limited;
                let until = begun + wait.min(self.config.denial_max);
                let (units, cost, fits, whole) = (*units, *cost, begun + wait, begun + reset);
                let denial = Denial { units, cost, fits, whole, remaining, until };
                // Asked for twice, less than both may fit.
                if asks.iter().filter(|ask| ask.key == *key).count() == 1 {
                    self.denials.insert(key, denial, Instant::now());
                }
            }
            let retry_after = Some(wait);
            verdicts.push(Verdict::Decided(Decision::Limited { retry_after, remaining, reset }));
        }
        check.end(end);
        verdicts
    }

    /// Logs a failure, and at most one each [`LOG_INTERVAL`]: under load there may be thousands.
    #[cfg(feature = "tracing")]
    fn report(&self, failure: &Unanswered) {
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.is_some_and(|told| now.duration_since(told) < LOG_INTERVAL) {
            return;
        }
        *told = Some(now);
        drop(told);
        match failure {
            Unanswered::TimedOut => {
                tracing::warn!("redis does not answer in time: rate limits are not shared");
            }
            Unanswered::Failed(error) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "redis fails: rate limits are not shared");
            }
        }
    }

    #[cfg(not(feature = "tracing"))]
    #[expect(clippy::unused_self, reason = "the same call with and without the feature")]
    fn report(&self, _: &Unanswered) {}
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("prefix", &self.prefix).finish_non_exhaustive()
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

fn failed(asks: &[Ask]) -> Verdicts {
    asks.iter().map(|_| Verdict::Failed).collect()
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
