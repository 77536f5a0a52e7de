//! What other breakers get wrong, as the study of them reproduced it; each test names whose
//! defect it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use escala_cluster::{Breaker, BreakerLayer, BreakerStats, Open, State};
use tokio::sync::{Barrier, Semaphore};
use tokio::time::{advance, timeout};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::states::{breaker, config, fail, succeed};

// (e1) tower-resilience needs as many failures as there were successes before: its window of calls
// only grows.
#[tokio::test(start_paused = true)]
async fn a_window_of_calls_slides_however_many_there_were_before() {
    for before in [0, 100, 1_000, 10_000, 100_000] {
        let config = config().consecutive_failures(None).window(None).count_window(100);
        let breaker = breaker(config);
        succeed(&breaker, before);
        let mut failures = 0;
        while breaker.state().is_closed() {
            fail(&breaker, 1);
            failures += 1;
        }
        assert_eq!(failures, if before == 0 { 100 } else { 50 }, "after {before} successes");
    }
}

// (e5) failsafe lets all 1,000 through; so do recloser and tower's proposed one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_1000_concurrent_callers_at_half_open_3_reach_the_backend() {
    let breaker = breaker(config().open_for(Duration::from_millis(1)));
    fail(&breaker, 5);
    while breaker.state() != State::HalfOpen {
        tokio::task::yield_now().await;
    }
    let (reached, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
    let backend = {
        let (reached, gate) = (Arc::clone(&reached), Arc::clone(&gate));
        service_fn(move |()| {
            reached.fetch_add(1, Ordering::SeqCst);
            let gate = Arc::clone(&gate);
            async move {
                let _open = gate.acquire().await.expect("never closed");
                Ok::<_, Infallible>(())
            }
        })
    };
    let service = ServiceBuilder::new().layer(BreakerLayer::new(breaker.clone())).service(backend);
    let start = Arc::new(Barrier::new(1_000));
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let (service, start) = (service.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                service.oneshot(()).await
            })
        })
        .collect();
    // All of them, let in or not, beside the five that opened it.
    let decided = |stats: BreakerStats| stats.admitted_total + stats.rejected_total;
    while decided(breaker.stats()) < 1_005 || reached.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(reached.load(Ordering::SeqCst), 3);
    gate.add_permits(3);
    let mut rejected = 0;
    for caller in callers {
        rejected += u32::from(caller.await.expect("no panic").is_err());
    }
    assert_eq!((rejected, reached.load(Ordering::SeqCst)), (997, 3));
    assert_eq!(breaker.state(), State::Closed);
}

// (e4) tower-resilience waits for a hung probe for ever.
#[tokio::test(start_paused = true)]
async fn a_hung_probe_gives_way_at_its_deadline() {
    let breaker = breaker(config().half_open_permits(1));
    fail(&breaker, 5);
    advance(Duration::from_secs(5)).await;
    let hung = breaker.admit().expect("the probe");
    assert!(breaker.admit().is_err());
    // Failed at 10 s by its deadline, then open for 10 s.
    advance(Duration::from_secs(5)).await;
    assert_eq!(breaker.admit().expect_err("open").retry_after, Duration::from_secs(10));
    advance(Duration::from_secs(10)).await;
    let next = breaker.admit().expect("the next probe");
    hung.succeeded();
    assert_eq!(breaker.state(), State::HalfOpen, "the late result changes nothing");
    next.succeeded();
    assert_eq!(breaker.state(), State::Closed);
}

