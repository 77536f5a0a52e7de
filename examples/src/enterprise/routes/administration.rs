//! For administrators: all orders as a file, and a copy of the embedded database.

use std::panic::Location;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use escala_pool::{
    Acquire, LeaseHandle, LeasePool, PgLease, PgPool, PoolError, PoolLayer, RequestConfig,
    SqlitePool,
};
use escala_replicas::Replicas;
use http_body_util::channel::{Channel, Sender};
use serde_json::{Value, json};
use tower::util::option_layer;

use crate::enterprise::app::App;
use crate::enterprise::problem::Problem;
use crate::enterprise::store::{Node, Pieces, StoreError, copy_orders};

/// In it an administrator may say how long to wait: milliseconds, or as gRPC has it.
const TIMEOUT: &str = "x-request-timeout";
/// Where the copy of the embedded database stands, beside it.
const BACKUP: &str = "backup.sqlite";
/// Pieces on their way to a client that reads slowly.
const AHEAD: usize = 2;

/// Leases of the server that is the primary when one is asked for.
#[derive(Clone, Debug)]
pub(in crate::enterprise) struct PrimaryPool {
    db: Replicas<Node>,
    pools: Vec<(&'static str, PgPool)>,
}

impl LeasePool for PrimaryPool {
    type Lease = PgLease;

    async fn acquire_at(
        &self,
        acquire: Acquire,
        place: &'static Location<'static>,
    ) -> Result<PgLease, PoolError> {
        let primary = self.db.primary();
        let pool = self.pools.iter().find(|(name, _)| Some(*name) == primary.as_deref());
        match pool {
            Some((_, pool)) => pool.acquire_at(acquire, place).await,
            None => Err(PoolError::Connect(Arc::new(StoreError::NoNode))),
        }
    }
}

/// The right to a connection, with the deadline of the request. An embedded file has no connections.
pub(in crate::enterprise) fn leases(
    db: &Replicas<Node>,
    nodes: &[(&'static str, Node)],
) -> anyhow::Result<Option<PoolLayer<PrimaryPool>>> {
    let pool_of = |(name, node): &(&'static str, Node)| match node {
        Node::Postgres(server) => Some((*name, server.pool().clone())),
        Node::Sqlite(_) => None,
    };
    let pools: Vec<_> = nodes.iter().filter_map(pool_of).collect();
    if pools.is_empty() {
        return Ok(None);
    }
    let request = RequestConfig::default().header(TIMEOUT);
    Ok(Some(PoolLayer::new(PrimaryPool { db: db.clone(), pools }).config(request)?))
}

pub(in crate::enterprise) fn routes(app: &App) -> Router<App> {
    const ORDERS: &str = "/api/enterprise/orders.csv";
    match (&app.nodes[0].1, &app.leases) {
        (Node::Sqlite(pool), _) => {
            let (exported, copied) = (pool.clone(), pool.clone());
            Router::new()
                .route(
                    ORDERS,
                    get(async |State(app), headers| pieces(app, headers, exported).await),
                )
                .route(
                    "/api/enterprise/backup",
                    post(async |State(app), headers| backup(app, headers, copied).await),
                )
        }
        (Node::Postgres(_), leases) => {
            Router::new().route(ORDERS, get(copy)).route_layer(option_layer(leases.clone()))
        }
    }
}

/// The lease is acquired within the request's deadline, and only for who may have it.
async fn copy(
    State(app): State<App>,
    headers: HeaderMap,
    handle: LeaseHandle<PrimaryPool>,
) -> Result<Response, Problem> {
    app.access.administrator(&headers)?;
    let lease = match handle.acquire().await {
        Ok(lease) => lease,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let mut rows = copy_orders(lease).await?;
    Ok(csv(async move |mut to: Sender<Bytes, StoreError>| {
        while let Some(piece) = rows.next().await {
            match piece {
                // Whoever has left wants no more: the COPY is cancelled.
                Ok(piece) => {
                    if to.send_data(piece).await.is_err() {
                        return;
                    }
                }
                Err(error) => return to.abort(error.into()),
            }
        }
    }))
}

async fn pieces(app: App, headers: HeaderMap, pool: SqlitePool) -> Result<Response, Problem> {
    app.access.administrator(&headers)?;
    let mut pieces = Pieces::new(pool);
    Ok(csv(async move |mut to: Sender<Bytes, StoreError>| {
        loop {
            match pieces.next().await {
                Ok(Some(piece)) => {
                    if to.send_data(piece).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return to.abort(error),
            }
        }
    }))
}

/// An answer that is written as it is read. One that breaks off is cut, not ended.
fn csv<F>(write: impl FnOnce(Sender<Bytes, StoreError>) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (to, body) = Channel::new(AHEAD);
    tokio::spawn(write(to));
    let fields = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"orders.csv\""),
        (header::CACHE_CONTROL, "private, no-store"),
    ];
    (fields, Body::new(body)).into_response()
}

/// Copies the database while it is in use; the copy before stands until the new one is whole.
async fn backup(app: App, headers: HeaderMap, pool: SqlitePool) -> Result<Json<Value>, Problem> {
    app.access.administrator(&headers)?;
    let file = app.settings.data_dir.join(BACKUP);
    pool.backup(&file).await.map_err(StoreError::from)?;
    let bytes = std::fs::metadata(&file).map_or(0, |file| file.len());
    Ok(Json(json!({ "file": file, "bytes": bytes })))
}
