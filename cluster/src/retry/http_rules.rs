//! The rules for HTTP: methods, statuses, `Retry-After`, bodies.

use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, Request, Response, StatusCode};
use http_body::Body;

use super::{Retry, RetryRules};
use crate::retry_after::retry_after;

/// Statuses that another attempt may change: too many requests, and a server or gateway that cannot
/// just now. Not 500: that is a defect, and comes again.
const STATUSES: [StatusCode; 4] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// Retries HTTP requests.
///
/// Responses of status 429, 502, 503 and 504 and errors are retried if the method is idempotent
/// (GET, HEAD, OPTIONS, TRACE, PUT, DELETE; RFC 9110, section 9.2.2) or the request has an
/// `Idempotency-Key`; whatever was certainly not sent is retried for any method. `Retry-After` is kept
/// to. What a layer of this crate refuses further in stands, see [`Retry::for_error`].
#[derive(Debug, Clone)]
pub struct HttpRetry<B = CloneBody, F = EveryError> {
    /// Shared, since tower clones the policy for each request.
    statuses: Arc<[StatusCode]>,
    any_method: bool,
    body: B,
    errors: F,
}

/// How the body of a request is copied.
pub trait CopyBody<B> {
    /// A copy; `None` if there can be none.
    fn copy(&self, body: &B) -> Option<B>;
}

/// Bodies that can be cloned: bytes, strings, a body made of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneBody;

/// Bodies that are read once, as axum's: only an empty one can be sent again.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyBody;

/// What an error calls for.
pub trait JudgeError<E> {
    /// Whether the request may be sent again.
    fn judge(&self, error: &E) -> Retry;
}

/// Whatever the error is: nobody knows whether the request was carried out.
#[derive(Debug, Clone, Copy, Default)]
pub struct EveryError;

impl HttpRetry {
    /// The rules above. The request's body must be `Clone`, and no error is known to mean that
    /// nothing was sent.
    #[must_use]
    pub fn new() -> Self {
        let statuses = Arc::new(STATUSES);
        Self { statuses, any_method: false, body: CloneBody, errors: EveryError }
    }
}

impl Default for HttpRetry {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, F> HttpRetry<B, F> {
    /// Retries responses of these statuses instead.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// Takes every method for idempotent, POST and PATCH too.
    #[must_use]
    pub fn any_method(mut self) -> Self {
        self.any_method = true;
        self
    }

    /// Copies bodies so: [`EmptyBody`], or a closure `Fn(&B) -> Option<B>`.
    #[must_use]
    pub fn body<C>(self, body: C) -> HttpRetry<C, F> {
        let Self { statuses, any_method, errors, .. } = self;
        HttpRetry { statuses, any_method, body, errors }
    }

    /// Judges errors so, by a closure `Fn(&E) -> Retry`; for boxed errors
    /// `|error: &BoxError| Retry::for_error(&**error)`.
    #[must_use]
    pub fn errors<E, C>(self, errors: C) -> HttpRetry<B, C>
    where
        C: Fn(&E) -> Retry,
    {
        let Self { statuses, any_method, body, .. } = self;
        HttpRetry { statuses, any_method, body, errors }
    }
}

impl<B: Clone> CopyBody<B> for CloneBody {
    fn copy(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

impl<B: Body + Default> CopyBody<B> for EmptyBody {
    fn copy(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
    }
}

impl<B, F: Fn(&B) -> Option<B>> CopyBody<B> for F {
    fn copy(&self, body: &B) -> Option<B> {
        self(body)
    }
}

impl<E> JudgeError<E> for EveryError {
    fn judge(&self, _: &E) -> Retry {
        Retry::IfIdempotent(None)
    }
}

impl<E, F: Fn(&E) -> Retry> JudgeError<E> for F {
    fn judge(&self, error: &E) -> Retry {
        self(error)
    }
}

impl<C, F, B, R, E> RetryRules<Request<B>, Response<R>, E> for HttpRetry<C, F>
where
    C: CopyBody<B>,
    F: JudgeError<E>,
{
    fn copy(&self, request: &Request<B>) -> Option<Request<B>> {
        let body = self.body.copy(request.body())?;
        let mut copy = Request::new(body);
        copy.method_mut().clone_from(request.method());
        copy.uri_mut().clone_from(request.uri());
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        copy.extensions_mut().clone_from(request.extensions());
        Some(copy)
    }

    fn is_idempotent(&self, request: &Request<B>) -> bool {
        const METHODS: [Method; 6] = [
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::TRACE,
            Method::PUT,
            Method::DELETE,
        ];
        self.any_method
            || METHODS.contains(request.method())
            || request.headers().contains_key("idempotency-key")
    }

    fn judge(&self, _: &Request<B>, result: Result<&Response<R>, &E>) -> Retry {
        match result {
            Ok(response) if is_refused_here(response) => Retry::No,
            Ok(response) if self.statuses.contains(&response.status()) => {
                Retry::IfIdempotent(retry_after(response.headers(), SystemTime::now))
            }
            Ok(_) => Retry::No,
            Err(error) => self.errors.judge(error),
        }
    }

    /// Not a status of 5xx, be it worth a retry or not, nor what calls for one.
    fn is_good(&self, request: &Request<B>, result: Result<&Response<R>, &E>) -> bool {
        let served = result.is_ok_and(|response| !response.status().is_server_error());
        served && self.judge(request, result) == Retry::No
    }
}

/// Whether a breaker or limit between here and the backend has refused the request.
#[cfg(feature = "axum")]
fn is_refused_here<R>(response: &Response<R>) -> bool {
    response.extensions().get::<crate::problem::OwnRefusal>().is_some()
}

#[cfg(not(feature = "axum"))]
fn is_refused_here<R>(_: &Response<R>) -> bool {
    false
}
