//! `/drain`: the drain begun by a request.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use escala_cluster::{Drain, DrainEnd, serve_management};
use serde_json::Value;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::client::{Client, Server, config, soon};

async fn ask(router: &Router, method: &str, token: Option<&str>) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri("/drain");
    let request = match token {
        Some(token) => request.header("authorization", token),
        None => request,
    };
    let request = request.body(Body::empty()).expect("valid");
    let answer = router.clone().oneshot(request).await.expect("infallible");
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 16).await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_begins_the_drain_and_says_what_will_happen() {
    let lame_duck = Duration::from_secs(600);
    let server = Server::start(config().lame_duck(lame_duck)).await;
    let router: Router = server.drain.router();
    let (status, plan) = ask(&router, "GET", None).await;
    assert_eq!((status, &plan["state"]), (StatusCode::OK, &Value::from("serving")));
    assert_eq!((&plan["seconds_until_close"], &plan["draining"]), (&Value::Null, &0.into()));
    assert!(!server.drain.is_draining());

    let _upgraded = server.upgraded().await;
    let _job = server.drain.job("a \"quoted\"\n name");
    for _ in 0..2 {
        let (status, plan) = ask(&router, "POST", None).await;
        assert_eq!((status, &plan["state"]), (StatusCode::ACCEPTED, &Value::from("lame_duck")));
        let seconds = |name: &str| plan[name].as_f64().expect("a number");
        assert!((500.0..=600.0).contains(&seconds("seconds_until_close")), "{plan}");
        let rest = seconds("seconds_until_cut") - seconds("seconds_until_close");
        assert!((rest - 600.0).abs() < 1.0, "{plan}");
        assert_eq!((&plan["connections_upgraded"], &plan["jobs_running"]), (&1.into(), &1.into()));
        let waiting = plan["waiting_for"].as_array().expect("a list");
        let waiting: Vec<_> = waiting.iter().map(|name| name.as_str().expect("text")).collect();
        assert!(waiting[0].starts_with("upgraded GET /echo ("), "{waiting:?}");
        assert!(waiting[1].contains("\\\"quoted\\\"\\n name"), "{waiting:?}");
    }
    server.drain.abort();
    assert_eq!(ask(&router, "GET", None).await.1["state"], "cut");
    assert_eq!(server.ended().await.end, DrainEnd::Aborted);
}

#[tokio::test]
async fn a_token_keeps_others_out() {
    let drain = Drain::new(config());
    let router: Router = drain.router_with_token("sesame");
    for wrong in [None, Some("sesame"), Some("Bearer sesam"), Some("Bearer sesame2"), Some("Basic")]
    {
        for method in ["GET", "POST"] {
            assert_eq!(ask(&router, method, wrong).await.0, StatusCode::UNAUTHORIZED, "{wrong:?}");
        }
    }
    assert!(!drain.is_draining());
    let nobody: Router = drain.router_with_token("");
    assert_eq!(ask(&nobody, "POST", Some("Bearer ")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&router, "GET", Some("bearer sesame")).await.0, StatusCode::OK);
    assert_eq!(ask(&router, "POST", Some("Bearer sesame")).await.0, StatusCode::ACCEPTED);
    assert!(drain.is_draining());
    assert_eq!(ask(&router, "DELETE", Some("Bearer sesame")).await.0.as_u16(), 405);
}

#[tokio::test]
async fn a_page_of_another_origin_begins_no_drain() {
    let drain = Drain::new(config());
    for router in [drain.router(), drain.router_with_token("sesame")] {
        let post = async |name: &str, value: &str| {
            let request = Request::builder().method("POST").uri("/drain").header(name, value);
            let request = request.header("authorization", "Bearer sesame").body(Body::empty());
            let router: Router = router.clone();
            router.oneshot(request.expect("valid")).await.expect("infallible").status()
        };
        for (name, value) in [
            ("origin", "https://example.com"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(post(name, value).await, StatusCode::FORBIDDEN, "{name}: {value}");
        }
    }
    assert!(!drain.is_draining());
    // A page that the port itself serves, which says its origin as well.
    let request = Request::builder().method("POST").uri("/drain");
    let request = request.header("origin", "http://here").header("sec-fetch-site", "same-origin");
    let router: Router = drain.router();
    let answer = router.oneshot(request.body(Body::empty()).expect("valid")).await;
    assert_eq!(answer.expect("infallible").status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_management_port_says_what_is_left_until_nothing_is() {
    let server = Server::start(config()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (router, drain) = (server.drain.router(), server.drain.clone());
    let management = tokio::spawn(async move { serve_management(listener, router, &drain).await });
    let job = server.drain.job("the nightly report");
    let begun = Client::connect(address).await.post("/drain").await;
    assert!(begun.head.starts_with("HTTP/1.1 202"), "{}", begun.head);
    server.refuses().await;
    let shown = Client::connect(address).await.get("/drain").await.body;
    assert!(shown.contains("closing") && shown.contains("the nightly report"), "{shown}");
    drop(job);
    assert_eq!(server.ended().await.end, DrainEnd::Finished);
    soon("the end", management).await.expect("no panic").expect("served");
}
