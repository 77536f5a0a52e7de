//! Figures for operators, on an address of their own: clients have no business with them.

use axum::routing::get;
use axum::{Json, Router};
use escala_cache::http::HttpCache;
use escala_cluster::Drain;
use serde_json::json;

/// `GET /stats`: the HTTP cache, the layers below it, connections and requests. `POST /drain`: ends the
/// proxy as SIGTERM does, `GET /drain` says how far that is.
pub(super) fn router(cache: HttpCache, drain: Drain) -> Router {
    let ending = drain.router();
    let stats = async move || {
        Json(json!({
            "http": cache.stats(),
            "cache": cache.cache().stats(),
            "server": drain.stats(),
        }))
    };
    Router::new().route("/stats", get(stats)).merge(ending)
}