// (e3) tower-resilience closes on two results from before the circuit opened.
#[tokio::test(start_paused = true)]
async fn results_from_before_the_circuit_opened_decide_nothing() {
    let breaker = breaker(config().half_open_permits(1));
    let early = [(); 8].map(|()| breaker.admit().expect("closed"));
    fail(&breaker, 5);
    advance(Duration::from_secs(5)).await;
    let probe = breaker.admit().expect("the probe");
    for permit in early {
        permit.succeeded();
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    probe.succeeded();
    assert_eq!(breaker.state(), State::Closed);
}

// (e2) tower-resilience's half-open counts age out of the window when probes are rare.
#[tokio::test(start_paused = true)]
async fn probes_that_are_hours_apart_still_close_it() {
    let breaker = breaker(config());
    fail(&breaker, 5);
    for _ in 0..2 {
        advance(Duration::from_secs(7_200)).await;
        breaker.admit().expect("a permit").succeeded();
    }
    assert_eq!(breaker.state(), State::Closed);
}

async fn calls_until_open(breaker: &Breaker, call: impl AsyncFn(Breaker)) -> u32 {
    for calls in 1..=50 {
        call(breaker.clone()).await;
        if !breaker.state().is_closed() {
            return calls;
        }
    }
    panic!("50 calls did not open it: {:?}", breaker.stats());
}

// (e6) tower-resilience and failsafe stay closed over 50 panics.
#[tokio::test]
async fn panics_open_it_wherever_they_are_caught() {
    #[expect(clippy::unused_async, reason = "the panic has to come from the future")]
    async fn broken() -> Result<(), Infallible> {
        std::panic::resume_unwind(Box::new("a bug"))
    }
    let by_task = breaker(config());
    let opened = calls_until_open(&by_task, async |breaker| {
        let service = BreakerLayer::new(breaker);
        let service = tower::Layer::layer(&service, service_fn(|()| broken()));
        assert!(tokio::spawn(service.oneshot(())).await.is_err_and(|error| error.is_panic()));
    });
    assert_eq!(opened.await, 5);
    assert_eq!(by_task.stats().panicked_total, 5);

    // Caught around each poll: the future is dropped when nothing panics any more.
    let by_poll = breaker(config());
    let opened = calls_until_open(&by_poll, async |breaker| {
        let service = BreakerLayer::new(breaker);
        let service = tower::Layer::layer(&service, service_fn(|()| broken()));
        let mut call = Box::pin(service.oneshot(()));
        std::future::poll_fn(|cx| {
            let poll = std::panic::AssertUnwindSafe(|| call.as_mut().poll(cx));
            assert!(std::panic::catch_unwind(poll).is_err());
            std::task::Poll::Ready(())
        })
        .await;
    });
    assert_eq!(opened.await, 5);
    assert_eq!(by_poll.stats().panicked_total, 5);

    // A panic before there is a future.
    let in_call = breaker(config());
    let opened = calls_until_open(&in_call, async |breaker| {
        let service = BreakerLayer::new(breaker);
        let mut service = tower::Layer::layer(
            &service,
            service_fn(|()| -> std::future::Ready<Result<(), Infallible>> {
                std::panic::resume_unwind(Box::new("a bug"))
            }),
        );
        service.ready().await.expect("ready");
        let call = std::panic::AssertUnwindSafe(|| service.call(()));
        assert!(std::panic::catch_unwind(call).is_err());
    });
    assert_eq!(opened.await, 5);
    assert_eq!(in_call.stats().panicked_total, 5);
}

// (e6) tower-resilience and failsafe stay closed over 50 calls that a timeout outside gives up.
#[tokio::test(start_paused = true)]
async fn timeouts_around_it_open_it() {
    let breaker = breaker(config());
    let opened = calls_until_open(&breaker, async |breaker| {
        let hung = service_fn(|()| std::future::pending::<Result<(), Infallible>>());
        let service = tower::Layer::layer(&BreakerLayer::new(breaker), hung);
        assert!(timeout(Duration::from_secs(1), service.oneshot(())).await.is_err());
    });
    assert_eq!(opened.await, 5);
    assert_eq!(breaker.stats().abandoned_total, 5);
}

#[tokio::test(start_paused = true)]
async fn a_timed_out_probe_counts_at_once() {
    let breaker = breaker(config().half_open_permits(1));
    fail(&breaker, 5);
    advance(Duration::from_secs(5)).await;
    let probe = breaker.admit().expect("the probe");
    advance(Duration::from_secs(1)).await;
    drop(probe);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn visitors_who_leave_early_do_not_open_it() {
    let breaker = breaker(config());
    for _ in 0..500 {
        let permit = breaker.admit().expect("closed");
        advance(Duration::from_millis(499)).await;
        drop(permit);
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.stats().cancelled_total, 500);
}

// (e8) A layer of tower-resilience that is applied twice is two circuits.
#[tokio::test(start_paused = true)]
async fn a_layer_applied_twice_is_one_circuit() {
    let layer = BreakerLayer::new(breaker(config()));
    let failing = || service_fn(|()| async { Err::<(), _>("down") });
    let one = tower::Layer::layer(&layer, failing());
    let other = tower::Layer::layer(&layer.clone(), failing());
    for _ in 0..5 {
        assert!(one.clone().oneshot(()).await.is_err());
    }
    assert!(other.oneshot(()).await.expect_err("rejected").is::<Open>());
}
