//! The HTTP layer: what it counts, under which labels, and that no ending is lost.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use axum::routing::{get as on_get, post};
use escala_observability::{HttpLayer, HttpService, Observability, ObservedBody, ResponseFuture};
use http_body_util::BodyExt as _;
use tower::{Layer as _, Service as _, ServiceExt as _};
use tower_test::mock;

use super::{get, open, request, send, series};

const COUNT: &str = "http_server_request_duration_seconds_count";
const ABORTED: &str = "http_server_requests_aborted_total";

/// `requests, errors, aborted, active` as the dashboard has them.
fn counts(obs: &Observability) -> (u64, u64, u64, u64) {
    let traffic = &obs.snapshot()["traffic"];
    let field = |name: &str| traffic[name].as_u64().unwrap();
    (field("requests_total"), field("errors_total"), field("aborted_total"), field("active"))
}

/// A body of these frames, whose length may be known.
struct Slow(Vec<Result<&'static str, &'static str>>, Option<u64>);

impl axum::body::HttpBody for Slow {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::BoxError>>> {
        let next = (!self.0.is_empty()).then(|| self.0.remove(0));
        Poll::Ready(next.map(|frame| {
            frame
                .map(|text| http_body::Frame::data(Bytes::from_static(text.as_bytes())))
                .map_err(Into::into)
        }))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.1.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }
}

fn streaming(frames: Vec<Result<&'static str, &'static str>>) -> Response<Body> {
    Response::new(Body::new(Slow(frames, None)))
}

#[test]
fn the_public_types_can_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    fn check_send<T: Send + 'static>() {}
    check::<HttpLayer>();
    check::<HttpService<()>>();
    check::<Observability>();
    check_send::<ObservedBody>();
    check_send::<ResponseFuture<std::future::Ready<Result<Response<Body>, Infallible>>>>();
}

