//! Quotes, the catalogue and orders.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use escala_replicas::SessionHandle;
use serde::Deserialize;

use super::page::{self, PERSONAL, page};
use super::{REPLAYED, at_least_one, keyed, number, within};
use crate::enterprise::app::App;
use crate::enterprise::breakers::around_area;
use crate::enterprise::caches::{CATALOGUE_PAGE_KEYS, CATALOGUE_TTL, QUOTE_TTL, quote_page_keys};
use crate::enterprise::domain::{NewOrder, Order, QuoteList};
use crate::enterprise::problem::{Body, Problem};
use crate::enterprise::reads::now_ms;

const LONGEST_SYMBOL: usize = 12;
const MOST_PIECES: i64 = 1_000_000;
/// Most symbols of one list.
const MOST_SYMBOLS: usize = 50;

pub(in crate::enterprise) fn routes(app: &App) -> Router<App> {
    let breaker = around_area(&app.breakers.trading);
    // The cache outside of the breaker: it answers while the routes fail.
    let pages = Router::new()
        .route("/api/trading/quotes/{symbol}", get(quote))
        .route("/api/trading/symbols", get(catalogue))
        .route_layer(breaker.clone())
        .route_layer(page::layer(app));
    // Not as pages: nearly every list is another one, but their quotes are the same.
    let others = Router::new()
        .route("/api/trading/quotes", get(quotes))
        .route("/api/trading/orders", post(place_order))
        .route("/api/trading/orders/{id}", get(order))
        .route_layer(breaker);
    pages.merge(others)
}

async fn quote(
    State(app): State<App>,
    Path(symbol): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    could_be(&symbol)?;
    if app.access.is_administrator(&headers) {
        return Ok((PERSONAL, Json(app.quote_now(&symbol).await?)).into_response());
    }
    let found = app.quote(&symbol).await?;
    let dated = found.ok_or_else(|| Problem::absent("symbol", &symbol))?;
    // From its read on, not from now on: an old quote that stands in for a database that is away
    // must not become a page for another ten minutes.
    let age = Duration::from_millis(now_ms().saturating_sub(dated.read_ms));
    page(&dated.value, QUOTE_TTL.saturating_sub(age), &quote_page_keys(&symbol))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Symbols {
    /// Separated by commas.
    symbols: String,
}

async fn quotes(
    State(app): State<App>,
    query: Result<Query<Symbols>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Symbols { symbols }) =
        query.map_err(|error| Problem::malformed(error.body_text()))?;
    let names: Vec<String> = symbols.split(',').map(str::to_owned).collect();
    if names.len() > MOST_SYMBOLS {
        return Err(Problem::invalid("symbols", names.len(), "must be at most 50 symbols"));
    }
    // What can be no symbol reaches neither cache nor database.
    let possible: Vec<String> =
        names.iter().filter(|name| could_be(name).is_ok()).cloned().collect();
    let found = app.quotes(&possible).await?;
    let mut list = QuoteList { quotes: Vec::with_capacity(names.len()), unknown: Vec::new() };
    for name in names {
        match found.get(&name) {
            Some(dated) => list.quotes.push(dated.value.clone()),
            None => list.unknown.push(name),
        }
    }
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(list)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    /// The last symbol of the page before.
    #[serde(default)]
    after: String,
}

async fn catalogue(
    State(app): State<App>,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(After { after }) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    if !after.is_empty() {
        could_be(&after)?;
    }
    page(&app.catalogue(&after).await?, CATALOGUE_TTL, CATALOGUE_PAGE_KEYS)
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
    session: SessionHandle,
    headers: HeaderMap,
    Body(order): Body<NewOrder>,
) -> Result<Response, Problem> {
    at_least_one("user", order.user)?;
    could_be(&order.symbol)?;
    within("quantity", order.quantity, MOST_PIECES, "must be from 1 to 1000000")?;
    let done = app.place_order(&session, keyed(&headers, order)?).await?;
    let location = format!("/api/trading/orders/{}", done.value.order.id);
    let answer = ([(header::LOCATION, location)], Json(done.value));
    Ok(match done.replayed {
        true => (StatusCode::OK, [REPLAYED], answer).into_response(),
        false => (StatusCode::CREATED, answer).into_response(),
    })
}

async fn order(
    State(app): State<App>,
    session: SessionHandle,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let order: Order = app.order(&session, number("order", &id)?).await?;
    Ok((PERSONAL, Json(order)).into_response())
}
