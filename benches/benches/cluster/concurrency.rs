//! A limit of calls under way that is never met, around a service that answers at once.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use escala_cluster::{AdaptiveConfig, ConcurrencyConfig, ConcurrencyLimitLayer};
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::util::ServiceFn;
use tower::{Layer as _, Service, service_fn};
use tower_resilience_adaptive::{AdaptiveLimiterLayer, Aimd, Gradient2};
use tower_resilience_bulkhead::BulkheadLayer;

use crate::subject::Subject;
use crate::{Effort, table};

/// More than there are callers.
const LIMIT: usize = 1_000;

type Answer = Ready<Result<u64, Infallible>>;

fn inner() -> ServiceFn<fn(u64) -> Answer> {
    service_fn((|number| ready(Ok(number))) as fn(u64) -> Answer)
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<()> {
    let mut subjects = vec![through("bare service_fn", inner())];
    subjects.extend(ours()?);
    let limited = ConcurrencyLimit::new(inner(), LIMIT);
    subjects.push(through("tower ConcurrencyLimit", limited.clone()));
    subjects.push(through("tower ConcurrencyLimit, LoadShed", LoadShed::new(limited)));
    let bulkhead = || BulkheadLayer::builder().max_concurrent_calls(LIMIT);
    let shedding = bulkhead().reject_when_full().build()?;
    subjects.push(through("tower-resilience bulkhead, rejecting", shedding.layer(inner())));
    let waiting = bulkhead().backpressure().build()?;
    subjects.push(through("tower-resilience bulkhead, waiting", waiting.layer(inner())));
    let aimd = Aimd::builder().initial_limit(LIMIT).min_limit(LIMIT).max_limit(LIMIT).build()?;
    let aimd = AdaptiveLimiterLayer::new(aimd).layer(inner());
    subjects.push(through("tower-resilience adaptive, AIMD", aimd));
    let gradient = Gradient2::builder();
    let gradient = gradient.initial_limit(LIMIT).min_limit(LIMIT).max_limit(LIMIT).build()?;
    let gradient = AdaptiveLimiterLayer::new(gradient).layer(inner());
    subjects.push(through("tower-resilience adaptive, Gradient2", gradient));
    let gradient = tower_acc::Gradient2::builder();
    let gradient = gradient.initial_limit(LIMIT).min_limit(LIMIT).max_limit(LIMIT).build();
    let gradient = tower_acc::ConcurrencyLimitLayer::new(gradient).layer(inner());
    subjects.push(through("tower-acc, Gradient2", gradient));
    table::run("Concurrency limit, with room for all", &subjects, effort)
}

fn ours() -> anyhow::Result<Vec<Subject>> {
    let limit = u32::try_from(LIMIT)?;
    let adaptive = AdaptiveConfig::default().initial(limit).between(limit, limit);
    let waiting = ConcurrencyConfig::fixed(limit).wait(100, Duration::from_millis(100));
    let configs = [
        ("escala, fixed", ConcurrencyConfig::fixed(limit)),
        ("escala, fixed, waiting", waiting),
        ("escala, adaptive", ConcurrencyConfig::adaptive(adaptive)),
    ];
    let mut subjects = Vec::new();
    for (name, config) in configs {
        let limit = escala_cluster::ConcurrencyLimit::new("bench", config)?;
        subjects.push(through(name, ConcurrencyLimitLayer::new(limit).layer(inner())));
    }
    Ok(subjects)
}

fn through<S>(name: &str, service: S) -> Subject
where
    S: Service<u64, Response = u64> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let right = |number, answer: &Result<u64, S::Error>| matches!(answer, Ok(it) if *it == number);
    Subject::service(name, service, |number| number, right)
}
