//! For operators, on an address of their own: clients have no business with it.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use escala_cluster::Drain;
use serde_json::json;

use super::snapshot::Current;

/// `GET /healthz`: 200, or 503 once the gateway ends. `GET /stats`: groups, servers, connections, and
/// what became of the last file. `POST /drain`: ends the gateway as SIGTERM does, `GET /drain` says how
/// far that is.
pub(super) fn router(current: Arc<Current>, drain: Drain) -> Router {
    let (draining, ending) = (drain.clone(), drain.router());
    let health = async move || match draining.is_draining() {
        false => (StatusCode::OK, "ok\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    let stats = async move || {
        let file = current.loads.lock().clone();
        Json(json!({ "file": file, "upstreams": current.groups(), "server": drain.stats() }))
    };
    Router::new().route("/healthz", get(health)).route("/stats", get(stats)).merge(ending)
}
