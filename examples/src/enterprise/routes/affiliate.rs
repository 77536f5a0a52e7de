//! Affiliate reports.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};

use super::number;
use crate::enterprise::app::App;
use crate::enterprise::domain::AffiliateReport;
use crate::enterprise::problem::Problem;

pub(in crate::enterprise) fn routes() -> Router<App> {
    Router::new().route("/api/affiliate/{user}/report", get(report).post(rebuild))
}

async fn report(
    State(app): State<App>,
    Path(user): Path<String>,
) -> Result<Json<Arc<AffiliateReport>>, Problem> {
    Ok(Json(app.report(number("user", &user)?).await?))
}

/// Accepted now, computed in the background lane.
async fn rebuild(
    State(app): State<App>,
    Path(user): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let user = number("user", &user)?;
    app.rebuild_report(user).await?;
    let location = format!("/api/affiliate/{user}/report");
    let answer = Json(serde_json::json!({ "user": user, "status": "accepted" }));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], answer))
}
