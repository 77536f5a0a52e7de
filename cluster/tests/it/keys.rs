//! Circuits by route, host, header and extension, in axum's routers and around mocks.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Extension, Router};
use escala_cluster::{
    BreakerLayer, BreakerRegistry, ExtensionKey, HashedKey, HeaderKey, HostKey, KeyOf, Open,
    RegistryConfig, RouteKey,
};
use http::{HeaderName, Request, StatusCode};
use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, ServiceExt};
use tower_test::mock;

use crate::states::config;

fn registry<K: std::hash::Hash + Eq + std::fmt::Display>(name: &str) -> BreakerRegistry<K> {
    BreakerRegistry::new(name, RegistryConfig::default().breaker(config())).expect("valid")
}

async fn status(router: &Router, request: Request<Body>) -> StatusCode {
    router.clone().oneshot(request).await.expect("infallible").status()
}

fn to(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("valid")
}

/// A bit for each route that fails.
fn twenty_routes(failing: &Arc<AtomicU64>) -> Router {
    (0..20).fold(Router::new(), |router, route| {
        let failing = Arc::clone(failing);
        let handler = async move |Path(_): Path<String>| {
            let fails = failing.load(Ordering::SeqCst) >> route & 1 == 1;
            if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
        };
        router.route(&format!("/{route}/{{id}}"), get(handler))
    })
}

#[tokio::test(start_paused = true)]
async fn a_registry_by_route_keeps_a_circuit_for_each_of_twenty() {
    let (routes, failing) = (registry("routes"), Arc::new(AtomicU64::new(1 << 7)));
    let layer = BreakerLayer::http_keyed(routes.clone(), RouteKey);
    // Both ways of putting it on are the same, and one layer is one registry.
    for router in
        [twenty_routes(&failing).route_layer(layer.clone()), twenty_routes(&failing).layer(layer)]
    {
        for call in 0..10 {
            for route in 0..20 {
                let expected = match (route, call) {
                    (7, _) if routes.get("/7/{id}").is_some_and(|it| !it.state().is_closed()) => {
                        503
                    }
                    (7, _) => 500,
                    _ => 200,
                };
                // Another id is the same route.
                let answer = status(&router, to(&format!("/{route}/{call}"))).await;
                assert_eq!(answer, expected, "{route} {call}");
            }
        }
        assert_eq!(status(&router, to("/nowhere")).await, 404);
    }
    let stats = routes.stats();
    assert_eq!((stats.keys, stats.open, stats.created_total), (20, 1, 20));
    assert_eq!((stats.failed_total, stats.rejected_total), (5, 15));
    assert_eq!(stats.named[0].name, "routes//7/{id}");
    // Only `layer` sees what no route has matched, and lets it through.
    assert_eq!(stats.keyless_total, 1);
}

#[tokio::test(start_paused = true)]
async fn tenants_are_told_apart_by_what_a_layer_outside_has_found() {
    #[derive(Clone)]
    struct Tenant {
        name: String,
    }
    let tenants = registry("tenants");
    let key = ExtensionKey::new(|tenant: &Tenant| tenant.name.as_str());
    let failing = async |Extension(tenant): Extension<Tenant>| match tenant.name.as_str() {
        "acme" => StatusCode::BAD_GATEWAY,
        _ => StatusCode::OK,
    };
    let router = Router::new()
        .route("/", post(failing))
        .layer(BreakerLayer::http_keyed(tenants.clone(), key));
    let by = |name: &str| {
        let request = Request::post("/").extension(Tenant { name: name.to_owned() });
        request.body(Body::empty()).expect("valid")
    };
    for _ in 0..5 {
        assert_eq!(status(&router, by("acme")).await, 502);
    }
    assert_eq!(status(&router, by("acme")).await, 503);
    assert_eq!(status(&router, by("other")).await, 200);
    assert_eq!(tenants.stats().named[0].name, "tenants/acme");
}

