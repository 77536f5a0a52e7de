//! What the server says of itself, besides health, metrics and dashboard.

use std::sync::atomic::Ordering;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{delete, get};
use axum::{Json, Router};
use escala_replicas::postgres::Monitor;
use serde_json::{Value, json};

use crate::enterprise::app::App;
use crate::enterprise::domain::Audit;
use crate::enterprise::problem::Problem;
use crate::enterprise::settings::cpus;

pub(in crate::enterprise) fn routes(app: &App) -> Router<App> {
    let routes = Router::new()
        .route("/api/enterprise/cluster/status", get(cluster))
        .route("/api/enterprise/metrics", get(metrics))
        .route("/api/enterprise/queues/status", get(queues))
        .route("/api/enterprise/audit", get(audit))
        .route("/cache/stats", get(caches))
        .route("/pool/stats", get(pools));
    // The same credentials as the dashboard's: they tell the same things.
    app.obs.protect(routes).route("/cache/tags/{tag}", delete(remove_tag))
}

async fn cluster(State(app): State<App>) -> Json<Value> {
    let settings = &app.settings;
    let (min, max) = settings.workers();
    Json(json!({
        // This version is one process; the supervisor that makes it many is yet to come.
        "workers": { "running": 1, "min": min, "max": max },
        "cpus": cpus(),
        "scaling": {
            "mode": settings.scaling_mode,
            "up_above_percent": settings.scale_up_threshold,
            "down_below_percent": settings.scale_down_threshold,
        },
        "flags": {
            "USE_EXTERNAL_REDIS": settings.use_external_redis,
            "USE_EXTERNAL_LB": settings.use_external_lb,
            "USE_K8S_SCALING": settings.use_k8s_scaling,
            "USE_PROMETHEUS": settings.use_prometheus,
        },
        "database": app.db.stats(),
        "replication": app.monitor.as_ref().map(Monitor::stats),
        "sessions": app.sessions.stats(),
        "rate_limits": {
            "limits": app.limits.stats(),
            "redis": app.limits.store.as_ref().map(escala_cluster::RedisRateStore::stats),
        },
        "breakers": app.breaker_stats(),
        "health_score": app.obs.health_score(),
    }))
}

async fn metrics(State(app): State<App>) -> Json<Value> {
    Json(app.obs.snapshot())
}

async fn queues(State(app): State<App>) -> Json<escala_queue::QueueStats> {
    Json(app.queue.stats())
}

async fn audit(State(app): State<App>) -> Result<Json<Audit>, Problem> {
    Ok(Json(app.jobs_db()?.audit().await?))
}

async fn caches(State(app): State<App>) -> Json<Value> {
    let caches = &app.caches;
    Json(json!({
        "quotes": caches.quotes.stats(),
        "reports": caches.reports.stats(),
        "pages": { "http": caches.pages.stats(), "store": caches.pages.cache().stats() },
        // What the caches saved is what was asked for less this.
        "database_reads": app.database_reads.load(Ordering::Relaxed),
    }))
}

/// Takes everything with a tag out of every cache, in every process: for administrators who changed
/// the data by hand. `market`, `quote:S0001`, `catalogue`, `reports`, `affiliate:42`.
async fn remove_tag(
    State(app): State<App>,
    Path(tag): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    app.access.administrator(&headers)?;
    // Without Redis this process is clear now, and the others will be when Redis is back.
    let complete = app.remove_tag(&tag).await;
    Ok(if complete { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED })
}

async fn pools(State(app): State<App>) -> Json<Value> {
    let pools = app.nodes.iter();
    Json(pools.map(|(name, node)| ((*name).to_owned(), json!(node.stats()))).collect())
}
