//! Tokens that travel with requests and responses, through an axum router.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Router, body::to_bytes};
use escala_replicas::{
    Keys, Replicas, RouteError, SessionConfig, SessionHandle, SessionLayer, Token,
};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, RETRY_AFTER, SET_COOKIE};
use http::{Request, Response, StatusCode};
use tower::{Service, ServiceExt};
use tower_layer::Layer;

use crate::documented;

fn keys() -> Keys {
    Keys::new(&[7; 32]).unwrap()
}

fn written() -> Token {
    Token::new(1, 2, 3, SystemTime::now())
}

/// Reads answer the position that the session must see; writes take the cache directive to answer.
fn app(layer: SessionLayer) -> Router {
    let read = async |session: SessionHandle| {
        let position = session.session().token().map_or(0, |token| token.position());
        ([(CACHE_CONTROL, "public, max-age=60")], position.to_string())
    };
    let write = async |session: SessionHandle, directive: String| {
        session.wrote(written());
        let mut response = StatusCode::CREATED.into_response();
        if !directive.is_empty() {
            response.headers_mut().insert(CACHE_CONTROL, directive.try_into().unwrap());
        }
        response
    };
    Router::new().route("/", get(read).post(write)).layer(layer)
}

async fn send(app: &Router, request: http::request::Builder, body: &str) -> Response<Body> {
    app.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1_024).await.unwrap().to_vec()).unwrap()
}

