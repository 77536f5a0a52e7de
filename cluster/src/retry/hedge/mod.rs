//! A second copy of a request whose answer is late.

mod config;
mod future;
mod service;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tower::retry::budget::{Budget, TpsBudget};
use tower_layer::Layer;

pub use self::config::HedgeConfig;
pub use self::future::HedgeFuture;
pub use self::service::HedgeService;
pub use self::stats::HedgeStats;

use super::budget;
use crate::ConfigError;
use crate::histogram::Histogram;

/// Sends a request a second time when its answer is late, and takes the first answer that is good.
///
/// Use it for reads from a backend with several servers behind it, of which one may be slow. Do not
/// use it around a backend that is slow because it is busy.
///
/// Its place is inside the breaker and the concurrency limit: those see one call for each request
/// then. Around them, each copy that lost and is dropped late looks to them like a call given up, and
/// enough of these open a circuit although every request was answered well.
///
/// # Example
/// ```
/// use escala_cluster::{HedgeConfig, HedgeLayer, Retry, RetryWhen};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rules = RetryWhen(|_: &u32, result: Result<&u32, &std::io::Error>| match result {
///     Ok(_) => Retry::No,
///     Err(error) => Retry::for_error(error),
/// });
/// let layer = HedgeLayer::new("lookups", HedgeConfig::default(), rules)?;
/// let mut lookups = ServiceBuilder::new()
///     .layer(layer.clone())
///     .service(service_fn(async |key: u32| Ok::<_, std::io::Error>(key + 1)));
/// assert_eq!(lookups.ready().await?.call(1).await?, 2);
/// assert_eq!(layer.stats().requests_total, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Readiness and clones
/// `poll_ready` is the inner service's. The second copy is sent by a clone of it, which is made ready
/// then.
///
/// # State
/// What is known about latencies, the budget and the statistics are the layer's, shared by all
/// services made from it.
///
/// # Cancellation
/// When one copy is answered well the other's future is dropped, before the answer is handed out;
/// both are when this one's is.
///
/// # Errors
/// Those of the inner service. While one copy is under way the other's failure is not taken for an
/// answer, be it an error or a response that [`RetryRules::is_good`](crate::RetryRules::is_good) does
/// not take; if both fail, the first one's result is returned. A request that fails before its second
/// copy is sent, because it is not late or the inner service is not ready for it, is not sent again:
/// that is a retry, for [`RetryPolicy`](crate::RetryPolicy).
///
/// # Limits
/// Only requests that can be copied and are idempotent are sent twice, at most as many as the budget
/// allows. A response is judged by its head.
///
/// # Cost
/// A copy of each such request and a clone of the inner service, a lock and three clock reads.
///
/// # Differences from `tower::hedge`
/// There the first *result* wins: a copy that fails at once takes the answer from the other that would
/// have come. There is no budget, no `Clone` and no layer; latencies beyond ten seconds are logged as
/// errors instead of counted.
pub struct HedgeLayer<R> {
    shared: Arc<Shared>,
    rules: R,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    config: HedgeConfig,
    budget: TpsBudget,
    latencies: Histogram,
    recorded: AtomicU64,
    /// In nanoseconds; 0 while it is not known.
    delay: AtomicU64,
    requests: AtomicU64,
    hedges: AtomicU64,
    won: AtomicU64,
    out_of_budget: AtomicU64,
}

impl<R> HedgeLayer<R> {
    /// By these rules. The name is what statistics call it.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    pub fn new(
        name: impl Into<Arc<str>>,
        config: HedgeConfig,
        rules: R,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let zero = || AtomicU64::new(0);
        let fixed = config.delay_min == config.delay_max;
        let shared = Shared {
            name: name.into(),
            budget: budget(config.requests_per_hedge, config.hedges_per_second),
            latencies: Histogram::new(),
            recorded: zero(),
            delay: AtomicU64::new(if fixed { nanos(config.delay_min) } else { 0 }),
            requests: zero(),
            hedges: zero(),
            won: zero(),
            out_of_budget: zero(),
            config,
        };
        Ok(Self { shared: Arc::new(shared), rules })
    }

    /// The figures as of now.
    #[must_use]
    pub fn stats(&self) -> HedgeStats {
        let Shared { name, delay, requests, hedges, won, out_of_budget, .. } = &*self.shared;
        HedgeStats {
            name: name.to_string(),
            delay: Duration::from_nanos(delay.load(Relaxed)),
            // The wins before the hedges before the requests: there are never more.
            hedges_won_total: won.load(Relaxed),
            hedges_total: hedges.load(Relaxed),
            out_of_budget_total: out_of_budget.load(Relaxed),
            requests_total: requests.load(Relaxed),
        }
    }
}

impl Shared {
    /// Time after which a request that begins now is late, if that is known.
    fn delay(&self) -> Option<Duration> {
        let nanos = self.delay.load(Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Whether a late request may be sent again; it is paid for then, and stays so if it is answered
    /// before the inner service is ready for the second copy.
    fn withdraw(&self) -> bool {
        let paid = self.budget.withdraw();
        if !paid {
            self.out_of_budget.fetch_add(1, Relaxed);
        }
        paid
    }

    /// A request was answered after this long, or would have been after more.
    fn record(&self, latency: Duration) {
        let HedgeConfig { percentile, samples, delay_min, delay_max, .. } = self.config;
        if delay_min == delay_max {
            return;
        }
        self.latencies.record(latency);
        let recorded = self.recorded.fetch_add(1, Relaxed) + 1;
        // One caller sees the number at which the window is full.
        if recorded != u64::from(samples) {
            return;
        }
        let found = self.latencies.take().percentile(percentile);
        self.recorded.store(0, Relaxed);
        if let Some(found) = found.and_then(|found| Duration::try_from_secs_f64(found).ok()) {
            self.delay.store(nanos(found.clamp(delay_min, delay_max)), Relaxed);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl<S, R: Clone> Layer<S> for HedgeLayer<R> {
    type Service = HedgeService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        HedgeService::new(inner, Arc::clone(&self.shared), self.rules.clone())
    }
}

impl<R: Clone> Clone for HedgeLayer<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), rules: self.rules.clone() }
    }
}

impl<R> fmt::Debug for HedgeLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer")
            .field("name", &self.shared.name)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
