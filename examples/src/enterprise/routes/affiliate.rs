//! Affiliate reports.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use escala_replicas::SessionHandle;

use super::number;
use super::page::PERSONAL;
use crate::enterprise::app::App;
use crate::enterprise::problem::Problem;

pub(in crate::enterprise) fn routes() -> Router<App> {
    Router::new().route("/api/affiliate/{user}/report", get(report).post(rebuild))
}

/// Cached as a value only: an answer about one person's income is no page for everybody.
async fn report(State(app): State<App>, Path(user): Path<String>) -> Result<Response, Problem> {
    let user = number("user", &user)?;
    let report = app.report(user).await?.ok_or_else(|| Problem::absent("user", user))?;
    Ok((PERSONAL, Json(report)).into_response())
}

/// Accepted now, computed in the background lane.
async fn rebuild(
    State(app): State<App>,
    session: SessionHandle,
    Path(user): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let user = number("user", &user)?;
    app.rebuild_report(&session, user).await?;
    let location = format!("/api/affiliate/{user}/report");
    let answer = Json(serde_json::json!({ "user": user, "status": "accepted" }));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], answer))
}
