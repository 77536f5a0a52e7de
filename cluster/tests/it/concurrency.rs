//! Concurrency limits from outside: who gets a place, who waits, who is refused, and what adds up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use escala_cluster::{
    AdaptiveConfig, AsError, ConcurrencyConfig, ConcurrencyLimit, ConcurrencyLimitFuture,
    ConcurrencyLimitLayer, ConcurrencyLimitService, ConcurrencyLimitStats, ConcurrencyPermit,
    ErrorsFail, Outcome, Overloaded,
};
use proptest::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_test::mock;

type Mock = mock::Mock<&'static str, &'static str>;

fn fixed(calls: u32) -> ConcurrencyLimit {
    ConcurrencyLimit::new("test", ConcurrencyConfig::fixed(calls)).expect("valid")
}

fn waiting(calls: u32, max_waiting: u32) -> ConcurrencyLimit {
    let config = ConcurrencyConfig::fixed(calls).wait(max_waiting, Duration::from_secs(1));
    ConcurrencyLimit::new("test", config).expect("valid")
}

fn adaptive(config: AdaptiveConfig) -> ConcurrencyLimit {
    ConcurrencyLimit::new("test", ConcurrencyConfig::adaptive(config)).expect("valid")
}

fn adds_up(stats: &ConcurrencyLimitStats) {
    let ended = stats.succeeded_total
        + stats.failed_total
        + stats.ignored_total
        + stats.cancelled_total
        + stats.abandoned_total
        + stats.panicked_total;
    assert_eq!(stats.admitted_total, stats.in_flight + ended, "{stats:?}");
}

#[test]
fn all_of_it_may_travel_between_threads() {
    fn travels<T: Send + Sync + 'static>() {}
    travels::<ConcurrencyLimit>();
    travels::<ConcurrencyPermit>();
    travels::<ConcurrencyLimitLayer>();
    travels::<ConcurrencyLimitService<Mock, ErrorsFail, AsError>>();
    fn moves<T: Send + 'static>() {}
    moves::<ConcurrencyLimitFuture<Mock, &'static str, ErrorsFail, AsError>>();
}

#[test]
fn as_many_as_allowed_are_let_in_and_the_rest_is_told_when_to_come_back() {
    let config = ConcurrencyConfig::fixed(2).retry_after(Duration::from_secs(3));
    let limit = ConcurrencyLimit::new("two", config).expect("valid");
    let first = limit.try_acquire().expect("free");
    let _second = limit.try_acquire().expect("free");
    let overloaded = limit.try_acquire().expect_err("full");
    assert_eq!(overloaded.retry_after, Duration::from_secs(3));
    assert!(overloaded.is_retryable());
    assert_eq!(overloaded.to_string(), "too many calls are under way");
    first.failed();
    let _third = limit.try_acquire().expect("free again");
    let stats = limit.stats();
    assert_eq!((stats.limit, stats.in_flight, stats.rejected_total), (2, 2, 1));
    assert_eq!((stats.admitted_total, stats.failed_total), (3, 1));
}

