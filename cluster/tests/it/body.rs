//! Calls that last until the body of their response has ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::get;
use escala_cluster::{Breaker, BreakerLayer, BreakerStats, JudgedBody};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::advance;
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::states::{breaker, config};

/// What a body does when it is asked for the next frame.
#[derive(Debug, Clone, Copy)]
enum Step {
    Data(&'static str),
    Trailers,
    Wait,
    Break,
    Panic,
}

/// Does its steps and then ends; `told` is what its hints admit to.
struct Script {
    steps: std::vec::IntoIter<Step>,
    told: bool,
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match self.steps.next() {
            Some(Step::Data(text)) => Some(Ok(Frame::data(text.into()))),
            Some(Step::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
            Some(Step::Break) => Some(Err("connection reset".into())),
            Some(Step::Panic) => std::panic::resume_unwind(Box::new("a bug")),
            Some(Step::Wait) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.told && self.steps.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn script(steps: &[Step], told: bool) -> Script {
    Script { steps: Vec::from(steps).into_iter(), told }
}

/// The response of a backend with this head and this body, behind a breaker that judges at the end.
async fn ask(
    breaker: &Breaker,
    method: &str,
    head: http::response::Builder,
    body: Script,
) -> http::Response<JudgedBody<Script>> {
    let mut answer = Some(head.body(body).expect("valid"));
    let backend = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, BoxError>(answer.take().expect("one call")))
    });
    let classify = |result: Result<&http::Response<Script>, &BoxError>| match result {
        Ok(response) if response.status().is_server_error() => escala_cluster::Outcome::Failure,
        Ok(_) => escala_cluster::Outcome::Success,
        Err(_) => escala_cluster::Outcome::Failure,
    };
    let layer = BreakerLayer::new(breaker.clone()).classify(classify).judge_at_end_of_body();
    let request = Request::builder().method(method).body(()).expect("valid");
    layer.layer(backend).oneshot(request).await.expect("a response")
}

fn ok() -> http::response::Builder {
    http::Response::builder()
}

async fn frame(
    response: &mut http::Response<JudgedBody<Script>>,
) -> Option<Result<Frame<Bytes>, BoxError>> {
    std::future::poll_fn(|cx| Pin::new(response.body_mut()).poll_frame(cx)).await
}

/// Succeeded, failed, cancelled, abandoned, panicked, in flight.
fn ends(stats: &BreakerStats) -> [u64; 6] {
    [
        stats.succeeded_total,
        stats.failed_total,
        stats.cancelled_total,
        stats.abandoned_total,
        stats.panicked_total,
        stats.in_flight,
    ]
}

const SUCCEEDED: [u64; 6] = [1, 0, 0, 0, 0, 0];
const FAILED: [u64; 6] = [0, 1, 0, 0, 0, 0];
const CANCELLED: [u64; 6] = [0, 0, 1, 0, 0, 0];
const ABANDONED: [u64; 6] = [0, 0, 0, 1, 0, 0];
const UNDER_WAY: [u64; 6] = [0, 0, 0, 0, 0, 1];

#[tokio::test(start_paused = true)]
async fn it_counts_when_the_body_has_ended_or_broken_off() {
    use Step::{Break, Data, Trailers, Wait};
    // How many frames are read before the end is known, and what it is.
    for (steps, told, frames, end) in [
        (&[Data("a"), Wait, Data("b")][..], false, 3, SUCCEEDED),
        (&[Data("a"), Data("b")], true, 2, SUCCEEDED),
        (&[Data("a"), Trailers], true, 2, SUCCEEDED),
        (&[Data("a"), Break], false, 2, FAILED),
        (&[Wait, Break], false, 1, FAILED),
    ] {
        let breaker = breaker(config());
        let mut response = ask(&breaker, "GET", ok(), script(steps, told)).await;
        for _ in 0..frames {
            assert_eq!(ends(&breaker.stats()), UNDER_WAY, "{steps:?}");
            let _frame = frame(&mut response).await;
        }
        assert_eq!(ends(&breaker.stats()), end, "{steps:?}");
        drop(response);
        assert_eq!(ends(&breaker.stats()), end, "counted once: {steps:?}");
    }
}

// hyper does not ask for more once it has written what `Content-Length` promised.
#[tokio::test(start_paused = true)]
async fn a_body_of_known_length_has_ended_with_its_last_byte() {
    let breaker = breaker(config());
    let head = ok().header("content-length", "4");
    let body = script(&[Step::Data("ab"), Step::Data("cd"), Step::Wait], false);
    let mut response = ask(&breaker, "GET", head, body).await;
    frame(&mut response).await.expect("data").expect("well");
    assert_eq!(ends(&breaker.stats()), UNDER_WAY);
    frame(&mut response).await.expect("data").expect("well");
    assert_eq!(ends(&breaker.stats()), SUCCEEDED);
}

// The client's connection is cut then: hyper cannot write what there is not.
#[tokio::test(start_paused = true)]
async fn a_body_that_ends_short_of_its_length_has_failed() {
    for (told, frames) in [(true, 1), (false, 2)] {
        let breaker = breaker(config());
        let head = ok().header("content-length", "10");
        let mut response = ask(&breaker, "GET", head, script(&[Step::Data("abc")], told)).await;
        for _ in 0..frames {
            assert_eq!(ends(&breaker.stats()), UNDER_WAY);
            let _frame = frame(&mut response).await;
        }
        assert_eq!(ends(&breaker.stats()), FAILED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_is_judged_by_its_head() {
    let long = ok().header("content-length", "10");
    let empty = ok().header("content-length", "0");
    for (method, head, told) in [
        ("HEAD", ok(), false),
        ("HEAD", long, false),
        ("GET", ok().status(204), false),
        ("GET", ok().status(304), false),
        ("GET", ok(), true),
        ("GET", empty, false),
    ] {
        let breaker = breaker(config());
        let told_of = format!("{method} {head:?}");
        let response = ask(&breaker, method, head, script(&[], told)).await;
        assert_eq!(ends(&breaker.stats()), SUCCEEDED, "{told_of}");
        drop(response);
        assert_eq!(ends(&breaker.stats()), SUCCEEDED, "{told_of}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_a_failure_is_one_whatever_its_body_does() {
    let breaker = breaker(config());
    let response = ask(&breaker, "GET", ok().status(500), script(&[Step::Wait], false)).await;
    assert_eq!(ends(&breaker.stats()), FAILED);
    drop(response);
    assert_eq!(ends(&breaker.stats()), FAILED);
}

#[tokio::test(start_paused = true)]
async fn a_body_dropped_early_is_given_up_and_one_dropped_late_is_a_failure() {
    for (age, end) in [(100, CANCELLED), (500, ABANDONED)] {
        let breaker = breaker(config());
        let body = script(&[Step::Data("a"), Step::Wait], false);
        let mut response = ask(&breaker, "GET", ok(), body).await;
        frame(&mut response).await.expect("data").expect("well");
        advance(Duration::from_millis(age)).await;
        drop(response);
        assert_eq!(ends(&breaker.stats()), end, "{age} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_within_a_body_is_a_failure() {
    let breaker = breaker(config());
    let mut response = ask(&breaker, "GET", ok(), script(&[Step::Panic], false)).await;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        frame(&mut response).now_or_never()
    }));
    assert!(panicked.is_err());
    assert_eq!(ends(&breaker.stats()), [0, 0, 0, 0, 1, 0]);
    drop(response);
    assert_eq!(ends(&breaker.stats()), [0, 0, 0, 0, 1, 0]);
}

// What a server's own heads hide: 200, and then the connection to its source breaks.
#[tokio::test]
async fn bodies_that_break_off_open_the_circuit_of_a_router() {
    let breaker = breaker(config());
    let broken = async || {
        let parts = stream::iter([Ok("half a page"), Err("connection reset")]);
        Response::new(Body::from_stream(parts))
    };
    let router = Router::new()
        .route("/", get(broken))
        .layer(BreakerLayer::http(breaker.clone()).judge_at_end_of_body());
    for _ in 0..5 {
        let request = Request::get("/").body(Body::empty()).expect("valid");
        let response = router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        let frames: Vec<_> = response.into_body().into_data_stream().collect().await;
        assert!(frames.last().expect("two").is_err());
    }
    let request = Request::get("/").body(Body::empty()).expect("valid");
    let response: Result<_, Infallible> = router.oneshot(request).await;
    assert_eq!(response.expect("infallible").status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_trial_closes_the_circuit_with_the_last_byte() {
    let breaker = breaker(config().half_open_permits(1).open_for(Duration::from_millis(1)));
    crate::states::fail(&breaker, 5);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut response = ask(&breaker, "GET", ok(), script(&[Step::Data("a")], false)).await;
    assert!(breaker.admit().is_err(), "the trial is under way");
    while frame(&mut response).await.is_some() {}
    assert_eq!(breaker.state(), escala_cluster::State::Closed);
}
