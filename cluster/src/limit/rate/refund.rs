//! Which requests get back what they have used, because nothing was done for them.

/// Judges the result of a request that was let through: the response (its head, not its body) or
/// the error. `true` gives back what the request has used.
///
/// Closures of the same shape judge too.
pub trait Refund<Res, E> {
    /// Never `true`: nothing has to be kept for the way back.
    #[doc(hidden)]
    const NEVER: bool = false;

    /// Whether nothing was done for the request.
    fn is_due(&self, result: Result<&Res, &E>) -> bool;
}

impl<F, Res, E> Refund<Res, E> for F
where
    F: Fn(Result<&Res, &E>) -> bool,
{
    fn is_due(&self, result: Result<&Res, &E>) -> bool {
        self(result)
    }
}

/// A request that was let through has used its units, whatever comes of it: what
/// [`RateLimitLayer::new`] starts with.
///
/// [`RateLimitLayer::new`]: crate::RateLimitLayer::new
#[derive(Debug, Clone, Copy, Default)]
pub struct NeverRefund;

impl<Res, E> Refund<Res, E> for NeverRefund {
    const NEVER: bool = true;

    fn is_due(&self, _: Result<&Res, &E>) -> bool {
        false
    }
}

/// A request that a layer of this crate refuses further in has used nothing: what
/// [`RateLimitLayer::http`] starts with.
///
/// Such a refusal, of a limit, a breaker or a drain, carries a mark that no response from outside
/// can carry, and a handler only if it puts [`RefundRateLimit`] among the extensions of its
/// response. The status tells nothing: a login that has checked a password and answers 429, or a
/// route that passes on the 503 of a service behind it, has worked. For layers that do not belong to
/// this crate there is [`refused_by_status`].
///
/// [`RateLimitLayer::http`]: crate::RateLimitLayer::http
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct RefundRefusals;

/// Put among the extensions of a response, it gives back what the request has used.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct RefundRateLimit;

#[cfg(feature = "axum")]
impl<B, E> Refund<http::Response<B>, E> for RefundRefusals {
    #[inline]
    fn is_due(&self, result: Result<&http::Response<B>, &E>) -> bool {
        result.is_ok_and(|response| is_marked(response.extensions()))
    }
}

#[cfg(feature = "axum")]
fn is_marked(extensions: &http::Extensions) -> bool {
    extensions.get::<crate::problem::OwnRefusal>().is_some()
        || extensions.get::<RefundRateLimit>().is_some()
}

/// Whether a response is of status 429 or 503 with `Retry-After`, or carries a mark that
/// [`RefundRefusals`] takes. For
/// [`RateLimitLayer::refund`](crate::RateLimitLayer::refund), in front of layers of other crates
/// that refuse so before a handler runs.
///
/// Only where no handler, and no service whose answers a handler passes on, answers so as well: who
/// can bring about such an answer has no limit any more. A login that answers 429 to a locked
/// account would be open to guessing.
///
/// ```
/// use axum::{Router, routing::get};
/// use escala_cluster::{KeyBy, Quota, RateLimitLayer, RateLimiter, refused_by_status};
///
/// let limit = RateLimiter::new("all", Quota::per_minute(600))?;
/// let app: Router = Router::new().route("/quotes", get(|| async { "42" })).layer(
///     RateLimitLayer::http().limit(limit.by(KeyBy::everyone())).refund(refused_by_status),
/// );
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
#[cfg(feature = "axum")]
#[must_use]
pub fn refused_by_status<B, E>(result: Result<&http::Response<B>, &E>) -> bool {
    use http::StatusCode;

    result.is_ok_and(|response| {
        let refused = matches!(
            response.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        (refused && response.headers().contains_key(http::header::RETRY_AFTER))
            || is_marked(response.extensions())
    })
}