fn header(response: &Response<Body>, name: impl http::header::AsHeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The position that a request with these cookies reads.
async fn position(app: &Router, cookies: &str) -> String {
    text(send(app, Request::get("/").header(COOKIE, cookies), "").await).await
}

#[tokio::test]
async fn a_client_brings_back_what_its_write_gave_it() {
    let layer = SessionLayer::new(keys());
    let app = app(layer.clone());
    let response = send(&app, Request::post("/"), "").await;
    let cookie = header(&response, SET_COOKIE).to_owned();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Max-Age=30; Path=/; HttpOnly; SameSite=Lax; Secure");
    assert!(pair.starts_with("escala_token=") && !pair.contains('"'), "{pair}");
    // As browsers send it, among others, in lines of their own, and quoted.
    let quoted = pair.replacen('=', "=\"", 1) + "\"";
    for cookies in [pair, &format!("a=b; {pair}"), &format!("a; ;{pair} ; c=\"d\""), &quoted] {
        assert_eq!(position(&app, cookies).await, "3", "{cookies}");
    }
    let lines = Request::get("/").header(COOKIE, "a=b").header(COOKIE, pair);
    assert_eq!(text(send(&app, lines, "").await).await, "3");
    let stats = layer.stats();
    assert_eq!((stats.accepted_total, stats.issued_total, stats.refused_total), (5, 1, 0));
    assert_eq!(position(&app, "").await, "0");
}

#[tokio::test]
async fn a_read_hands_out_nothing_and_stays_cacheable() {
    let app = app(SessionLayer::new(keys()));
    let cookie = format!("escala_token={}", keys().seal(&written()));
    let response = send(&app, Request::get("/").header(COOKIE, cookie), "").await;
    assert_eq!(header(&response, SET_COOKIE), "");
    assert_eq!(header(&response, CACHE_CONTROL), "public, max-age=60");
    assert_eq!(header(&response, "x-escala-node"), "");
}

#[tokio::test]
async fn what_carries_a_token_is_in_no_shared_cache() {
    let app = app(SessionLayer::new(keys()));
    for (given, sent) in [
        ("", "no-store"),
        ("public, max-age=60", "no-store"),
        ("private=\"set-cookie\"", "no-store"),
        ("max-age=60, Private", "max-age=60, Private"),
        ("no-store", "no-store"),
    ] {
        let response = send(&app, Request::post("/"), given).await;
        assert_eq!(header(&response, CACHE_CONTROL), sent, "{given}");
    }
}

#[tokio::test]
async fn what_no_key_sealed_is_counted_and_ignored() {
    let layer = SessionLayer::new(keys());
    let app = app(layer.clone());
    let cookie = |text: &str| format!("escala_token={text}");
    let foreign = Keys::new(&[8; 32]).unwrap().seal(&written());
    let refused = [&foreign, "", "x", &"A".repeat(58), &"A".repeat(5_000), "\"", "\""];
    for text in refused {
        assert_eq!(position(&app, &cookie(text)).await, "0");
    }
    let bytes = Request::get("/").header(COOKIE, b"escala_token=\xFF\xFE".as_slice());
    assert_eq!(text(send(&app, bytes, "").await).await, "0");
    let old = Token::new(1, 2, 3, SystemTime::now() - Duration::from_secs(31));
    assert_eq!(position(&app, &cookie(&keys().seal(&old))).await, "0");
    let stats = layer.stats();
    assert_eq!((stats.refused_total, stats.expired_total, stats.accepted_total), (8, 1, 0));

    // A good one counts among few bad ones, and nobody looks through thousands.
    let good = cookie(&keys().seal(&written()));
    assert_eq!(position(&app, &format!("{}; {good}", cookie("x"))).await, "3");
    let many = format!("{}{good}", "escala_token=x; ".repeat(1_000));
    assert_eq!(position(&app, &many).await, "0");
    assert_eq!(layer.stats().refused_total, 8 + 1 + 4);
}

#[tokio::test]
async fn a_header_carries_it_for_those_without_cookies() {
    let config = SessionConfig::default().without_cookie().header("X-Token");
    let app = app(SessionLayer::with_config(keys(), &config).unwrap());
    let response = send(&app, Request::post("/"), "").await;
    assert_eq!(header(&response, SET_COOKIE), "");
    assert_eq!(header(&response, CACHE_CONTROL), "no-store");
    let token = header(&response, "x-token").to_owned();
    let response = send(&app, Request::get("/").header("x-token", &token), "").await;
    assert_eq!(text(response).await, "3");
    assert_eq!(position(&app, &format!("escala_token={token}")).await, "0", "no cookie is taken");
}

#[tokio::test]
async fn settings_reach_the_cookie() {
    // A cookie lives no shorter than what is in it.
    for (millis, max_age) in [(5_000, 5), (1_900, 2)] {
        let life = Duration::from_millis(millis);
        let config = SessionConfig::default().cookie("t").header("t").life(life).secure(false);
        let app = app(SessionLayer::with_config(keys(), &config).unwrap());
        let response = send(&app, Request::post("/"), "").await;
        let token = header(&response, "t");
        let cookie = format!("t={token}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(header(&response, SET_COOKIE), cookie);
    }
}

#[test]
fn settings_keep_rules() {
    let default = SessionConfig::default();
    default.validate().unwrap();
    default.clone().cookie("__Host-t").validate().unwrap();
    for (config, error) in [
        (default.clone().cookie("a b"), "cookie"),
        (default.clone().cookie(""), "cookie"),
        (default.clone().header("a b"), "header"),
        (default.clone().without_cookie(), "header"),
        (default.clone().cookie("__Host-t").secure(false), "secure"),
        (default.clone().life(Duration::from_millis(999)), "life"),
        (default.clone().life(Duration::from_secs(3_601)), "life"),
    ] {
        assert_eq!(config.validate().unwrap_err().field, error);
        assert!(SessionLayer::with_config(keys(), &config).is_err());
    }
}

#[cfg(feature = "serde")]
#[test]
fn settings_come_from_a_file() {
    let config: SessionConfig =
        serde_json::from_str(r#"{"cookie": null, "header": "t", "life": "10s"}"#).unwrap();
    let expected = SessionConfig::default().without_cookie().header("t");
    assert_eq!(config, expected.life(Duration::from_secs(10)));
    assert!(serde_json::from_str::<SessionConfig>(r#"{"cooky": "t"}"#).is_err());
}

#[tokio::test]
async fn a_response_says_who_served_it_if_asked_to() {
    let db = documented(escala_replicas::Strategy::Weighted);
    let served = async move |session: SessionHandle| {
        let pick = session.read(&db).await?;
        Ok::<_, RouteError>(pick.to_string())
    };
    let config = SessionConfig::default().explain(true);
    let layer = SessionLayer::with_config(keys(), &config).unwrap();
    let app = Router::new().route("/", get(served)).layer(layer);
    let response = send(&app, Request::get("/"), "").await;
    assert_eq!(header(&response, "x-escala-node"), "replica-1");
    assert_eq!(header(&response, "x-escala-reason"), "weighted");
}

#[tokio::test]
async fn failures_are_problem_documents() {
    let db = Replicas::without_primary().replica("r", 1, "r").build().unwrap();
    let write = async move || db.write().map(|pick| pick.to_string());
    let read = async |_: SessionHandle| ();
    let app = Router::new().route("/", post(write).get(read));
    let refused = send(&app, Request::post("/"), "").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&refused, CONTENT_TYPE), "application/problem+json");
    assert_eq!(header(&refused, RETRY_AFTER), "1");
    let expected = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"no server can take this request at present"}"#;
    assert_eq!(text(refused).await, expected);
    let unlayered = send(&app, Request::get("/"), "").await;
    assert_eq!(unlayered.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(header(&unlayered, CONTENT_TYPE), "application/problem+json");
    assert_eq!(header(&unlayered, RETRY_AFTER), "");
}

#[tokio::test]
async fn readiness_and_errors_are_those_of_the_inner_service() {
    let layer = SessionLayer::new(keys());
    let (mock, mut server) = tower_test::mock::pair::<Request<()>, Response<()>>();
    let mut service = tokio_test::task::spawn(layer.layer(mock));
    server.allow(0);
    assert!(service.enter(|cx, mut inner| inner.poll_ready(cx)).is_pending());
    server.allow(1);
    assert!(service.enter(|cx, mut inner| inner.poll_ready(cx)).is_ready());
    let response = service.call(Request::new(()));
    let (request, reply) = server.next_request().await.unwrap();
    let handle = request.extensions().get::<SessionHandle>().unwrap().clone();
    reply.send_error("broken");
    assert_eq!(response.await.unwrap_err().to_string(), "broken");
    // What is said after the response reaches no client.
    handle.wrote(written());
    assert_eq!(layer.stats().issued_total, 0);

    fn is_send<T: Send + Sync + 'static>(_: &T) {}
    is_send(&layer);
    is_send(&handle);
}
