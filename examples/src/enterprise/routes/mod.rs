//! The routes by area.

pub(super) mod administration;
pub(super) mod affiliate;
pub(super) mod financial;
mod page;
pub(super) mod status;
pub(super) mod trading;

use axum::http::HeaderMap;
use axum::http::{HeaderName, HeaderValue};

use super::problem::Problem;
use super::store::Keyed;

/// Tells that the answer is that of an earlier request with the same key.
const REPLAYED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));

/// A number of a user, order or the like, from 1.
fn number(field: &'static str, text: &str) -> Result<i64, Problem> {
    match text.parse() {
        Ok(number) if number >= 1 => Ok(number),
        _ => Err(Problem::invalid(field, text, "must be a whole number from 1")),
    }
}

fn at_least_one(field: &'static str, value: i64) -> Result<(), Problem> {
    within(field, value, i64::MAX, "must be at least 1")
}

fn within(field: &'static str, value: i64, most: i64, rule: &str) -> Result<(), Problem> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(Problem::invalid(field, value, rule)) }
}

/// A request with its `Idempotency-Key`, if it has one.
fn keyed<T: serde::Serialize>(headers: &HeaderMap, request: T) -> Result<Keyed<T>, Problem> {
    const LONGEST: usize = 128;
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            if text.is_empty() || text.len() > LONGEST {
                let rule = "must have 1 to 128 visible ASCII characters";
                return Err(Problem::invalid("Idempotency-Key", text, rule));
            }
            Some(text.to_owned())
        }
    };
    let fingerprint = serde_json::to_string(&request).map_err(|_| Problem::internal())?;
    Ok(Keyed { request, key, fingerprint })
}
