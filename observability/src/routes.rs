//! The endpoints. Each answers from what is already known; none waits for a dependency.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Observability;
use crate::health::{Group, MEDIA_TYPE};
use crate::observability::Inner;
use crate::page::Page;
use crate::{scrape, snapshot};

type Shared = State<Arc<Inner>>;

pub(crate) fn router(obs: &Observability) -> Router {
    let inner = Arc::clone(&obs.inner);
    let mut protected = Router::new()
        .route("/dashboard", get(dashboard))
        .route("/dashboard/memory", get(memory))
        .route("/dashboard/services", get(services));
    if inner.config.metrics_endpoint {
        protected = protected.route("/metrics", get(metrics));
    }
    let protected = protect(obs, protected);
    let mut open = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(startup));
    for prefix in ["/health", "/api/v1/health"] {
        open = open
            .route(prefix, get(health))
            .route(&format!("{prefix}/live"), get(live))
            .route(&format!("{prefix}/ready"), get(ready));
    }
    open.merge(protected).with_state(inner)
}

/// Puts the routes that are there so far behind the credentials.
pub(crate) fn protect<S>(obs: &Observability, routes: Router<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.route_layer(from_fn_with_state(Arc::clone(&obs.inner), authorize))
}

/// Asks nothing but the heartbeat: no check, no gate, no lock that a dependency could hold.
async fn live(State(inner): Shared, headers: HeaderMap) -> Response {
    let good = inner.alive(Instant::now());
    let mut body = json!({ "status": if good { "pass" } else { "fail" } });
    if detailed(&inner, &headers) {
        body["releaseId"] = json!(&*inner.version);
        body["serviceId"] = json!(&*inner.service);
        if !good {
            body["output"] = json!("the background task has not come round for too long");
        }
    }
    health_answer(good, &body)
}

async fn ready(State(inner): Shared, headers: HeaderMap) -> Response {
    health_group(&inner, &headers, Group::Ready)
}

async fn startup(State(inner): Shared, headers: HeaderMap) -> Response {
    health_group(&inner, &headers, Group::Startup)
}

async fn health(State(inner): Shared, headers: HeaderMap) -> Response {
    health_group(&inner, &headers, Group::Health)
}

async fn metrics(State(inner): Shared) -> Response {
    match scrape::text(&inner).await {
        Some(text) => respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered"),
    }
}

async fn dashboard(State(inner): Shared, headers: HeaderMap, uri: Uri) -> Response {
    let mut response = if wants_page(&headers, &uri) {
        let mut page = respond(StatusCode::OK, "text/html; charset=utf-8", Page::html());
        page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, inner.page.policy());
        page
    } else {
        json_answer(&snapshot::whole(&inner, Instant::now()))
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

async fn memory(State(inner): Shared) -> Response {
    json_answer(&snapshot::memory_page(&inner, Instant::now()))
}

async fn services(State(inner): Shared) -> Response {
    json_answer(&snapshot::services_page(&inner, Instant::now()))
}

/// Lets a request pass with the right credentials, or when none are configured.
async fn authorize(State(inner): Shared, request: Request, next: Next) -> Response {
    if detailed(&inner, request.headers()) {
        return next.run(request).await;
    }
    let mut answer = problem(StatusCode::UNAUTHORIZED, "user and password are needed");
    let challenge = HeaderValue::from_static("Basic realm=\"operations\", charset=\"UTF-8\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

fn detailed(inner: &Inner, headers: &HeaderMap) -> bool {
    inner.credentials.as_ref().is_none_or(|credentials| credentials.admit(headers))
}

/// `?format=` decides; without it a client that names `text/html`, as browsers do, gets the page.
fn wants_page(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    match pairs.find_map(|pair| pair.strip_prefix("format=")) {
        Some(format) => format == "html",
        None => headers
            .get_all(header::ACCEPT)
            .iter()
            .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html"))),
    }
}

fn health_group(inner: &Inner, headers: &HeaderMap, group: Group) -> Response {
    let (good, body) = inner.health(group, detailed(inner, headers));
    health_answer(good, &body)
}

fn health_answer(good: bool, body: &Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond(status, MEDIA_TYPE, Bytes::from(body.to_string()))
}

fn json_answer(body: &Value) -> Response {
    respond(StatusCode::OK, "application/json", Bytes::from(body.to_string()))
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason();
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(),
        "detail": detail });
    respond(status, "application/problem+json", Bytes::from(body.to_string()))
}

/// Nothing here may be stored, sniffed or framed.
fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