#[test]
fn the_first_end_of_a_call_is_the_one_that_counts() {
    let limit = fixed(1);
    let mut permit = limit.try_acquire().expect("free");
    permit.record(Outcome::Success);
    permit.record(Outcome::Failure);
    assert_eq!(limit.stats().in_flight, 1, "the place is held");
    permit.ignored();
    let stats = limit.stats();
    assert_eq!((stats.in_flight, stats.succeeded_total, stats.ignored_total), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_the_order_they_came() {
    let limit = waiting(1, 3);
    let held = limit.try_acquire().expect("free");
    let mut callers = [(); 3].map(|()| {
        task::spawn(Box::pin({
            let limit = limit.clone();
            async move { limit.acquire().await }
        }))
    });
    for caller in &mut callers {
        assert_pending!(caller.poll());
    }
    let stats = limit.stats();
    assert_eq!((stats.waiting, stats.in_flight), (3, 1));
    assert_eq!(limit.acquire().await.err().map(|full| full.is_retryable()), Some(true));
    assert!(limit.try_acquire().is_err());

    held.succeeded();
    assert!(limit.try_acquire().is_err(), "a newcomer does not overtake");
    let [first, second, third] = &mut callers;
    assert!(first.is_woken() && !second.is_woken() && !third.is_woken());
    let permit = assert_ready_ok!(first.poll());
    assert_pending!(second.poll());
    permit.succeeded();
    assert!(second.is_woken() && !third.is_woken());
    drop(assert_ready_ok!(second.poll()));
    drop(assert_ready_ok!(third.poll()));
    let stats = limit.stats();
    assert_eq!((stats.waiting, stats.in_flight, stats.admitted_total), (0, 0, 4));
    assert_eq!((stats.succeeded_total, stats.cancelled_total, stats.rejected_total), (2, 2, 3));
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_passes_on_what_he_was_given() {
    let limit = waiting(1, 3);
    let held = limit.try_acquire().expect("free");
    let mut callers: VecDeque<_> = (0..3).map(|_| task::spawn(Box::pin(limit.acquire()))).collect();
    for caller in &mut callers {
        assert_pending!(caller.poll());
    }
    // The one in the middle leaves while he waits, the first after he was given the place.
    drop(callers.remove(1));
    held.succeeded();
    drop(callers.pop_front());
    let mut last = callers.pop_front().expect("the third");
    assert!(last.is_woken());
    assert_ready_ok!(last.poll()).succeeded();
    let stats = limit.stats();
    assert_eq!((stats.wait_cancelled_total, stats.waiting, stats.in_flight), (2, 0, 0));
    assert_eq!((stats.admitted_total, stats.succeeded_total), (2, 2), "no call, no end");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_configured() {
    let limit = waiting(1, 2);
    let held = limit.try_acquire().expect("free");
    let mut first = task::spawn(Box::pin(limit.acquire()));
    assert_pending!(first.poll());
    advance(Duration::from_millis(999)).await;
    let mut second = task::spawn(Box::pin(limit.acquire()));
    assert_pending!(second.poll());
    assert_pending!(first.poll());
    advance(Duration::from_millis(2)).await;
    assert!(first.is_woken());
    assert_eq!(assert_ready_err!(first.poll()).retry_after, Duration::from_secs(1));
    held.succeeded();
    drop(assert_ready_ok!(second.poll()));
    let stats = limit.stats();
    assert_eq!((stats.wait_timed_out_total, stats.waiting, stats.in_flight), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_place_given_at_the_deadline_is_used() {
    let limit = waiting(1, 1);
    let held = limit.try_acquire().expect("free");
    let mut caller = task::spawn(Box::pin(limit.acquire()));
    assert_pending!(caller.poll());
    advance(Duration::from_secs(2)).await;
    held.succeeded();
    assert_ready_ok!(caller.poll()).succeeded();
    assert_eq!(limit.stats().succeeded_total, 2);
}

#[test]
fn a_lower_limit_takes_effect_as_calls_end() {
    let limit = fixed(4);
    let mut held: Vec<_> = (0..4).map(|_| limit.try_acquire().expect("free")).collect();
    limit.set_limit(2);
    for _ in 0..2 {
        drop(held.pop());
        assert!(limit.try_acquire().is_err(), "two too many have to end first");
    }
    drop(held.pop());
    let _one = limit.try_acquire().expect("one of two");
    assert!(limit.try_acquire().is_err());
    assert_eq!((limit.limit(), limit.stats().in_flight), (2, 2));
    limit.set_limit(0);
    assert_eq!(limit.limit(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_in_those_who_wait() {
    let limit = waiting(1, 9);
    let _held = limit.try_acquire().expect("free");
    let mut callers: Vec<_> = (0..3).map(|_| task::spawn(Box::pin(limit.acquire()))).collect();
    for caller in &mut callers {
        assert_pending!(caller.poll());
    }
    limit.set_limit(3);
    let woken: Vec<_> = callers.iter().map(task::Spawn::is_woken).collect();
    assert_eq!(woken, [true, true, false]);
    assert_eq!(limit.stats().waiting, 1);
}

// What tower asks of a middleware, checked with a mock that panics when it is called unready.

#[tokio::test(start_paused = true)]
async fn readiness_is_that_of_the_inner_service_while_a_place_is_free() {
    let (mut service, mut handle) = mock::spawn_layer(ConcurrencyLimitLayer::new(fixed(1)));
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call("in"));
    let (request, reply) = handle.next_request().await.expect("the call arrives");
    assert_eq!(request, "in");
    assert_pending!(call.poll());
    reply.send_response("out");
    assert_eq!(assert_ready_ok!(call.poll()), "out");
}

#[tokio::test(start_paused = true)]
async fn a_full_limit_refuses_without_the_inner_service() {
    let limit = fixed(1);
    let (mut service, mut handle) =
        mock::spawn_layer::<&str, &str, _>(ConcurrencyLimitLayer::new(limit.clone()));
    let held = limit.try_acquire().expect("free");
    handle.allow(0);
    assert_ready_ok!(service.poll_ready());
    let refused = service.call("in").await.expect_err("full");
    assert!(refused.is::<Overloaded>());
    assert_ready_ok!(service.poll_ready());
    held.succeeded();
    // Found full when it was made ready, so the inner service is not.
    assert!(service.call("in").await.expect_err("not ready").is::<Overloaded>());
    assert_pending!(service.poll_ready());
    assert_eq!(limit.stats().rejected_total, 2);
}

// tower's own keeps the place of a clone that is ready and never called.
#[tokio::test(start_paused = true)]
async fn a_ready_clone_that_is_not_called_keeps_no_place() {
    let limit = fixed(1);
    let (mut service, mut handle) =
        mock::spawn_layer::<&str, &str, _>(ConcurrencyLimitLayer::new(limit.clone()));
    let mut idle = service.clone();
    assert_ready_ok!(idle.poll_ready());
    assert_ready_ok!(service.poll_ready());
    let call = service.call("in");
    handle.next_request().await.expect("arrives").1.send_response("out");
    assert_eq!(call.await.expect("let in"), "out");
    assert_eq!(limit.stats().succeeded_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_in_its_future_and_makes_its_own_inner_service_ready() {
    let limit = waiting(1, 1);
    let (mut service, mut handle) =
        mock::spawn_layer::<&str, &str, _>(ConcurrencyLimitLayer::new(limit.clone()));
    let held = limit.try_acquire().expect("free");
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call("in"));
    assert_pending!(call.poll());
    handle.allow(0);
    held.succeeded();
    assert!(call.is_woken());
    assert_pending!(call.poll(), "it has its place, but its clone of the mock is not ready");
    assert_eq!((limit.stats().waiting, limit.stats().in_flight), (0, 1));
    handle.allow(1);
    assert!(call.is_woken());
    assert_pending!(call.poll());
    handle.next_request().await.expect("arrives").1.send_response("out");
    assert_eq!(assert_ready_ok!(call.poll()), "out");
    assert_eq!(limit.stats().succeeded_total, 2);
}

/// Reserves one of few permits when it is made ready, as a pool of connections does.
struct Reserving {
    permits: Arc<Semaphore>,
    reserved: Option<OwnedSemaphorePermit>,
}

impl Clone for Reserving {
    fn clone(&self) -> Self {
        Self { permits: Arc::clone(&self.permits), reserved: None }
    }
}

impl Service<()> for Reserving {
    type Response = ();
    type Error = Infallible;
    type Future = std::future::Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.reserved.is_none() {
            self.reserved = Arc::clone(&self.permits).try_acquire_owned().ok();
        }
        if self.reserved.is_some() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        drop(self.reserved.take().expect("made ready"));
        std::future::ready(Ok(()))
    }
}

// As hyper-util#297 has it: what is reserved in `poll_ready` and then not used is kept from others.
#[tokio::test(start_paused = true)]
async fn a_call_that_finds_no_place_keeps_nothing_of_the_inner_service() {
    for may_wait in [true, false] {
        let limit = if may_wait { waiting(1, 1) } else { fixed(1) };
        let inner = Reserving { permits: Arc::new(Semaphore::new(1)), reserved: None };
        let permits = Arc::clone(&inner.permits);
        let mut service = ConcurrencyLimitLayer::new(limit.clone()).layer(inner);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        assert_eq!(permits.available_permits(), 0);
        let held = limit.try_acquire().expect("free");
        let mut call = task::spawn(service.call(()));
        assert_eq!(call.poll().is_pending(), may_wait);
        assert_eq!(permits.available_permits(), 1, "though the service is still there");
        if may_wait {
            held.succeeded();
            assert_ready_ok!(call.poll());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_too_long_is_refused_and_never_sent() {
    let limit = waiting(1, 1);
    let (mut service, mut handle) =
        mock::spawn_layer::<&str, &str, _>(ConcurrencyLimitLayer::new(limit.clone()));
    let _held = limit.try_acquire().expect("free");
    assert_ready_ok!(service.poll_ready());
    let refused = service.call("in").await.expect_err("too long");
    assert!(refused.is::<Overloaded>());
    let mut next = task::spawn(handle.next_request());
    assert_pending!(next.poll());
    assert_eq!(limit.stats().wait_timed_out_total, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_passes_through_and_leaves_no_place_taken() {
    let limit = waiting(1, 1);
    let (mut service, handle) =
        mock::spawn_layer::<&str, &str, _>(ConcurrencyLimitLayer::new(limit.clone()));
    let held = limit.try_acquire().expect("free");
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call("in"));
    assert_pending!(call.poll());
    drop(handle);
    held.succeeded();
    assert!(!assert_ready_err!(call.poll()).is::<Overloaded>());
    let Poll::Ready(Err(error)) = service.poll_ready() else { panic!("the mock is closed") };
    assert!(!error.is::<Overloaded>());
    let stats = limit.stats();
    assert_eq!((stats.in_flight, stats.ignored_total), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn one_layer_on_twenty_services_is_one_limit() {
    let layer = ConcurrencyLimitLayer::new(fixed(3));
    let hung = || service_fn(|()| std::future::pending::<Result<(), Infallible>>());
    let mut calls = Vec::new();
    for _ in 0..20 {
        let mut call = task::spawn(layer.layer(hung()).oneshot(()));
        calls.push(call.poll().is_pending());
        std::mem::forget(call);
    }
    assert_eq!(calls.iter().filter(|pending| **pending).count(), 3);
}

#[tokio::test]
async fn a_free_place_costs_no_allocation() {
    for limit in [fixed(10), adaptive(AdaptiveConfig::default())] {
        let inner = service_fn(|number: u32| std::future::ready(Ok::<_, Infallible>(number)));
        let mut service = ConcurrencyLimitLayer::new(limit.clone()).layer(inner);
        let mut call = || {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Service::<u32>::poll_ready(&mut service, &mut cx).is_ready());
            let answer = pin!(service.call(7)).poll(&mut cx);
            assert!(matches!(answer, Poll::Ready(Ok(7))));
        };
        call();
        let allocated = allocation_counter::measure(|| (0..1_000).for_each(|_| call()));
        assert_eq!(allocated.count_total, 0);
        assert_eq!(limit.stats().succeeded_total, 1_001);
    }
}

#[tokio::test(start_paused = true)]
async fn drop_panic_and_error_give_the_place_back() {
    let limit = fixed(1);
    let layer = ConcurrencyLimitLayer::new(limit.clone());
    let hung = layer.layer(service_fn(|()| std::future::pending::<Result<(), Infallible>>()));
    let mut call = task::spawn(hung.oneshot(()));
    assert_pending!(call.poll());
    drop(call);

    // Caught around the poll: the place is free although the future still lives.
    #[expect(clippy::unused_async, reason = "the panic has to come from the future")]
    async fn broken() -> Result<(), Infallible> {
        std::panic::resume_unwind(Box::new("a bug"))
    }
    let mut call = Box::pin(layer.layer(service_fn(|()| broken())).oneshot(()));
    let mut cx = Context::from_waker(Waker::noop());
    let poll = std::panic::AssertUnwindSafe(|| call.as_mut().poll(&mut cx));
    assert!(std::panic::catch_unwind(poll).is_err());

    // And if the classifier panics.
    let judge = layer.clone().classify(|_: Result<&(), &Infallible>| -> Outcome {
        std::panic::resume_unwind(Box::new("a bug"))
    });
    let well = service_fn(|()| std::future::ready(Ok::<_, Infallible>(())));
    let mut call = Box::pin(judge.layer(well).oneshot(()));
    let poll = std::panic::AssertUnwindSafe(|| call.as_mut().poll(&mut cx));
    assert!(std::panic::catch_unwind(poll).is_err());
    assert_eq!(limit.stats().in_flight, 0);

    let failing = service_fn(|()| std::future::ready(Err::<(), _>("down")));
    assert!(!layer.layer(failing).oneshot(()).await.expect_err("down").is::<Overloaded>());

    let stats = limit.stats();
    adds_up(&stats);
    assert_eq!((stats.cancelled_total, stats.panicked_total, stats.failed_total), (1, 2, 1));
    assert_eq!((stats.in_flight, stats.rejected_total), (0, 0));
}

// e7: tower-resilience's AIMD climbs from 10 to 100 with one call in flight, its Vegas to 16; dropped
// calls change nothing there, and `Ok(503)` is a fast success.
#[tokio::test(start_paused = true)]
async fn one_caller_never_makes_an_adaptive_limit_climb() {
    let limit = adaptive(AdaptiveConfig::default());
    for _ in 0..5_000 {
        let permit = limit.try_acquire().expect("alone");
        advance(Duration::from_millis(10)).await;
        permit.succeeded();
    }
    assert_eq!(limit.limit(), 20);
    let stats = limit.stats();
    assert!((9..=11).contains(&stats.latency.as_millis()), "{stats:?}");
    assert!((9..=11).contains(&stats.min_latency.as_millis()), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_grows_while_it_is_used_and_latency_is_level() {
    let limit = adaptive(AdaptiveConfig::default());
    let before = limit.limit();
    rounds(&limit, 1_000, ConcurrencyPermit::succeeded).await;
    assert!(limit.limit() > 4 * before, "{}", limit.limit());
}

/// So many times as many calls as are let in, each of 10 ms.
async fn rounds(limit: &ConcurrencyLimit, rounds: u32, end: impl Fn(ConcurrencyPermit)) {
    for _ in 0..rounds {
        let mut permits = Vec::new();
        while let Ok(permit) = limit.try_acquire() {
            permits.push(permit);
        }
        advance(Duration::from_millis(10)).await;
        permits.into_iter().for_each(&end);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_and_late_cancellations_lower_it_and_early_ones_do_not() {
    let lowered = async |config: AdaptiveConfig, end: fn(ConcurrencyPermit)| {
        let limit = adaptive(config.initial(100));
        rounds(&limit, 300, end).await;
        limit.limit()
    };
    let config = AdaptiveConfig::default;
    assert_eq!(lowered(config(), ConcurrencyPermit::failed).await, 4);
    assert_eq!(lowered(config().abandoned_after(Duration::from_millis(10)), drop).await, 4);
    assert_eq!(lowered(config(), drop).await, 100, "given up early");
    let throttled = |mut permit: ConcurrencyPermit| permit.record(Outcome::Throttled);
    assert_eq!(lowered(config(), throttled).await, 4);
    assert_eq!(lowered(config().abandoned_after(None), drop).await, 100);
    assert_eq!(lowered(config(), ConcurrencyPermit::ignored).await, 100);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_it_lowers_it() {
    for (timeout, well) in [(1_000, 0), (1_000, 20), (150, 0), (150, 20)] {
        let limit = adaptive(AdaptiveConfig::default().initial(100));
        let service = ServiceBuilder::new()
            .layer(ConcurrencyLimitLayer::new(limit.clone()))
            .service(service_fn(async |hangs: bool| {
                let millis = if hangs { 3_600_000 } else { 50 };
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Ok::<_, Infallible>(())
            }));
        for round in 0..20 + well {
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..200 {
                let call = service.clone().oneshot(round >= well);
                calls.spawn(tokio::time::timeout(Duration::from_millis(timeout), call));
            }
            while calls.join_next().await.is_some() {}
        }
        let stats = limit.stats();
        assert!(stats.limit <= 10 && stats.in_flight == 0, "{timeout} {well}: {stats:?}");
        assert_eq!(stats.abandoned_total, stats.admitted_total - stats.succeeded_total);
    }
}

// They wait for the slow route, and not for a place: the others are as fast as ever.
#[tokio::test(start_paused = true)]
async fn calls_given_up_beside_others_that_are_on_time_lower_nothing() {
    let limit = adaptive(AdaptiveConfig::default().initial(100));
    let service = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(limit.clone())).service(
        service_fn(async |millis: u64| {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok::<_, Infallible>(())
        }),
    );
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..65 {
        let service = service.clone();
        calls.spawn(async move {
            let (times, millis) = if number < 60 { (30, 2_000) } else { (180, 100) };
            for _ in 0..times {
                let call = service.clone().oneshot(millis);
                let patience = Duration::from_millis(600);
                let _given_up_or_refused = tokio::time::timeout(patience, call).await;
            }
        });
    }
    while calls.join_next().await.is_some() {}
    assert!(limit.limit() >= 100, "{}", limit.limit());
    assert!(limit.stats().abandoned_total > 1_000);
}

#[tokio::test(start_paused = true)]
async fn failures_too_fast_to_have_met_a_queue_lower_nothing() {
    for (outcome, lowered) in [(Outcome::Failure, false), (Outcome::Throttled, true)] {
        let limit = adaptive(AdaptiveConfig::default().initial(100));
        // What is fast is not known before the first window has ended.
        rounds(&limit, 30, ConcurrencyPermit::succeeded).await;
        let before = limit.limit();
        for _ in 0..300 {
            let mut good: Vec<_> = (0..40).map(|_| limit.try_acquire()).collect();
            for _ in 0..100 {
                if let Ok(mut permit) = limit.try_acquire() {
                    permit.record(outcome);
                }
            }
            advance(Duration::from_millis(10)).await;
            good.drain(..).flatten().for_each(ConcurrencyPermit::succeeded);
        }
        assert_eq!(limit.limit() < before, lowered, "{outcome:?}: {}", limit.limit());
    }
}

/// Until a probe has begun; the limit before it.
async fn probed(limit: &ConcurrencyLimit) -> u64 {
    for _ in 0..10_000 {
        let before = limit.limit();
        rounds(limit, 1, ConcurrencyPermit::succeeded).await;
        if limit.limit() < before * 6 / 10 {
            return before;
        }
    }
    unreachable!("the first probe comes after five windows")
}

#[tokio::test(start_paused = true)]
async fn a_probe_ends_in_time_though_no_call_tells_anything() {
    for end in [ConcurrencyPermit::ignored, drop] {
        let limit = adaptive(AdaptiveConfig::default().initial(100));
        let before = probed(&limit).await;
        rounds(&limit, 20, end).await;
        assert!(limit.limit() < before, "not at once");
        rounds(&limit, 100, end).await;
        assert!(limit.limit() >= before, "{} of {before}", limit.limit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_began_as_traffic_ended_refuses_nobody_the_next_morning() {
    let limit = adaptive(AdaptiveConfig::default().initial(100));
    let before = probed(&limit).await;
    advance(Duration::from_secs(12 * 60 * 60)).await;
    let admitted: Vec<_> = (0..before).map_while(|_| limit.try_acquire().ok()).collect();
    assert_eq!(admitted.len() as u64, before);

    // And by the layer, which does not ask the inner service while the limit is full.
    let limit = adaptive(AdaptiveConfig::default().initial(100));
    let before = probed(&limit).await;
    advance(Duration::from_secs(12 * 60 * 60)).await;
    let service = ConcurrencyLimitLayer::new(limit.clone())
        .layer(service_fn(|()| std::future::pending::<Result<(), Infallible>>()));
    let mut calls: Vec<_> = (0..before).map(|_| task::spawn(service.clone().oneshot(()))).collect();
    for call in &mut calls {
        assert_pending!(call.poll());
    }
}

// The last handle of a task may be the waker in the queue, and what the task holds goes with it.
#[tokio::test(start_paused = true)]
async fn a_waker_in_the_queue_may_hold_a_place_itself() {
    struct Holder(#[expect(dead_code, reason = "held")] ConcurrencyPermit);

    impl std::task::Wake for Holder {
        fn wake(self: Arc<Self>) {}
    }

    let limit = waiting(1, 1);
    let waker = Waker::from(Arc::new(Holder(limit.try_acquire().expect("free"))));
    let mut waits = Box::pin(limit.acquire());
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    let mut cx = Context::from_waker(Waker::noop());
    let _first_look = waits.as_mut().poll(&mut cx);
    assert!(waits.as_mut().poll(&mut cx).is_ready());

    let waker = Waker::from(Arc::new(Holder(limit.try_acquire().expect("free"))));
    let mut waits = Box::pin(limit.acquire());
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    drop(waits);
    assert_eq!((limit.stats().in_flight, limit.stats().waiting), (0, 0));
}

#[test]
fn a_configuration_that_breaks_a_rule_names_it() {
    let invalid = |config: ConcurrencyConfig| {
        let error = ConcurrencyLimit::new("invalid", config).expect_err("breaks a rule");
        error.to_string()
    };
    let adaptive = |config| invalid(ConcurrencyConfig::adaptive(config));
    let config = AdaptiveConfig::default;
    let second = Duration::from_secs(1);
    for (error, expected) in [
        (invalid(ConcurrencyConfig::fixed(0)), "limit is 0, but must be between 1 and 1000000"),
        (
            invalid(ConcurrencyConfig::fixed(1).wait(2_000_000, second)),
            "max_waiting is 2000000, but must be at most 1000000",
        ),
        (
            invalid(ConcurrencyConfig::fixed(1).wait(1, Duration::ZERO)),
            "max_wait is 0ns, but must be longer than zero and at most 24 hours",
        ),
        (
            invalid(ConcurrencyConfig::fixed(1).retry_after(Duration::MAX)),
            "retry_after is 18446744073709551615.999999999s, but must be at most 24 hours",
        ),
        (adaptive(config().between(0, 5)), "min is 0, but must be between 1 and 1000000"),
        (adaptive(config().between(9, 5)), "max is 5, but must be at least min"),
        (adaptive(config().initial(3)), "initial is 3, but must be between min and max"),
        (
            adaptive(config().window(Duration::ZERO, 20)),
            "window is 0ns, but must be between 10 ms and 1 minute",
        ),
        (
            adaptive(config().window(second, 9)),
            "min_samples is 9, but must be between 10 and 100000",
        ),
        (adaptive(config().tolerance(0.9)), "tolerance is 0.9, but must be between 1.0 and 10.0"),
        (
            adaptive(config().smoothing(f64::NAN)),
            "smoothing is NaN, but must be above 0.0 and at most 1.0",
        ),
        (
            adaptive(config().probe_interval(Duration::ZERO)),
            "probe_interval is 0ns, but must be between 1 s and 24 hours",
        ),
        (adaptive(config().jitter(1.5)), "jitter is 1.5, but must be between 0.0 and 1.0"),
    ] {
        assert_eq!(error, expected);
    }
}

#[test]
fn every_figure_is_handed_out() {
    let limit = fixed(7);
    let _held = limit.try_acquire().expect("free");
    let mut figures = Vec::new();
    limit.stats().visit(&mut |name, labels, value| {
        assert_eq!(labels, [("limit", "test")]);
        figures.push((name.to_owned(), value));
    });
    assert_eq!(figures.len(), 15);
    assert!(figures.contains(&("limit".to_owned(), 7.0)));
    assert!(figures.contains(&("in_flight".to_owned(), 1.0)));
    assert!(figures.contains(&("latency_seconds".to_owned(), 0.0)));
}

#[cfg(feature = "serde")]
#[test]
fn a_configuration_comes_from_a_file_and_typos_are_refused() {
    let text = r#"{"limit": {"adaptive": {"max": 50, "window": "1s"}}, "max_waiting": 5, "max_wait": "20ms"}"#;
    let config: ConcurrencyConfig = serde_json::from_str(text).expect("valid");
    let inner = AdaptiveConfig::default().between(4, 50).window(Duration::from_secs(1), 20);
    let expected = ConcurrencyConfig::adaptive(inner).wait(5, Duration::from_millis(20));
    assert_eq!(config, expected);
    let text = r#"{"limit": {"fixed": 8}}"#;
    let config: ConcurrencyConfig = serde_json::from_str(text).expect("valid");
    assert_eq!(config, ConcurrencyConfig::fixed(8));
    assert!(serde_json::from_str::<ConcurrencyConfig>(r#"{"max_waitng": 5}"#).is_err());
    let stats = serde_json::to_value(fixed(1).stats()).expect("plain");
    assert_eq!(stats["min_latency"], "0s");
}

/// What a caller may do next.
#[derive(Debug, Clone)]
enum Step {
    Come,
    Poll(usize),
    Leave(usize),
    End(usize, u8),
    Limit(u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Come),
        3 => (0..8_usize).prop_map(Step::Poll),
        2 => (0..8_usize).prop_map(Step::Leave),
        4 => (0..8_usize, 0..5_u8).prop_map(|(index, how)| Step::End(index, how)),
        1 => (1..5_u32).prop_map(Step::Limit),
        1 => (0..700_u64).prop_map(Step::Pass),
    ]
}

/// Those under way and those in the queue, in order, as they ought to be.
async fn history(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let limit = waiting(2, 3);
    let (mut allowed, mut held) = (2, Vec::new());
    let mut queue = Vec::new();
    let acquire = || {
        let limit = limit.clone();
        task::spawn(Box::pin(async move { limit.acquire().await }))
    };
    for step in steps {
        match step {
            Step::Come => {
                let (before, mut caller) = (limit.stats(), acquire());
                match caller.poll() {
                    Poll::Ready(Ok(permit)) => {
                        prop_assert!(before.in_flight < allowed && before.waiting == 0);
                        held.push(permit);
                    }
                    Poll::Ready(Err(_)) => prop_assert_eq!(limit.stats().waiting, 3),
                    Poll::Pending => queue.push(caller),
                }
            }
            Step::Poll(index) if index < queue.len() => match queue[index].poll() {
                Poll::Ready(Ok(permit)) => {
                    held.push(permit);
                    drop(queue.remove(index));
                }
                Poll::Ready(Err(_)) => drop(queue.remove(index)),
                Poll::Pending => {}
            },
            Step::Leave(index) if index < queue.len() => drop(queue.remove(index)),
            Step::End(index, how) if index < held.len() => match (how, held.swap_remove(index)) {
                (0, permit) => permit.succeeded(),
                (1, permit) => permit.failed(),
                (2, permit) => permit.ignored(),
                (_, permit) => drop(permit),
            },
            Step::Limit(calls) => {
                allowed = u64::from(calls);
                limit.set_limit(calls);
            }
            Step::Pass(millis) => advance(Duration::from_millis(millis)).await,
            _ => {}
        }
        let stats = limit.stats();
        adds_up(&stats);
        // Everybody in the queue waits, or has been given a place and not come for it yet.
        let given = stats.in_flight as usize - held.len();
        prop_assert_eq!(stats.waiting as usize + given, queue.len());
        // Nobody waits while a place is free.
        prop_assert!(stats.waiting == 0 || stats.in_flight >= allowed);
    }
    drop(held);
    drop(queue);
    let stats = limit.stats();
    prop_assert_eq!((stats.in_flight, stats.waiting), (0, 0));
    Ok(())
}

proptest! {
    #[test]
    fn whatever_callers_do_it_adds_up_and_nobody_waits_for_a_free_place(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(history(steps))?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_more_than_allowed_and_all_come_through_on_many_threads() {
    let config = ConcurrencyConfig::fixed(3).wait(1_000, Duration::from_secs(60));
    let limit = ConcurrencyLimit::new("crowd", config).expect("valid");
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let callers: Vec<_> = (0..64)
        .map(|number| {
            let (limit, inside) = (limit.clone(), Arc::clone(&inside));
            tokio::spawn(async move {
                for round in 0..50 {
                    let permit = limit.acquire().await.expect("in time");
                    let before = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    assert!(before < 3, "{before}");
                    if (number + round) % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    permit.succeeded();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no panic");
    }
    let stats = limit.stats();
    adds_up(&stats);
    assert_eq!((stats.succeeded_total, stats.in_flight, stats.waiting), (3_200, 0, 0));
}

#[tokio::test]
async fn a_ready_answer_needs_no_waiting() {
    let limit = fixed(1);
    let mut acquire = task::spawn(Box::pin(limit.acquire()));
    assert!(assert_ready!(acquire.poll()).is_ok());
}
