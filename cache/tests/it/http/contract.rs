//! The tower contract.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use escala_cache::BoxError;
use escala_cache::http::{Body, HttpCacheConfig, HttpCacheLayer, HttpCacheService, ResponseFuture};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, Service, ServiceExt};
use tower_test::mock;

use super::support::{assert_adds_up, cache, seconds, settle};

type In = Request<Empty<Bytes>>;
type Out = Response<Full<Bytes>>;
type Mock = mock::Mock<In, Out>;
type Handle = mock::Handle<In, Out>;

fn stack() -> (HttpCacheService<Mock>, Handle, escala_cache::http::HttpCache) {
    let (inner, handle) = mock::pair();
    let cache = cache(HttpCacheConfig::default());
    (HttpCacheLayer::new(cache.clone()).layer(inner), handle, cache)
}

fn request(method: &str) -> In {
    Request::builder().method(method).uri("/").body(Empty::new()).unwrap()
}

fn fresh(control: &str) -> Out {
    Response::builder().header("cache-control", control).body(Full::from("moon")).unwrap()
}

async fn text(response: Response<Body<Full<Bytes>>>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_made_ready_is_the_one_that_is_called() {
    // The mock panics when a clone that was never ready is called.
    for method in ["GET", "HEAD", "POST", "OPTIONS"] {
        let (mut service, mut handle, _) = stack();
        handle.allow(1);
        let call = service.ready().await.unwrap().call(request(method));
        let call = tokio::spawn(call);
        handle.next_request().await.unwrap().1.send_response(fresh("max-age=60"));
        assert_eq!(call.await.unwrap().unwrap().status(), 200, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_is_waited_for_and_a_hit_leaves_it_ready() {
    let (mut service, mut handle, _) = stack();
    handle.allow(0);
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_pending());
    handle.allow(1);
    assert!(matches!(service.poll_ready(&mut context), Poll::Ready(Ok(()))));
    let call = tokio::spawn(service.call(request("GET")));
    handle.next_request().await.unwrap().1.send_response(fresh("max-age=60"));
    assert_eq!(text(call.await.unwrap().unwrap()).await, "moon");
    settle().await;
    handle.allow(1);
    for _ in 0..3 {
        let hit = service.ready().await.unwrap().call(request("GET")).await.unwrap();
        assert_eq!(text(hit).await, "moon");
    }
    let call = tokio::spawn(service.call(request("POST")));
    handle.next_request().await.unwrap().1.send_response(fresh("no-store"));
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_put_twice_waits_for_readiness_in_between() {
    let (mut service, mut handle, _) = stack();
    handle.allow(1);
    let call = tokio::spawn(service.ready().await.unwrap().call(request("GET")));
    let first = Response::builder().header("cache-control", "max-age=60").header("etag", "\"a\"");
    let first = first.body(Full::from("moon")).unwrap();
    handle.next_request().await.unwrap().1.send_response(first);
    text(call.await.unwrap().unwrap()).await;
    settle().await;
    tokio::time::advance(seconds(61)).await;
    handle.allow(1);
    let call = tokio::spawn(service.ready().await.unwrap().call(request("GET")));
    let other = Response::builder().status(304).header("etag", "\"b\"");
    let other = other.body(Full::default()).unwrap();
    handle.next_request().await.unwrap().1.send_response(other);
    settle().await;
    let mut context = Context::from_waker(Waker::noop());
    let early = pin!(handle.next_request()).poll(&mut context);
    assert!(early.is_pending(), "not ready, so not called");
    handle.allow(1);
    let (again, respond) = handle.next_request().await.unwrap();
    assert!(!again.headers().contains_key("if-none-match"));
    respond.send_response(fresh("max-age=60"));
    assert_eq!(text(call.await.unwrap().unwrap()).await, "moon");
}

#[tokio::test(start_paused = true)]
async fn the_inner_error_passes_through_as_it_is() {
    for method in ["GET", "POST", "OPTIONS"] {
        let (mut service, mut handle, cache) = stack();
        handle.allow(1);
        let call = tokio::spawn(service.ready().await.unwrap().call(request(method)));
        handle.next_request().await.unwrap().1.send_error("broken");
        let error: BoxError = call.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "broken");
        let stats = cache.stats();
        assert_adds_up(&stats);
        assert_eq!((stats.failed, stats.flights), (1, 0), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_failed_says_so_itself() {
    let (mut service, mut handle, _) = stack();
    handle.send_error("closed");
    assert!(matches!(
        service.poll_ready(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(Err(error)) if error.to_string() == "closed"
    ));
}

#[test]
fn service_future_and_body_may_go_to_other_threads() {
    fn sendable<T: Send + 'static>() {}
    fn shareable<T: Send + Sync + 'static>() {}
    shareable::<HttpCacheLayer>();
    shareable::<HttpCacheService<Mock>>();
    sendable::<ResponseFuture<mock::future::ResponseFuture<Out>, Full<Bytes>, BoxError>>();
    sendable::<Body<Full<Bytes>>>();
}

#[tokio::test(start_paused = true)]
async fn a_hit_allocates_its_key_and_its_headers_and_not_its_body() {
    let (mut service, mut handle, _) = stack();
    handle.allow(1);
    let call = tokio::spawn(service.ready().await.unwrap().call(request("GET")));
    let long = Full::from(vec![b'x'; 100_000]);
    let response = Response::builder().header("cache-control", "max-age=60").body(long).unwrap();
    handle.next_request().await.unwrap().1.send_response(response);
    text(call.await.unwrap().unwrap()).await;
    settle().await;
    handle.allow(1);
    let service = service.ready().await.unwrap();
    let hit = |service: &mut HttpCacheService<Mock>| {
        let mut future = pin!(service.call(request("GET")));
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => assert_eq!(response.headers().len(), 4),
            _ => panic!("a hit does not wait"),
        }
    };
    hit(service);
    let allocations = allocation_counter::measure(|| hit(service));
    assert!(allocations.count_total <= 12, "{allocations:?}");
    assert!(allocations.bytes_total < 2_000, "{allocations:?}");
}
