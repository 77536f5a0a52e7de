//! Who may read what, and in which form.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::routing::get as on_get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use escala_observability::{Credentials, Observability, ObservabilityConfig};
use sha2::{Digest as _, Sha256};

use super::{Answer, builder, get, open, send};

const PROTECTED: [&str; 4] = ["/metrics", "/dashboard", "/dashboard/memory", "/dashboard/services"];

fn guarded() -> Observability {
    builder().credentials(Some(Credentials::new("ops", "s3cret"))).build().unwrap()
}

async fn with(obs: &Observability, path: &str, headers: &[(header::HeaderName, &str)]) -> Answer {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    send(&obs.router(), request.body(Body::empty()).unwrap()).await
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

#[tokio::test]
async fn protected_pages_ask_for_credentials() {
    let obs = guarded();
    for path in PROTECTED {
        for wrong in ["", "Bearer x", &basic("ops:wrong"), &basic("root:s3cret"), "Basic ?"] {
            let answer = with(&obs, path, &[(header::AUTHORIZATION, wrong)]).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {wrong}");
            let challenge = answer.header(header::WWW_AUTHENTICATE);
            assert_eq!(challenge, "Basic realm=\"operations\", charset=\"UTF-8\"");
            assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json");
            assert_eq!(answer.json()["status"], 401);
        }
        let right = basic("ops:s3cret");
        let answer = with(&obs, path, &[(header::AUTHORIZATION, &right)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn pages_of_the_application_can_share_the_credentials() {
    let obs = guarded();
    let pages = Router::new().route("/pool/stats", on_get(|| async { "fine" }));
    let app: Router = Router::new()
        .route("/", on_get(|| async { "open" }))
        .merge(obs.protect(pages))
        .fallback(|| async { StatusCode::NOT_FOUND });
    for (path, status) in [
        ("/pool/stats", StatusCode::UNAUTHORIZED),
        ("/", StatusCode::OK),
        ("/nothing", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(get(&app, path).await.status, status, "{path}");
    }
    let request = Request::builder()
        .uri("/pool/stats")
        .header(header::AUTHORIZATION, basic("ops:s3cret"))
        .body(Body::empty());
    assert_eq!(send(&app, request.unwrap()).await.text, "fine");
}

#[tokio::test]
async fn the_metrics_endpoint_can_be_left_out() {
    let config = ObservabilityConfig::default().metrics_endpoint(false);
    let obs = builder().config(config).build().unwrap();
    assert_eq!(get(&obs.router(), "/metrics").await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&obs.router(), "/dashboard").await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_credentials_everything_is_open() {
    let obs = open();
    for path in PROTECTED {
        assert_eq!(get(&obs.router(), path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn nothing_is_stored_sniffed_or_framed() {
    let obs = open();
    for path in PROTECTED.into_iter().chain(["/livez", "/readyz", "/health"]) {
        let answer = get(&obs.router(), path).await;
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store", "{path}");
        assert_eq!(answer.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
        assert_eq!(answer.header(header::X_FRAME_OPTIONS), "DENY", "{path}");
    }
}

#[tokio::test]
async fn the_page_goes_to_browsers_and_json_to_programs() {
    let obs = open();
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (path, accept, kind) in [
        ("/dashboard", browser, "text/html; charset=utf-8"),
        ("/dashboard", "*/*", "application/json"),
        ("/dashboard", "application/json", "application/json"),
        ("/dashboard?format=json", browser, "application/json"),
        ("/dashboard?x=1&format=html", "*/*", "text/html; charset=utf-8"),
    ] {
        let answer = with(&obs, path, &[(header::ACCEPT, accept)]).await;
        assert_eq!(answer.header(header::CONTENT_TYPE), kind, "{path} {accept}");
        assert_eq!(answer.header(header::VARY), "accept");
    }
    assert_eq!(
        get(&obs.router(), "/dashboard").await.header(header::CONTENT_TYPE),
        "application/json",
        "without an Accept header it is a program"
    );
}

#[tokio::test]
async fn the_policy_allows_the_pages_own_style_and_script_and_nothing_else() {
    let obs = open();
    let answer = with(&obs, "/dashboard", &[(header::ACCEPT, "text/html")]).await;
    let policy = answer.header(header::CONTENT_SECURITY_POLICY);
    for (tag, directive) in [("style", "style-src"), ("script", "script-src")] {
        let inside = answer.text.split(&format!("<{tag}>")).nth(1).unwrap();
        let inside = inside.split(&format!("</{tag}>")).next().unwrap();
        let digest = STANDARD.encode(Sha256::digest(inside.as_bytes()));
        assert!(policy.contains(&format!("{directive} 'sha256-{digest}'")), "{policy}");
    }
    for part in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[tokio::test]
async fn the_dashboards_json_has_the_documented_fields() {
    let obs = open();
    obs.source("queue", |emit| {
        emit("waiting", &[("lane", "high")], 3.0);
        emit("done_total", &[("lane", "high")], 1_724.0);
    });
    let json = get(&obs.router(), "/dashboard").await.json();
    assert_eq!(json["service"], "shop");
    assert_eq!(json["version"], "1.2.3");
    assert_eq!(json["environment"], "test");
    assert_eq!(json["uptime"]["text"], "0s");
    assert!(json["uptime"]["seconds"].is_u64());
    assert!(json["timestamp"].as_str().is_some_and(|t| t.ends_with('Z') && t.contains('T')));
    assert_eq!(json["status"], "pass");
    assert_eq!(json["score"]["value"], 100.0);
    for (part, field) in [
        ("memory", "used_bytes"),
        ("memory", "limit_bytes"),
        ("memory", "process_resident_bytes"),
        ("cpu", "cores"),
        ("process", "threads"),
        ("traffic", "requests_total"),
        ("traffic", "requests_per_second"),
        ("traffic", "active"),
    ] {
        assert!(json[part][field].is_number(), "{part}.{field}: {}", json[part]);
    }
    for field in ["mean_ms", "p50_ms", "p90_ms", "p99_ms", "error_rate_percent"] {
        assert!(json["traffic"][field].is_null(), "no traffic, no {field}");
    }
    assert_eq!(json["health"]["checks"].as_array().map(Vec::len), Some(0));
    assert_eq!(json["alerts"].as_array().map(Vec::len), Some(0));
    assert_eq!(json["thresholds"]["cpu"]["warning"], 70.0);
    assert_eq!(json["signals"].as_array().map(Vec::len), Some(6));
    assert_eq!(json["history"]["capacity"], 60);
    let figure = &json["sources"]["queue"][1];
    assert_eq!(figure["name"], "done_total");
    assert_eq!(figure["labels"]["lane"], "high");
    assert_eq!(figure["value"], 1_724.0);
    // `snapshot()` is the same document.
    assert_eq!(obs.snapshot()["sources"], json["sources"]);
    let services = get(&obs.router(), "/dashboard/services").await.json();
    assert_eq!(services["services"], json["sources"]);
    let memory = get(&obs.router(), "/dashboard/memory").await.json();
    assert!(memory["memory"]["used_bytes"].is_number());
}

#[tokio::test]
async fn bad_names_and_credentials_are_refused_with_their_rule() {
    for (result, text) in [
        (Observability::builder("").build(), "service: \"\" must be 1 to 128 bytes"),
        (builder().environment("a\nb").build(), "environment: \"a\\nb\" must be 1 to 128 bytes"),
        (
            builder().credentials(Some(Credentials::new("a:b", "hunter2"))).build(),
            "credentials.user: (hidden) must not be empty nor hold a colon",
        ),
    ] {
        let error = result.expect_err(text).to_string();
        assert!(error.starts_with(text), "{error}");
    }
    assert!(!format!("{:?}", guarded()).contains("s3cret"));
}
