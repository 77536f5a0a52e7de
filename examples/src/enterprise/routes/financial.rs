//! Balances, transfers and exchange rates.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use escala_replicas::SessionHandle;

use super::page::PERSONAL;
use super::{REPLAYED, at_least_one, keyed, number};
use crate::enterprise::app::App;
use crate::enterprise::domain::NewTransfer;
use crate::enterprise::problem::{Body, Problem};
use crate::enterprise::rates::{Currency, Quoted};

pub(in crate::enterprise) fn routes() -> Router<App> {
    Router::new()
        .route("/api/financial/balance/{user}", get(balance))
        .route("/api/financial/rates/{currency}", get(rate))
        .route("/api/financial/transfers", post(transfer))
}

async fn balance(
    State(app): State<App>,
    session: SessionHandle,
    Path(user): Path<String>,
) -> Result<Response, Problem> {
    let balance = app.balance(&session, number("user", &user)?).await?;
    Ok((PERSONAL, Json(balance)).into_response())
}

/// What a dollar is worth elsewhere, as a service outside says.
async fn rate(
    State(app): State<App>,
    Path(currency): Path<String>,
) -> Result<Json<Quoted>, Problem> {
    let currency = Currency::parse(&currency)?;
    let rates = app.rates.as_ref().ok_or_else(|| Problem::no_route("exchange rates"))?;
    Ok(Json(rates.quote(currency).await?))
}

async fn transfer(
    State(app): State<App>,
    session: SessionHandle,
    headers: HeaderMap,
    Body(transfer): Body<NewTransfer>,
) -> Result<Response, Problem> {
    at_least_one("from", transfer.from)?;
    at_least_one("to", transfer.to)?;
    at_least_one("amount_cents", transfer.amount_cents)?;
    if transfer.from == transfer.to {
        return Err(Problem::invalid("to", transfer.to, "must differ from \"from\""));
    }
    let done = app.transfer(&session, keyed(&headers, transfer)?).await?;
    Ok(match done.replayed {
        true => (StatusCode::OK, [REPLAYED], Json(done.value)).into_response(),
        false => (StatusCode::CREATED, Json(done.value)).into_response(),
    })
}
