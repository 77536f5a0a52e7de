//! The layer against tower's mock, which notices a call on a service that is not ready.

use std::error::Error;
use std::fmt;

use escala_cache::{BoxError, Cache, CacheLayer, CacheService, LoadError, ServiceError};
use tower::{Layer, Service, ServiceExt};
use tower_test::mock::{self, Mock};
use tower_test::{assert_request_eq, mock::Spawn};

use crate::support::FakeStore;

type Key = fn(&String) -> Option<String>;
type Served = CacheService<Mock<String, u64>, String, u64, Key>;

#[expect(clippy::ptr_arg, reason = "the requests of the mock are strings of their own")]
fn key(request: &String) -> Option<String> {
    (!request.starts_with('!')).then(|| request.clone())
}

fn layer() -> CacheLayer<String, u64, Key> {
    CacheLayer::new(Cache::builder("responses").build().unwrap(), key as Key)
}

fn served() -> (Spawn<Served>, mock::Handle<String, u64>) {
    mock::spawn_layer(layer())
}

#[tokio::test]
async fn a_second_request_is_answered_without_the_inner_service() {
    let (mut service, mut inner) = served();
    inner.allow(1);
    assert!(service.poll_ready().is_ready());
    let first = tokio::spawn(service.call("a".to_owned()));
    assert_request_eq!(inner, "a").send_response(7);
    assert_eq!(first.await.unwrap().unwrap(), 7);

    inner.allow(1);
    assert!(service.poll_ready().is_ready());
    assert_eq!(service.call("a".to_owned()).await.unwrap(), 7);
    // The hit has not used the inner service's readiness up.
    assert!(service.poll_ready().is_ready());
    let other = tokio::spawn(service.call("b".to_owned()));
    assert_request_eq!(inner, "b").send_response(8);
    assert_eq!(other.await.unwrap().unwrap(), 8);
}

#[tokio::test]
async fn readiness_is_that_of_the_inner_service() {
    let (mut service, mut inner) = served();
    inner.allow(0);
    assert!(service.poll_ready().is_pending());
    inner.allow(1);
    assert!(service.poll_ready().is_ready());
}

#[tokio::test]
async fn concurrent_misses_are_one_call() {
    let (mut service, mut inner) = served();
    let mut calls = Vec::new();
    for _ in 0..5 {
        inner.allow(1);
        assert!(service.poll_ready().is_ready());
        calls.push(tokio::spawn(service.call("a".to_owned())));
    }
    let (_, response) = inner.next_request().await.unwrap();
    response.send_response(7);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 7);
    }
    drop(service);
    assert!(inner.next_request().await.is_none(), "one call for all");
}

#[tokio::test]
async fn a_dropped_response_still_fills_the_cache() {
    let (mut service, mut inner) = served();
    inner.allow(1);
    assert!(service.poll_ready().is_ready());
    let call = tokio::spawn(service.call("a".to_owned()));
    let (_, response) = inner.next_request().await.unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    response.send_response(7);

    inner.allow(1);
    assert!(service.poll_ready().is_ready());
    assert_eq!(service.call("a".to_owned()).await.unwrap(), 7);
}

#[tokio::test]
async fn a_request_without_a_key_passes_by() {
    let (mut service, mut inner) = served();
    for value in [1, 2] {
        inner.allow(1);
        assert!(service.poll_ready().is_ready());
        let call = tokio::spawn(service.call("!a".to_owned()));
        assert_request_eq!(inner, "!a").send_response(value);
        assert_eq!(call.await.unwrap().unwrap(), value);
    }
}

#[derive(Debug, PartialEq)]
struct Down;

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("down")
    }
}

impl Error for Down {}

fn is_down(error: &BoxError) -> bool {
    let load = error.downcast_ref::<LoadError<ServiceError>>().unwrap();
    load.source_error().unwrap().get_ref().is::<Down>()
}

#[tokio::test]
async fn the_inner_error_reaches_every_joined_caller_and_is_not_stored() {
    let (mut service, mut inner) = served();
    let mut calls = Vec::new();
    for _ in 0..2 {
        inner.allow(1);
        assert!(service.poll_ready().is_ready());
        calls.push(tokio::spawn(service.call("a".to_owned())));
    }
    assert_request_eq!(inner, "a").send_error(Down);
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(is_down(&error));
        let texts = [error.to_string(), error.source().unwrap().to_string()];
        assert_eq!(texts, ["the source failed", "down"]);
    }
    inner.allow(1);
    assert!(service.poll_ready().is_ready());
    let retry = tokio::spawn(service.call("a".to_owned()));
    assert_request_eq!(inner, "a").send_response(7);
    assert_eq!(retry.await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn an_error_past_the_cache_is_the_inner_one() {
    let (mut service, mut inner) = served();
    inner.allow(1);
    assert!(service.poll_ready().is_ready());
    let call = tokio::spawn(service.call("!a".to_owned()));
    assert_request_eq!(inner, "!a").send_error(Down);
    assert!(call.await.unwrap().unwrap_err().is::<Down>());
}

#[tokio::test]
async fn services_of_one_layer_share_the_cache_and_the_shared_layer_fills_them() {
    let store = FakeStore::default();
    let build = || Cache::builder("responses").shared(store.clone()).build().unwrap();
    build().insert("a".to_owned(), 7).await;
    let before = store.gets();

    let cache = build();
    let layer = CacheLayer::new(cache, key as Key);
    let refuse = |_: String| async { Err::<u64, _>(Down) };
    let mut one = layer.layer(tower::service_fn(refuse));
    let mut other = layer.clone().layer(tower::service_fn(refuse));
    assert_eq!(one.ready().await.unwrap().call("a".to_owned()).await.unwrap(), 7);
    assert_eq!(other.ready().await.unwrap().call("a".to_owned()).await.unwrap(), 7);
    assert_eq!(store.gets() - before, 1, "the second found it in the memory of the first");
}

#[test]
fn service_and_future_can_go_anywhere() {
    fn anywhere<T: Send + 'static>() {}
    anywhere::<Served>();
    anywhere::<<Served as Service<String>>::Future>();
    anywhere::<Cache<String, u64>>();
    fn shared<T: Send + Sync>() {}
    shared::<Cache<String, u64>>();
    shared::<CacheLayer<String, u64, Key>>();
}
