//! Bodies on their way: streamed while they are stored, aborted, broken, too long.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body as AxumBody;
use bytes::Bytes;
use escala_cache::BoxError;
use escala_cache::http::{BodyError, HttpCache, HttpCacheConfig, HttpCacheLayer};
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::support::{Origin, assert_adds_up, cache, get, request, seconds, settle};

pub(crate) type Piece = Result<Bytes, BoxError>;

/// A body that the test sends piece by piece.
pub(crate) struct Piecewise(pub(crate) mpsc::Receiver<Piece>);

impl http_body::Body for Piecewise {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// An origin whose only answer has these fields and this body; a second request is a mistake.
pub(crate) fn piecewise(
    fields: &'static [(&'static str, &'static str)],
) -> (Origin, mpsc::Sender<Piece>) {
    let (sender, receiver) = mpsc::channel(1);
    let body = Mutex::new(Some(receiver));
    let origin = Origin::new(move |_, _| {
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let body = Piecewise(body.lock().take().expect("the origin is asked once"));
        response.body(AxumBody::new(body)).unwrap()
    });
    (origin, sender)
}

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

fn stack(origin: &Origin, config: HttpCacheConfig) -> (HttpCache, Router) {
    let cache = cache(config);
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    (cache, app)
}

fn piece(bytes: usize) -> Piece {
    Ok(Bytes::from(vec![b'x'; bytes]))
}

async fn open(app: &Router) -> axum::body::Body {
    app.clone().oneshot(request("GET", "/", &[])).await.unwrap().into_body()
}

async fn next(body: &mut AxumBody) -> usize {
    body.frame().await.unwrap().unwrap().into_data().unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_client_and_one_that_comes_later_stream_one_body_while_it_is_stored() {
    let (origin, sender) = piecewise(FRESH);
    let (cache, app) = stack(&origin, HttpCacheConfig::default());
    let mut first = open(&app).await;
    sender.send(piece(10)).await.unwrap();
    assert_eq!(next(&mut first).await, 10, "before the body has ended");
    let mut second = open(&app).await;
    assert_eq!(next(&mut second).await, 10);
    sender.send(piece(20)).await.unwrap();
    assert_eq!((next(&mut first).await, next(&mut second).await), (20, 20));
    assert_eq!(cache.stats().stored, 0);
    drop(sender);
    assert!(first.frame().await.is_none());
    settle().await;
    let stored = get(&app, "/").await;
    assert!(stored.is_hit());
    assert_eq!((stored.body.len(), stored.field("content-length")), (30, "30"));
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.misses, stats.coalesced, stats.hits, stats.flights), (1, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_at_any_frame_does_not_truncate_the_stored_copy() {
    for frames in 0..4 {
        let (origin, sender) = piecewise(FRESH);
        let (cache, app) = stack(&origin, HttpCacheConfig::default());
        let mut body = open(&app).await;
        for _ in 0..frames {
            sender.send(piece(10)).await.unwrap();
            next(&mut body).await;
        }
        drop(body);
        for _ in frames..4 {
            sender.send(piece(10)).await.unwrap();
        }
        drop(sender);
        settle().await;
        let stored = get(&app, "/").await;
        assert_eq!((stored.body.len(), stored.is_hit()), (40, true), "{frames}");
        assert_eq!(cache.stats().flights, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_not_stored_and_breaks_for_its_clients() {
    let (origin, sender) = piecewise(FRESH);
    let (cache, app) = stack(&origin, HttpCacheConfig::default());
    let (mut one, mut two) = (open(&app).await, open(&app).await);
    sender.send(piece(10)).await.unwrap();
    sender.send(Err("reset".into())).await.unwrap();
    for body in [&mut one, &mut two] {
        assert_eq!(next(body).await, 10);
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(text(&error).contains("reset"), "{error:?}");
    }
    settle().await;
    let stats = cache.stats();
    assert_eq!((stats.stored, stats.incomplete, stats.flights), (0, 1, 0));
}

/// An error and all its causes.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_shorter_than_announced_is_not_stored() {
    let (origin, sender) = piecewise(&[("cache-control", "max-age=60"), ("content-length", "20")]);
    let (cache, app) = stack(&origin, HttpCacheConfig::default());
    let mut body = open(&app).await;
    sender.send(piece(10)).await.unwrap();
    drop(sender);
    assert_eq!(next(&mut body).await, 10);
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(text(&error).contains(&BodyError::Length.to_string()));
    settle().await;
    assert_eq!((cache.stats().stored, cache.stats().incomplete), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_is_served_whole_and_not_stored() {
    let (origin, sender) = piecewise(FRESH);
    let config = HttpCacheConfig::default().max_body_bytes(25).window_bytes(100);
    let (cache, app) = stack(&origin, config);
    let mut body = open(&app).await;
    let mut had = 0;
    for _ in 0..10 {
        sender.send(piece(10)).await.unwrap();
        had += next(&mut body).await;
    }
    drop(sender);
    assert!(body.frame().await.is_none());
    assert_eq!(had, 100);
    settle().await;
    let stats = cache.stats();
    assert_eq!((stats.stored, stats.too_large, stats.hit_for_miss, stats.flights), (0, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_announced_as_too_long_passes_through() {
    let origin = Origin::counting(FRESH);
    let (cache, app) = stack(&origin, HttpCacheConfig::default().max_body_bytes(7));
    let got = get(&app, "/").await;
    assert_eq!(got.body, "answer 0");
    assert_eq!(got.how(), "fwd=uri-miss; fwd-status=200; detail=\"too-large\"");
    assert_eq!(get(&app, "/").await.body, "answer 1");
    assert_eq!(cache.stats().too_large, 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_holds_the_origin_back_once_nothing_is_stored() {
    let (origin, sender) = piecewise(FRESH);
    let config = HttpCacheConfig::default().max_body_bytes(25).window_bytes(200);
    let (_, app) = stack(&origin, config);
    let mut body = open(&app).await;
    let mut sent = 0;
    // Until no more is taken: the window, and what lies in the channel.
    while sent < 100 && sender.try_send(piece(100)).is_ok() {
        sent += 1;
        settle().await;
    }
    assert!(sent < 10, "the origin was never held back");
    assert_eq!(next(&mut body).await, 100);
    settle().await;
    sender.try_send(piece(100)).expect("room again");
}

#[tokio::test(start_paused = true)]
async fn nobody_fetches_on_for_nobody_once_a_body_is_too_long() {
    let (origin, sender) = piecewise(FRESH);
    let (cache, app) = stack(&origin, HttpCacheConfig::default().max_body_bytes(25));
    let body = open(&app).await;
    sender.send(piece(30)).await.unwrap();
    drop(body);
    sender.closed().await;
    assert_eq!(cache.stats().flights, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_hangs_is_not_joined_for_ever_nor_fetched_for_nobody() {
    let (origin, sender) = piecewise(FRESH);
    let (cache, app) = stack(&origin, HttpCacheConfig::default());
    let mut body = open(&app).await;
    sender.send(piece(10)).await.unwrap();
    next(&mut body).await;
    tokio::time::sleep(seconds(6)).await;
    // Whoever comes now asks for itself.
    let second = app.clone();
    let second = tokio::spawn(async move { get(&second, "/").await });
    assert!(second.await.unwrap_err().is_panic(), "the origin was asked again");
    drop(body);
    sender.closed().await;
    settle().await;
    let stats = cache.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.incomplete, stats.flights, stats.stored), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_does_not_stop_those_it_shares_a_long_body_with() {
    let (origin, sender) = piecewise(FRESH);
    let config = HttpCacheConfig::default().max_body_bytes(25).window_bytes(200);
    let (_, app) = stack(&origin, config);
    let mut good = open(&app).await;
    let mut stuck = open(&app).await;
    let feed = tokio::spawn(async move {
        for _ in 0..20 {
            sender.send(piece(100)).await.unwrap();
        }
    });
    for _ in 0..20 {
        assert_eq!(next(&mut good).await, 100);
    }
    assert!(good.frame().await.is_none());
    feed.await.unwrap();
    let error = stuck.frame().await.unwrap().unwrap_err();
    assert!(text(&error).contains(&BodyError::TooSlow.to_string()));
}