#[tokio::test]
async fn readiness_is_the_inner_services_and_the_call_goes_to_the_ready_value() {
    let obs = open();
    let (mock, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let mut service = obs.http_layer().layer(mock);
    handle.allow(0);
    let waker = std::task::Waker::noop();
    assert!(service.poll_ready(&mut Context::from_waker(waker)).is_pending());
    handle.allow(1);
    // The mock panics when it is called without having been ready.
    let call = service.ready().await.unwrap().call(request("GET", "/"));
    let (_, respond) = handle.next_request().await.unwrap();
    assert_eq!(counts(&obs), (0, 0, 0, 1));
    respond.send_response(Response::new(Body::empty()));
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(counts(&obs), (1, 0, 0, 0));
}

#[tokio::test]
async fn an_error_of_the_inner_service_passes_and_counts_as_one() {
    let obs = open();
    let (mock, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let mut service = obs.http_layer().layer(mock);
    let call = service.ready().await.unwrap().call(request("GET", "/"));
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_error("broken");
    assert_eq!(call.await.unwrap_err().to_string(), "broken");
    assert_eq!(counts(&obs), (1, 1, 0, 0));
    let line = &series(&obs, COUNT).await[0];
    assert!(line.contains("error_type=\"_OTHER\"") && !line.contains("status_code"), "{line}");
}

#[tokio::test]
async fn a_future_dropped_at_any_step_is_counted_once() {
    let obs = open();
    let (mock, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let mut service = obs.http_layer().layer(mock);
    // Never polled.
    drop(service.ready().await.unwrap().call(request("GET", "/")));
    assert_eq!(counts(&obs), (0, 0, 1, 0));
    // Polled once, the handler has the request.
    let mut call = Box::pin(service.ready().await.unwrap().call(request("GET", "/")));
    assert!(call.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
    let _request = handle.next_request().await.unwrap();
    assert_eq!(counts(&obs), (0, 0, 1, 1));
    drop(call);
    assert_eq!(counts(&obs), (0, 0, 2, 0));
    // Answered, but the answer was never looked at.
    let call = service.ready().await.unwrap().call(request("GET", "/"));
    let _request = handle.next_request().await.unwrap();
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(Response::new(Body::empty()));
    drop(call);
    assert_eq!(counts(&obs), (0, 0, 3, 0));
    let line = &series(&obs, ABORTED).await[0];
    assert!(line.contains("phase=\"handler\"") && line.ends_with("} 3"), "{line}");
    assert!(line.contains("cause=\"client\""), "{line}");
}

fn app(obs: &Observability) -> Router {
    let orders = Router::new().route("/{id}", on_get(|| async { "an order" }));
    Router::new()
        .route("/users/{id}", on_get(|| async { "a user" }))
        .route("/fail", on_get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/make", post(|| async { StatusCode::CREATED }))
        .nest("/orders", orders)
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(obs.http_layer())
}

#[tokio::test]
async fn labels_are_templates_methods_and_statuses() {
    let obs = open();
    let app = app(&obs);
    for (method, path) in [
        ("GET", "/users/1"),
        ("GET", "/users/2?q=x"),
        ("HEAD", "/users/3"),
        ("GET", "/orders/9"),
        ("GET", "/fail"),
        ("POST", "/make"),
        ("GET", "/make"),
        ("BREW", "/users/4"),
        ("GET", "/nothing/here"),
    ] {
        send(&app, request(method, path)).await;
    }
    let label = |method, route, status, error: &str| {
        format!(
            "{COUNT}{{http_request_method=\"{method}\",http_route=\"{route}\",\
             http_response_status_code=\"{status}\"{error}}}"
        )
    };
    let mut expected = vec![
        label("GET", "/users/{id}", 200, "") + " 2",
        label("HEAD", "/users/{id}", 200, "") + " 1",
        label("GET", "/orders/{id}", 200, "") + " 1",
        label("GET", "/fail", 502, ",error_type=\"502\"") + " 1",
        label("POST", "/make", 201, "") + " 1",
        label("GET", "/make", 405, "") + " 1",
        label("_OTHER", "/users/{id}", 405, "") + " 1",
        label("GET", "_unmatched", 404, "") + " 1",
    ];
    expected.sort();
    assert_eq!(series(&obs, COUNT).await, expected);
    assert_eq!(counts(&obs), (9, 1, 0, 0));
}

#[tokio::test]
async fn fifty_scanner_paths_make_no_new_series() {
    let obs = open();
    let app = app(&obs);
    get(&app, "/nothing").await;
    let before = series(&obs, "http_").await.len();
    for n in 0..50 {
        get(&app, &format!("/scan/{n}/.env")).await;
    }
    assert_eq!(series(&obs, "http_").await.len(), before);
    assert_eq!(counts(&obs).0, 51);
}

#[tokio::test]
async fn clones_of_the_layer_count_together_and_two_handles_apart() {
    let (one, other) = (open(), open());
    let layer = one.http_layer();
    let a: Router = Router::new().route("/a", on_get(|| async {})).layer(layer.clone());
    let b: Router = Router::new().route("/b", on_get(|| async {})).layer(layer);
    get(&a, "/a").await;
    get(&b.clone(), "/b").await;
    get(&b, "/b").await;
    assert_eq!((counts(&one).0, counts(&other).0), (3, 0));
}

#[tokio::test]
async fn a_panic_keeps_the_gauges_right_and_counts_as_an_error() {
    let obs = open();
    let app: Router = Router::new()
        .route(
            "/panic",
            on_get(|| async {
                if true {
                    panic!("a broken handler")
                }
            }),
        )
        .layer(obs.http_layer());
    let outcome = tokio::spawn(async move { get(&app, "/panic").await }).await;
    assert!(outcome.is_err_and(|e| e.is_panic()));
    assert_eq!(counts(&obs), (0, 1, 1, 0));
    let line = &series(&obs, ABORTED).await[0];
    assert!(line.contains("cause=\"panic\"") && line.contains("/panic"), "{line}");
}

#[tokio::test]
async fn a_panic_is_told_from_an_abort_also_where_the_call_itself_panics() {
    let obs = open();
    let broken = |_: Request<Body>| -> std::future::Ready<Result<Response<Body>, Infallible>> {
        panic!("a broken service")
    };
    let service = obs.http_layer().layer(tower::service_fn(broken));
    let outcome = tokio::spawn(service.oneshot(request("GET", "/"))).await;
    assert!(outcome.is_err_and(|e| e.is_panic()));
    assert_eq!(counts(&obs), (0, 1, 1, 0));
}

#[tokio::test]
async fn a_long_body_ends_the_request_when_it_ends() {
    let obs = open();
    let app: Router = Router::new()
        .route("/", on_get(|| async { streaming(vec![Ok("one"), Ok("two")]) }))
        .layer(obs.http_layer());
    let response = app.clone().oneshot(request("GET", "/")).await.unwrap();
    assert_eq!(counts(&obs), (0, 0, 0, 1), "the head alone is not the end");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "onetwo");
    assert_eq!(counts(&obs), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_body_dropped_in_the_middle_is_an_abort_of_the_body() {
    let obs = open();
    let app: Router = Router::new()
        .route("/", on_get(|| async { streaming(vec![Ok("one"), Ok("two")]) }))
        .layer(obs.http_layer());
    let mut response = app.clone().oneshot(request("GET", "/")).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "one");
    drop(response);
    assert_eq!(counts(&obs), (0, 0, 1, 0));
    assert!(series(&obs, ABORTED).await[0].contains("phase=\"body\""));
}

#[tokio::test]
async fn a_body_that_breaks_is_an_error() {
    let obs = open();
    let app: Router = Router::new()
        .route("/", on_get(|| async { streaming(vec![Ok("one"), Err("disk gone")]) }))
        .layer(obs.http_layer());
    let response = app.clone().oneshot(request("GET", "/")).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(counts(&obs), (1, 1, 0, 0));
}

#[tokio::test]
async fn a_server_that_stops_at_the_announced_length_has_seen_the_end() {
    let obs = open();
    // Does not say by itself that it has ended.
    let text: &'static str = "x".repeat(100_000).leak();
    let big = move || async move { Response::new(Body::new(Slow(vec![Ok(text)], Some(100_000)))) };
    let app: Router = Router::new().route("/", on_get(big)).layer(obs.http_layer());
    let mut response = app.clone().oneshot(request("GET", "/")).await.unwrap();
    assert_eq!(counts(&obs), (0, 0, 0, 1), "too big to leave with its head");
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(counts(&obs), (1, 0, 0, 0), "hyper does not poll again");
    drop(response);
    assert_eq!(counts(&obs), (1, 0, 0, 0));
}

#[tokio::test]
async fn head_requests_and_event_streams_end_with_their_head() {
    let obs = open();
    let events = || async {
        let mut response = streaming(vec![Ok("data: 1\n\n")]);
        let kind = "text/event-stream; charset=utf-8".parse().unwrap();
        response.headers_mut().insert("content-type", kind);
        response
    };
    let app: Router = Router::new()
        .route("/events", on_get(events))
        .route("/stream", on_get(|| async { streaming(vec![Ok("one")]) }))
        .layer(obs.http_layer());
    drop(app.clone().oneshot(request("HEAD", "/stream")).await.unwrap());
    drop(app.clone().oneshot(request("GET", "/events")).await.unwrap());
    assert_eq!(counts(&obs), (2, 0, 0, 0));
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_on_a_real_server() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let obs = open();
    let (entered, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let wait = move || {
        let entered = entered.clone();
        async move {
            entered.send(()).unwrap();
            std::future::pending::<()>().await;
        }
    };
    let app = Router::new().route("/wait", on_get(wait)).layer(obs.http_layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut client = tokio::net::TcpStream::connect(addr).await.unwrap();
    client.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    seen.recv().await.unwrap();
    assert_eq!(counts(&obs), (0, 0, 0, 1));
    client.shutdown().await.unwrap();
    // The server hangs up only after it has dropped the handler.
    assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0);
    let gone = async {
        while counts(&obs).3 > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    assert_eq!(counts(&obs), (0, 0, 1, 0));
    server.abort();
}
