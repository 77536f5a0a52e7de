//! Quotes and orders.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::{REPLAYED, at_least_one, keyed, number, within};
use crate::enterprise::app::App;
use crate::enterprise::domain::{NewOrder, Order, Quote};
use crate::enterprise::problem::{Body, Problem};

const LONGEST_SYMBOL: usize = 12;
const MOST_PIECES: i64 = 1_000_000;

pub(in crate::enterprise) fn routes() -> Router<App> {
    Router::new()
        .route("/api/trading/quotes/{symbol}", get(quote))
        .route("/api/trading/orders", post(place_order))
        .route("/api/trading/orders/{id}", get(order))
}

async fn quote(
    State(app): State<App>,
    Path(symbol): Path<String>,
) -> Result<Json<Arc<Quote>>, Problem> {
    could_be(&symbol)?;
    Ok(Json(app.quote(&symbol).await?))
}

/// A name that no symbol can have reaches neither cache nor database.
fn could_be(symbol: &str) -> Result<(), Problem> {
    let plain = symbol.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match plain && (1..=LONGEST_SYMBOL).contains(&symbol.len()) {
        true => Ok(()),
        false => Err(Problem::absent("symbol", symbol)),
    }
}

async fn place_order(
    State(app): State<App>,
    headers: HeaderMap,
    Body(order): Body<NewOrder>,
) -> Result<Response, Problem> {
    at_least_one("user", order.user)?;
    could_be(&order.symbol)?;
    within("quantity", order.quantity, MOST_PIECES, "must be from 1 to 1000000")?;
    let done = app.place_order(keyed(&headers, order)?).await?;
    let location = format!("/api/trading/orders/{}", done.value.order.id);
    let answer = ([(header::LOCATION, location)], Json(done.value));
    Ok(match done.replayed {
        true => (StatusCode::OK, [REPLAYED], answer).into_response(),
        false => (StatusCode::CREATED, answer).into_response(),
    })
}

async fn order(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Order>, Problem> {
    Ok(Json(app.order(number("order", &id)?).await?))
}
