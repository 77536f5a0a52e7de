//! Answers that are the same for everybody, kept whole by the HTTP cache.

use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use escala_cache::http::{HttpCacheLayer, Policy};
use serde::Serialize;

use crate::enterprise::app::App;
use crate::enterprise::problem::Problem;

/// What tells our own cache how long (RFC 9213). Not `CDN-Cache-Control`: a CDN in front hears of no
/// purge, so it must not keep what only purges keep right.
const OUR_CONTROL: HeaderName = HeaderName::from_static("enterprise-cache-control");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// How long past its lifetime a page is served while its route fails or its breaker is open.
const STALE: Duration = Duration::from_secs(60 * 60);

/// Clients may keep it and must ask each time, which the entity tag makes cheap.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");
/// For one person, or about money: no cache at all.
pub(super) const PERSONAL: [(HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"))];

/// The HTTP cache in front of routes that answer with [`page`]s: a page of each tenant, and none for
/// administrators.
pub(super) fn layer(app: &App) -> HttpCacheLayer {
    let (admins, tenants) = (app.access.clone(), app.access.clone());
    HttpCacheLayer::new(app.caches.pages.clone())
        .policy(Policy::safe().targeted([OUR_CONTROL]).stale_if_error(STALE))
        .bypass(move |parts| admins.is_administrator(&parts.headers))
        .tenant(move |parts| tenants.tenant(&parts.headers))
}

/// An answer that may be kept for a time, unless one of its surrogate keys is purged. A time of zero:
/// it is not kept.
pub(super) fn page(
    content: &impl Serialize,
    lifetime: Duration,
    keys: &str,
) -> Result<Response, Problem> {
    let json = serde_json::to_vec(content).map_err(|_| Problem::internal())?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&json);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let control = match lifetime.as_secs() {
        0 => "no-store".to_owned(),
        seconds => format!("max-age={seconds}"),
    };
    let mut response = json.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, REVALIDATE);
    for (name, text) in [(header::ETAG, &*tag), (OUR_CONTROL, &*control), (SURROGATE_KEY, keys)] {
        headers.insert(name, HeaderValue::try_from(text).map_err(|_| Problem::internal())?);
    }
    Ok(response)
}
