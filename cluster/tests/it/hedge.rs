//! The hedge: what is sent twice, whose answer is taken, and what it costs the backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use escala_cluster::{HedgeConfig, HedgeLayer, HttpRetry, Retry, RetryWhen};
use http::{Method, Request, Response};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

type Rules = RetryWhen<fn(&u32, Result<&u32, &BoxError>) -> Retry>;

fn layer(config: HedgeConfig) -> HedgeLayer<Rules> {
    let judge: fn(&u32, Result<&u32, &BoxError>) -> Retry = |_, result| match result {
        Ok(_) => Retry::No,
        Err(error) => Retry::for_error(&**error),
    };
    HedgeLayer::new("test", config, RetryWhen(judge)).expect("valid")
}

fn fixed(millis: u64) -> HedgeConfig {
    let delay = Duration::from_millis(millis);
    HedgeConfig::default().delay(delay, delay)
}

/// What each attempt of one request does: after so many milliseconds it fails or answers with its
/// number.
fn backend(
    attempts: &'static [(u64, bool)],
) -> (Arc<AtomicU32>, impl Service<u32, Response = u32, Error = BoxError> + Clone) {
    let sent = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&sent);
    let service = service_fn(move |_: u32| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        let (millis, well) = attempts[number as usize];
        async move {
            sleep(Duration::from_millis(millis)).await;
            if well { Ok(number) } else { Err("down".into()) }
        }
    });
    (sent, service)
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_is_taken() {
    for (attempts, answer, millis, sent) in [
        // In time: sent once.
        (&[(9, true)][..], Some(0), 9, 1),
        (&[(9, false)], None, 9, 1),
        // Late: sent twice.
        (&[(100, true), (5, true)], Some(1), 15, 2),
        (&[(12, true), (5, true)], Some(0), 12, 2),
        // tower's hedge takes the failure for the answer in both of these.
        (&[(100, true), (5, false)], Some(0), 100, 2),
        (&[(12, false), (5, true)], Some(1), 15, 2),
        (&[(12, false), (5, false)], None, 15, 2),
        (&[(100, false), (5, false)], None, 100, 2),
    ] {
        let layer = layer(fixed(10));
        let (counter, service) = backend(attempts);
        let begun = Instant::now();
        let result = layer.layer(service).oneshot(7).await;
        assert_eq!(result.ok(), answer, "{attempts:?}");
        let took = begun.elapsed().as_millis() as u64;
        assert!((millis..=millis + 1).contains(&took), "{attempts:?}: {took}");
        assert_eq!(counter.load(Ordering::SeqCst), sent, "{attempts:?}");
        let stats = layer.stats();
        assert_eq!((stats.requests_total, stats.hedges_total), (1, u64::from(sent) - 1));
        assert_eq!(stats.hedges_won_total, u64::from(answer == Some(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_copy_goes_by_a_service_that_was_made_ready() {
    let (mut service, mut handle) = mock::spawn_layer::<u32, u32, _>(layer(fixed(10)));
    assert_ready_ok!(service.poll_ready());
    let mut call = tokio_test::task::spawn(service.call(1));
    assert_pending!(call.poll());
    let (_, first) = handle.next_request().await.expect("arrives");
    handle.allow(0);
    tokio::time::advance(Duration::from_millis(11)).await;
    assert_pending!(call.poll(), "late, but the clone is not ready");
    handle.allow(1);
    assert_pending!(call.poll());
    let (request, second) = handle.next_request().await.expect("arrives");
    assert_eq!(request, 1);
    second.send_error("down");
    assert_pending!(call.poll());
    first.send_response(2);
    assert_eq!(assert_ready_ok!(call.poll()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_withheld_for_a_copy_that_was_not_sent() {
    let layer = layer(fixed(10));
    let (mut service, mut handle) = mock::spawn_layer::<u32, u32, _>(layer.clone());
    assert_ready_ok!(service.poll_ready());
    let mut call = tokio_test::task::spawn(service.call(1));
    assert_pending!(call.poll());
    let (_, first) = handle.next_request().await.expect("arrives");
    handle.allow(0);
    tokio::time::advance(Duration::from_millis(11)).await;
    assert_pending!(call.poll(), "late, but the clone is not ready");
    first.send_error("down");
    assert_ready_err!(call.poll());
    assert_eq!(layer.stats().hedges_total, 0, "nothing was sent");
}

/// A server over HTTP: each attempt's milliseconds and status. And how many it was sent.
fn http_server(
    attempts: &'static [(u64, u16)],
) -> (
    Arc<AtomicU32>,
    impl Service<Request<String>, Response = Response<()>, Error = BoxError> + Clone,
) {
    let sent = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&sent);
    let service = service_fn(move |_: Request<String>| {
        let (millis, status) = attempts[counter.fetch_add(1, Ordering::SeqCst) as usize];
        async move {
            sleep(Duration::from_millis(millis)).await;
            Ok(Response::builder().status(status).body(()).expect("valid"))
        }
    });
    (sent, service)
}

// A retry does not help against a 500, but the other copy's answer does.
#[tokio::test(start_paused = true)]
async fn a_fast_server_error_does_not_take_the_place_of_an_answer_that_comes() {
    for (attempts, status, won) in [
        (&[(20, 200), (0, 500)][..], 200, 0),
        (&[(15, 501), (10, 200)], 200, 1),
        (&[(20, 500), (0, 503)], 500, 0),
        (&[(20, 200), (0, 404)], 404, 1),
    ] {
        let layer = HedgeLayer::new("http", fixed(10), HttpRetry::new()).expect("valid");
        let (sent, service) = http_server(attempts);
        let response = layer.layer(service).oneshot(Request::default()).await.expect("answered");
        assert_eq!(response.status(), status, "{attempts:?}");
        assert_eq!((sent.load(Ordering::SeqCst), layer.stats().hedges_won_total), (2, won));
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_harm_twice_is_sent_once() {
    for (method, key, expected) in [
        (Method::GET, None, 2),
        (Method::DELETE, None, 2),
        (Method::POST, None, 1),
        (Method::PATCH, None, 1),
        (Method::POST, Some("7"), 2),
    ] {
        let layer = HedgeLayer::new("http", fixed(10), HttpRetry::new()).expect("valid");
        let (sent, service) = http_server(&[(100, 200), (100, 200)]);
        let mut request = Request::builder().method(&method);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body("body".to_owned()).expect("valid");
        layer.layer(service).oneshot(request).await.expect("answered");
        assert_eq!(sent.load(Ordering::SeqCst), expected, "{method} {key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_loser_ends_with_the_answer() {
    /// Counts itself while it lives.
    struct Alive(Arc<AtomicU32>);

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    for millis in [[1_000, 5], [15, 1_000]] {
        let (alive, sent) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let under_way = Arc::clone(&alive);
        let service = layer(fixed(10)).layer(service_fn(move |_: u32| {
            under_way.fetch_add(1, Ordering::SeqCst);
            let alive = Alive(Arc::clone(&under_way));
            let number = sent.fetch_add(1, Ordering::SeqCst);
            async move {
                sleep(Duration::from_millis(millis[number as usize])).await;
                drop(alive);
                Ok::<_, BoxError>(number)
            }
        }));
        let mut call = std::pin::pin!(service.oneshot(1));
        call.as_mut().await.expect("answered");
        assert_eq!(alive.load(Ordering::SeqCst), 0, "{millis:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_late_is_learnt_from_what_came_before() {
    let layer = layer(HedgeConfig::default().percentile(0.9, 100));
    let service = layer.layer(service_fn(async |millis: u32| {
        sleep(Duration::from_millis(u64::from(millis))).await;
        Ok::<_, BoxError>(millis)
    }));
    for millis in 1..=100 {
        assert_eq!(layer.stats().delay, Duration::ZERO);
        service.clone().oneshot(millis).await.expect("well");
    }
    let delay = layer.stats().delay.as_millis();
    assert!((85..=96).contains(&delay), "{delay}");
    assert_eq!(layer.stats().hedges_total, 0);
    service.oneshot(120).await.expect("well");
    assert_eq!(layer.stats().hedges_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_late_altogether_is_not_asked_everything_twice() {
    let layer = layer(fixed(10).budget(10, 0));
    let service = layer.layer(service_fn(async |number: u32| {
        sleep(Duration::from_millis(50)).await;
        Ok::<_, BoxError>(number)
    }));
    for number in 0..200 {
        service.clone().oneshot(number).await.expect("well");
    }
    let stats = layer.stats();
    assert!((18..=20).contains(&stats.hedges_total), "{stats:?}");
    assert_eq!(stats.hedges_total + stats.out_of_budget_total, 200);
}

#[test]
fn a_configuration_that_breaks_a_rule_names_it() {
    let second = Duration::from_secs(1);
    let config = HedgeConfig::default;
    for (config, expected) in [
        (config(), None),
        (config().percentile(1.0, 200), Some("percentile is 1, but must be from 0.5 to 0.999")),
        (config().percentile(0.9, 1), Some("samples is 1, but must be from 20 to 1000000")),
        (
            config().delay(Duration::ZERO, second),
            Some("delay_min is 0ns, but must be longer than zero"),
        ),
        (
            config().delay(second, second / 2),
            Some("delay_max is 500ms, but must be at least delay_min and at most 24 hours"),
        ),
        (
            config().budget(10_001, 1),
            Some("requests_per_hedge is 10001, but must be at most 10000"),
        ),
        (
            config().budget(1, 2_000_000),
            Some("hedges_per_second is 2000000, but must be at most 1000000"),
        ),
    ] {
        let error = config.validate().err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expected);
    }
}

#[test]
fn every_figure_is_handed_out() {
    let mut figures = Vec::new();
    layer(fixed(250)).stats().visit(&mut |name, labels, value| {
        assert_eq!(labels, [("hedge", "test")]);
        figures.push((name.to_owned(), value));
    });
    assert_eq!(figures.len(), 5);
    assert!(figures.contains(&("delay_seconds".to_owned(), 0.25)));
}
