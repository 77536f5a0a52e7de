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

/// A request that a later layer refuses has used nothing: what [`RateLimitLayer::http`] starts
/// with.
///
/// A refusal is a response of status 429 or 503 with `Retry-After`, which is what limits, breakers,
/// admission and drains answer before a handler runs, or any response with [`RefundRateLimit`]
/// among its extensions. A handler that answers 503 by itself, without `Retry-After`, has worked
/// for its client.
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
    fn is_due(&self, result: Result<&http::Response<B>, &E>) -> bool {
        use http::StatusCode;

        let Ok(response) = result else {
            return false;
        };
        let refusal = matches!(
            response.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        (refusal && response.headers().contains_key(http::header::RETRY_AFTER))
            || response.extensions().get::<RefundRateLimit>().is_some()
    }
}
