//! A policy for `tower::retry`: what fails is sent again if that does no harm, helps, and is paid for.
//! And a hedge: what is late is sent a second time, on the same terms.
//!
//! tower's own `TpsBudget` keeps the budget: it is Finagle's, exact for one retry per whole number of
//! requests, and shared by reference. Its `ExponentialBackoff` is not used: it adds its random part
//! to the full wait, where full jitter spreads over all of it; the clones of one maker draw the same
//! random numbers, so that requests which failed together come back together; and it does not say
//! how long it will wait, so that nothing can be compared with a deadline.

mod config;
mod hedge;
mod http_rules;
mod rules;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use tower::retry::Policy;
use tower::retry::budget::{Budget, TpsBudget};

pub use self::config::RetryConfig;
pub use self::hedge::{HedgeConfig, HedgeFuture, HedgeLayer, HedgeService, HedgeStats};
pub use self::http_rules::{CloneBody, CopyBody, EmptyBody, EveryError, HttpRetry, JudgeError};
pub use self::rules::{Retry, RetryRules, RetryWhen};
pub use self::stats::RetryStats;

use self::stats::{Counters, count};
use crate::ConfigError;

/// How long a retry stays earned, as in Finagle.
const EARNED_FOR: Duration = Duration::from_secs(10);

/// Sends failed requests again, within a budget that all clones share.
///
/// Put it in a `tower::retry::RetryLayer` around one backend. Inside it belongs what every attempt
/// has to pass: a timeout for each, the breaker, the balancer. Around it belongs what counts once
/// per request: the timeout for the whole, the caller's rate limit. What a breaker or limit inside
/// refuses is not sent again, see [`Retry::for_error`].
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// use escala_cluster::{RetryConfig, RetryPolicy};
/// use http::{Request, Response, StatusCode};
/// use tower::{Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let policy = RetryPolicy::http("upstream", RetryConfig::default())?;
/// let asked = Arc::new(AtomicU32::new(0));
/// let mut upstream = ServiceBuilder::new()
///     .layer(RetryLayer::new(policy.clone()))
///     .service(service_fn(move |_: Request<String>| {
///         let busy = asked.fetch_add(1, Ordering::Relaxed) == 0;
///         let status = if busy { 503 } else { 200 };
///         std::future::ready(Response::builder().status(status).body(()))
///     }));
///
/// let response = upstream.ready().await?.call(Request::new(String::new())).await?;
/// assert_eq!(response.status(), StatusCode::OK);
/// assert_eq!(policy.stats().retries_total, 1);
/// # Ok(())
/// # }
/// ```
///
/// # State
/// Budget and statistics are shared by all clones, and by all services of one layer.
///
/// # Cancellation
/// Dropping the request's future ends its retries. A retry that was being waited for is paid for.
///
/// # Errors
/// The result of the last attempt, as it is.
///
/// # Limits
/// A request that cannot be copied is sent once. An attempt that hangs is waited for: that is what
/// timeouts are for. A response is judged by its head.
///
/// Only one layer of a chain of calls may retry: three attempts around a service that makes three
/// attempts itself are nine, and the budgets multiply, too. Retry where the failure can be told from
/// others best, next to the backend, and not in front of a service that does.
///
/// # Cost
/// A copy of each request; a lock and two clock reads, by tower's budget and for the deadline.
pub struct RetryPolicy<R = HttpRetry> {
    shared: Arc<Shared>,
    rules: R,
    /// Of the present request; a clone is made for each.
    attempts: u32,
    began: Instant,
    /// A retry was decided, and the next copy asked for is its.
    retrying: bool,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    config: RetryConfig,
    budget: TpsBudget,
    counters: Counters,
}

impl RetryPolicy {
    /// For HTTP, by the rules of [`HttpRetry::new`].
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    pub fn http(name: impl Into<Arc<str>>, config: RetryConfig) -> Result<Self, ConfigError> {
        Self::new(name, config, HttpRetry::new())
    }
}

impl<R> RetryPolicy<R> {
    /// By these rules. The name is what statistics call it.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    pub fn new(
        name: impl Into<Arc<str>>,
        config: RetryConfig,
        rules: R,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let budget = budget(config.requests_per_retry, config.retries_per_second);
        let counters = Counters::default();
        let shared = Shared { name: name.into(), config, budget, counters };
        let (attempts, began, retrying) = (0, Instant::now(), false);
        Ok(Self { shared: Arc::new(shared), rules, attempts, began, retrying })
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The figures as of now.
    #[must_use]
    pub fn stats(&self) -> RetryStats {
        self.shared.counters.snapshot(&self.shared.name)
    }

    /// The wait before another attempt, if there may be one; it is paid for then.
    fn next<Req, Res, E>(&self, request: &Req, result: Result<&Res, &E>) -> Option<Duration>
    where
        R: RetryRules<Req, Res, E>,
    {
        let Shared { config, budget, counters, .. } = &*self.shared;
        let (asked, harmless) = match self.rules.judge(request, result) {
            Retry::No => {
                if self.attempts > 1 && self.rules.is_good(request, result) {
                    count(&counters.recovered);
                }
                return None;
            }
            Retry::IfIdempotent(asked) => (asked, self.rules.is_idempotent(request)),
            Retry::Always(asked) => (asked, true),
        };
        if !harmless {
            count(&counters.not_idempotent);
            return None;
        }
        if self.attempts >= config.max_attempts {
            count(&counters.out_of_attempts);
            return None;
        }
        let wait = config.wait(self.attempts, asked, fastrand::f64());
        if self.began.elapsed() + wait >= config.deadline {
            count(&counters.out_of_time);
            return None;
        }
        // Last: what is not retried anyway must not be paid for.
        if !budget.withdraw() {
            count(&counters.out_of_budget);
            return None;
        }
        Some(wait)
    }
}

impl<R, Req, Res, E> Policy<Req, Res, E> for RetryPolicy<R>
where
    R: RetryRules<Req, Res, E>,
{
    type Future = Sleep;

    fn retry(&mut self, request: &mut Req, result: &mut Result<Res, E>) -> Option<Sleep> {
        let wait = self.next(request, result.as_ref())?;
        self.retrying = true;
        Some(tokio::time::sleep(wait))
    }

    /// tower asks for it before each attempt, the first one included.
    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        let Shared { budget, counters, .. } = &*self.shared;
        if std::mem::take(&mut self.retrying) {
            self.attempts += 1;
            count(&counters.retries);
        } else {
            // A new request: tower clones the policy after this.
            self.attempts = 1;
            self.began = Instant::now();
            count(&counters.requests);
            budget.deposit();
        }
        let copy = self.rules.copy(request);
        if copy.is_none() && self.attempts == 1 {
            count(&counters.not_copied);
        }
        copy
    }
}

impl<R: Clone> Clone for RetryPolicy<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), rules: self.rules.clone(), ..*self }
    }
}

impl<R> fmt::Debug for RetryPolicy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("name", &self.shared.name)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// tower rounds the inverse of the share down to whole requests; the half keeps it from falling below
/// the number that is meant.
fn budget(requests_per_retry: u32, retries_per_second: u32) -> TpsBudget {
    let share = match requests_per_retry {
        0 => 0.0,
        requests => 1.0 / (requests as f32 + 0.5),
    };
    TpsBudget::new(EARNED_FOR, retries_per_second, share)
}