#[tokio::test(start_paused = true)]
async fn the_value_of_a_header_is_a_key_and_is_shown_nowhere() {
    let clients: BreakerRegistry<HashedKey> = registry("clients");
    let name = HeaderName::from_static("x-api-key");
    let layer = BreakerLayer::http_keyed(clients.clone(), HeaderKey::new(name));
    let fails = async || StatusCode::INTERNAL_SERVER_ERROR;
    let router = Router::new().route("/", get(fails)).layer(layer.clone());
    let by =
        |key: &str| Request::get("/").header("x-api-key", key).body(Body::empty()).expect("valid");
    for _ in 0..5 {
        assert_eq!(status(&router, by("s3cret")).await, 500);
    }
    assert_eq!(status(&router, by("s3cret")).await, 503);
    assert_eq!(status(&router, by("another")).await, 500);
    assert_eq!(status(&router, to("/")).await, 500);
    let shown = format!("{:?} {layer:?} {:?}", clients.stats(), clients.breakers(10));
    assert!(!shown.contains("s3cret"), "{shown}");
    assert_eq!((clients.stats().keys, clients.stats().keyless_total), (2, 1));
}

#[test]
fn two_layers_by_one_header_mean_the_same_circuits() {
    let name = HeaderName::from_static("x-api-key");
    let (first, second) = (HeaderKey::new(name.clone()), HeaderKey::new(name));
    let request = Request::get("/").header("x-api-key", "s3cret").body(()).expect("valid");
    assert!(first.key_of(&request).is_some());
    assert_eq!(first.key_of(&request), second.key_of(&request));
}

#[test]
fn a_host_is_its_name_and_port_in_lower_case() {
    let long = "a".repeat(300);
    for (uri, header, key) in [
        ("http://api.example/x", None, Some("api.example")),
        ("http://API.Example:8080/x", None, Some("api.example:8080")),
        ("http://user:secret@api.example/", None, Some("api.example")),
        ("http://api.example/", Some("other.example"), Some("api.example")),
        ("/x", Some("Shop.example"), Some("shop.example")),
        ("/x", Some("me:secret@shop.example"), Some("shop.example")),
        ("/x", Some("[::1]:80"), Some("[::1]:80")),
        ("/x", None, None),
        ("/x", Some(""), None),
        ("/x", Some(long.as_str()), None),
    ] {
        let mut request = Request::get(uri);
        if let Some(header) = header {
            request = request.header("host", header);
        }
        let request = request.body(()).expect("valid");
        assert_eq!(HostKey.key_of(&request).as_deref(), key, "{uri} {header:?}");
    }
    let plain = Request::get("http://api.example/").body(()).expect("valid");
    assert!(matches!(HostKey.key_of(&plain), Some(Cow::Borrowed(_))));
}

#[tokio::test(start_paused = true)]
async fn around_a_client_a_key_is_a_circuit_and_the_service_is_called_ready() {
    let hosts = registry("hosts");
    let (inner, mut handle) = mock::pair::<Request<()>, &'static str>();
    let layer = BreakerLayer::keyed(hosts.clone(), HostKey);
    let mut client = mock::Spawn::new(layer.layer(inner));
    let get = |uri: &str| Request::get(uri).body(()).expect("valid");
    handle.allow(0);
    assert_pending!(client.poll_ready());
    handle.allow(100);
    for _ in 0..5 {
        assert_ready_ok!(client.poll_ready());
        let call = client.call(get("http://a.example/"));
        handle.next_request().await.expect("arrives").1.send_error("refused");
        assert!(!call.await.expect_err("inner").is::<Open>());
    }
    // Rejected with the readiness kept: the next call uses it.
    assert_ready_ok!(client.poll_ready());
    assert!(client.call(get("http://a.example/")).await.expect_err("open").is::<Open>());
    let call = client.call(get("http://b.example/"));
    handle.next_request().await.expect("arrives").1.send_response("b");
    assert_eq!(call.await.expect("through"), "b");
    let stats = hosts.stats();
    assert_eq!((stats.keys, stats.open, stats.rejected_total), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn keys_fallback_and_end_of_body_go_together() {
    use futures_util::stream;

    let routes = registry("routes");
    let broken = async || Body::from_stream(stream::iter([Ok("half"), Err("connection reset")]));
    let cached = tower::service_fn(async |_: Request<Body>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from("old")))
    });
    let layer =
        BreakerLayer::http_keyed(routes.clone(), RouteKey).fallback(cached).judge_at_end_of_body();
    let router =
        Router::new().route("/bad", get(broken)).route("/good", get(async || "new")).layer(layer);
    let read = async |path| {
        let response = router.clone().oneshot(to(path)).await.expect("infallible");
        axum::body::to_bytes(response.into_body(), 100).await
    };
    for _ in 0..5 {
        assert!(read("/bad").await.is_err());
        assert_eq!(read("/good").await.expect("well"), "new");
    }
    assert_eq!(read("/bad").await.expect("the fallback"), "old");
    assert_eq!(read("/good").await.expect("well"), "new");
}
