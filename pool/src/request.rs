//! What a request carries: its deadline, and the right to a lease that a handler may use.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{StatusCode, request::Parts};
use tokio::time::Instant;

use crate::acquire::Acquire;
use crate::error::PoolError;
use crate::lease::Lease;
use crate::manager::Manager;
use crate::pool::Pool;

/// When the answer to a request is due; stands in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline at this moment.
    #[must_use]
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The moment.
    #[must_use]
    pub fn moment(self) -> Instant {
        self.0
    }

    /// What is left of the time; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// A pool whose leases a handler can be given.
pub trait LeasePool: Clone + Send + Sync + 'static {
    /// What the pool hands out.
    type Lease: Send + 'static;

    /// As [`Pool::acquire_with`]; the lease is reported with this place.
    fn acquire_at(
        &self,
        acquire: Acquire,
        place: &'static Location<'static>,
    ) -> impl Future<Output = Result<Self::Lease, PoolError>> + Send;
}

impl<M: Manager> LeasePool for Pool<M> {
    type Lease = Lease<M>;

    async fn acquire_at(
        &self,
        acquire: Acquire,
        place: &'static Location<'static>,
    ) -> Result<Lease<M>, PoolError> {
        Self::acquire_at(self, acquire, place).await
    }
}

#[cfg(feature = "postgres")]
impl LeasePool for crate::postgres::PgPool {
    type Lease = crate::postgres::PgLease;

    async fn acquire_at(
        &self,
        acquire: Acquire,
        place: &'static Location<'static>,
    ) -> Result<Self::Lease, PoolError> {
        Self::acquire_at(self, acquire, place).await
    }
}

/// The right of one request to leases of a pool, within the request's deadline and the pool's
/// `acquire_timeout`. As an extractor it acquires nothing.
#[derive(Clone)]
pub struct LeaseHandle<P> {
    pool: P,
    deadline: Deadline,
    place: &'static Location<'static>,
}

impl<P: LeasePool> LeaseHandle<P> {
    pub(crate) fn new(pool: P, deadline: Deadline, place: &'static Location<'static>) -> Self {
        Self { pool, deadline, place }
    }

    /// Acquires a lease. Each call takes another one: a handler that holds one and waits for a
    /// second may wait for itself.
    ///
    /// # Errors
    /// A rejection that is a response of 503 or 504, with the pool's error as its source.
    #[track_caller]
    pub fn acquire(
        &self,
    ) -> impl Future<Output = Result<P::Lease, LeaseRejection>> + Send + use<'_, P> {
        self.acquire_at(Location::caller())
    }

    async fn acquire_at(
        &self,
        place: &'static Location<'static>,
    ) -> Result<P::Lease, LeaseRejection> {
        let acquire = Acquire::new().deadline(self.deadline.moment());
        let result = self.pool.acquire_at(acquire, place).await;
        result.map_err(|error| {
            let late = error.is_timeout() && self.deadline.remaining().is_zero();
            LeaseRejection(if late { Reason::Late(error) } else { Reason::Refused(error) })
        })
    }

    /// When the answer to the request is due.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }
}

impl<S: Sync, P: LeasePool> FromRequestParts<S> for LeaseHandle<P> {
    type Rejection = LeaseRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, LeaseRejection> {
        parts.extensions.get::<Self>().cloned().ok_or(LeaseRejection(Reason::NoLayer))
    }
}

/// A lease for the time that a handler runs: an extractor that acquires one.
///
/// It stands last but one among a handler's arguments, after what may reject the request for less.
pub struct Leased<P: LeasePool>(pub P::Lease);

impl<S: Sync, P: LeasePool> FromRequestParts<S> for Leased<P> {
    type Rejection = LeaseRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, LeaseRejection> {
        let handle = LeaseHandle::<P>::from_request_parts(parts, state).await?;
        Ok(Self(handle.acquire_at(handle.place).await?))
    }
}

impl<P: LeasePool> Deref for Leased<P> {
    type Target = P::Lease;

    fn deref(&self) -> &P::Lease {
        &self.0
    }
}

impl<P: LeasePool> DerefMut for Leased<P> {
    fn deref_mut(&mut self) -> &mut P::Lease {
        &mut self.0
    }
}

/// Why a request got no lease. As a response it is a problem document (RFC 9457): 503 with
/// `Retry-After` if the pool had none to give, 504 if the request's own deadline passed, and 500 if
/// there is no [`PoolLayer`](crate::PoolLayer) for this pool around the handler.
#[derive(Debug)]
pub struct LeaseRejection(Reason);

#[derive(Debug)]
enum Reason {
    Refused(PoolError),
    Late(PoolError),
    NoLayer,
}

impl LeaseRejection {
    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.0 {
            Reason::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Reason::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Reason::NoLayer => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for LeaseRejection {
    fn into_response(self) -> Response {
        let status = self.status();
        // What a server is made of is nobody's business outside.
        let detail = match self.0 {
            Reason::Refused(_) => "the service has no capacity for this request at present",
            Reason::Late(_) => "the time for this request ran out before its work could begin",
            Reason::NoLayer => "the service is not set up for this request",
        };
        let title = status.canonical_reason().unwrap_or_default();
        let problem = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{},"detail":"{detail}"}}"#,
            status.as_u16()
        );
        let mut response = (status, problem).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // A lease comes back within milliseconds, but whole seconds is what a client can be told.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl fmt::Display for LeaseRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Reason::Refused(_) => "the pool had no lease for the request",
            Reason::Late(_) => "the deadline of the request passed while it waited for a lease",
            Reason::NoLayer => "no pool layer stands around the handler",
        })
    }
}

impl std::error::Error for LeaseRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Reason::Refused(error) | Reason::Late(error) => Some(error),
            Reason::NoLayer => None,
        }
    }
}

impl<P> fmt::Debug for LeaseHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseHandle").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl<P: LeasePool<Lease: fmt::Debug>> fmt::Debug for Leased<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leased").field(&self.0).finish()
    }
}

/// The time that a request asks for: milliseconds, or digits and a unit as gRPC has it. Eight digits
/// at most, also gRPC's rule.
pub(crate) fn requested_timeout(value: &[u8]) -> Option<Duration> {
    let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    let (digits, unit) = value.split_at_checked(end)?;
    if !(1..=8).contains(&digits.len()) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b"" | b"m" => Some(Duration::from_millis(count)),
        b"H" => Some(Duration::from_secs(count * 3600)),
        b"M" => Some(Duration::from_secs(count * 60)),
        b"S" => Some(Duration::from_secs(count)),
        b"u" => Some(Duration::from_micros(count)),
        b"n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_milliseconds_or_a_number_with_a_unit() {
        for (value, expected) in [
            ("250", Some(Duration::from_millis(250))),
            ("0", Some(Duration::ZERO)),
            ("2S", Some(Duration::from_secs(2))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("3M", Some(Duration::from_secs(180))),
            ("5m", Some(Duration::from_millis(5))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("", None),
            ("S", None),
            ("123456789", None),
            ("-1", None),
            ("1.5S", None),
            ("2 S", None),
            ("2s", None),
        ] {
            assert_eq!(requested_timeout(value.as_bytes()), expected, "{value:?}");
        }
    }
}
