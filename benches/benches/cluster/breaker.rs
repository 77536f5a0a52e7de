//! A circuit breaker around a service that answers at once and always.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use anyhow::Context as _;
use escala_cluster::{Breaker, BreakerConfig, BreakerLayer};
use failsafe::{backoff, failure_policy};
use recloser::{AsyncRecloser, Recloser};
use tokio::runtime::Builder;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use crate::subject::Subject;
use crate::{Effort, table};

type Answer = Ready<Result<u64, Infallible>>;

fn answer(number: u64) -> Answer {
    ready(Ok(number))
}

fn inner() -> tower::util::ServiceFn<fn(u64) -> Answer> {
    service_fn(answer as fn(u64) -> Answer)
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<()> {
    let mut subjects = vec![through("bare service_fn", inner())];
    subjects.extend(ours()?);
    subjects.extend(tower_resilience(effort)?);
    subjects.extend(failsafe());
    subjects.extend(recloser());
    table::run("Circuit breaker, closed unless it says otherwise", &subjects, effort)
}

/// A service that passes every call on.
fn through<S>(name: &str, service: S) -> Subject
where
    S: Service<u64, Response = u64> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    subject(name, service, true)
}

/// A service that lets no call through.
fn rejecting<S>(name: &str, service: S) -> Subject
where
    S: Service<u64, Response = u64> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    subject(name, service, false)
}

/// One caller for both, so that each service is called from one place, as in a stack of layers, and
/// its call can be compiled into that: called from two, the cheapest of ours cost twice as much, since
/// their future is moved out of a function.
fn subject<S>(name: &str, service: S, passes: bool) -> Subject
where
    S: Service<u64, Response = u64> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let right = move |number, answer: &Result<u64, S::Error>| match answer {
        Ok(it) => passes && *it == number,
        Err(_) => !passes,
    };
    Subject::service(name, service, |number| number, right)
}

fn ours() -> anyhow::Result<Vec<Subject>> {
    let none = || BreakerConfig::default().consecutive_failures(None).failure_rate(None);
    let none = || none().window(None);
    let ten_seconds = Duration::from_secs(10);
    let all = || BreakerConfig::default().count_window(100).slow_call_rate(1.0);
    let conditions = [
        ("escala, consecutive", none().consecutive_failures(5)),
        ("escala, count window of 100", none().count_window(100).failure_rate(0.5)),
        ("escala, time window", none().window(ten_seconds).failure_rate(0.5)),
        ("escala, slow-call, time window", none().window(ten_seconds).slow_call_rate(1.0)),
        ("escala, slow-call, count window", none().count_window(100).slow_call_rate(1.0)),
        ("escala, defaults", BreakerConfig::default()),
        ("escala, all conditions together", all()),
    ];
    let mut subjects = Vec::new();
    for (name, config) in conditions {
        let breaker = Breaker::new("bench", config)?;
        subjects.push(through(name, BreakerLayer::new(breaker).layer(inner())));
    }
    let disabled = Breaker::new("bench", all())?;
    disabled.disable();
    subjects.push(through("escala, disabled", BreakerLayer::new(disabled).layer(inner())));
    let open = Breaker::new("bench", all())?;
    open.force_open();
    subjects.push(rejecting("escala, open", BreakerLayer::new(open).layer(inner())));
    Ok(subjects)
}

fn tower_resilience(effort: Effort) -> anyhow::Result<Vec<Subject>> {
    let builder = CircuitBreakerLayer::builder;
    let slow = builder().slow_call_duration_threshold(Duration::from_secs(1));
    let conditions = [
        ("tower-resilience, count window", builder()),
        ("tower-resilience, consecutive", builder().consecutive_failures(5)),
        ("tower-resilience, count and slow-call", slow),
    ];
    let mut subjects = Vec::new();
    for (name, config) in conditions {
        subjects.push(through(name, config.build()?.layer(inner())));
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let open = builder().wait_duration_in_open(Duration::from_secs(3_600));
    let open = open.build()?.layer(inner());
    runtime.block_on(open.force_open());
    subjects.push(rejecting("tower-resilience, open", open));
    for records in [1_000, 10_000] {
        let window = builder().sliding_window_type(SlidingWindowType::TimeBased);
        let window = window.sliding_window_duration(Duration::from_secs(3_600)).build()?;
        let mut service = window.layer(inner());
        runtime.block_on(async {
            for number in 0..effort.of(records, 10) {
                let answer = service.ready().await.context("never ready")?.call(number).await;
                answer.context("a closed circuit")?;
            }
            anyhow::Ok(())
        })?;
        // Each call adds a record that stays: few enough that they do not count.
        let name = format!("tower-resilience, time window of {records}");
        subjects.push(through(&name, service).few(10, 20));
    }
    Ok(subjects)
}

fn failsafe() -> Vec<Subject> {
    let default = failsafe::Config::new().build();
    let policy = || {
        let backoff = backoff::exponential(Duration::from_secs(10), Duration::from_secs(60));
        failure_policy::consecutive_failures(5, backoff)
    };
    let consecutive = failsafe::Config::new().failure_policy(policy()).build();
    let sync = failsafe::Config::new().failure_policy(policy()).build();
    let right = |number| move |answer| matches!(answer, Ok(it) if it == number);
    vec![
        Subject::looped("failsafe, rate or consecutive", move || {
            let breaker = default.clone();
            move |number| {
                let call = failsafe::futures::CircuitBreaker::call(&breaker, answer(number));
                async move { right(number)(call.await) }
            }
        }),
        Subject::looped("failsafe, consecutive", move || {
            let breaker = consecutive.clone();
            move |number| {
                let call = failsafe::futures::CircuitBreaker::call(&breaker, answer(number));
                async move { right(number)(call.await) }
            }
        }),
        Subject::looped("failsafe, consecutive, not async", move || {
            let breaker = sync.clone();
            move |number| {
                let call = || Ok::<_, Infallible>(number);
                let answer = failsafe::CircuitBreaker::call(&breaker, call);
                ready(right(number)(answer))
            }
        }),
    ]
}

fn recloser() -> Vec<Subject> {
    let shared = AsyncRecloser::from(Recloser::custom().build());
    let sync = std::sync::Arc::new(Recloser::custom().build());
    vec![
        Subject::looped("recloser, count window", move || {
            let breaker = shared.clone();
            move |number| {
                let call = breaker.call(answer(number));
                async move { matches!(call.await, Ok(it) if it == number) }
            }
        }),
        Subject::looped("recloser, count window, not async", move || {
            let breaker = std::sync::Arc::clone(&sync);
            move |number| {
                let answer = breaker.call(|| Ok::<_, Infallible>(number));
                ready(matches!(answer, Ok(it) if it == number))
            }
        }),
    ]
}
