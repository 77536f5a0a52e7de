//! `/drain`: the drain begun by a request.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use escala_cluster::{Drain, DrainEnd};
use serde_json::Value;
use tower::ServiceExt;

use crate::client::{Server, config};

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
