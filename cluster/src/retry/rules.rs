//! Which requests may be sent again, and after which results.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use crate::{Open, Overloaded, RateLimited};

/// What the result of an attempt calls for. The time is what the server asked to be left alone for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// The result stands: it is good, or another attempt is of no use.
    No,
    /// The request may have been carried out: only one that does no harm twice may be sent again.
    IfIdempotent(Option<Duration>),
    /// The request was certainly not carried out: any may be sent again.
    Always(Option<Duration>),
}

impl Retry {
    /// For an error, by what it or one of its causes is, of a service that does one call only:
    ///
    /// - A refusal by a breaker or limit of this crate stands: [`No`](Self::No). It is there so that
    ///   callers are answered at once, and those told the same time would all be back together, at
    ///   the moment when the backend can bear it least.
    /// - A connection that was refused was never made: [`Always`](Self::Always).
    /// - Of anything else nobody knows: [`IfIdempotent`](Self::IfIdempotent). A host or network that
    ///   is unreachable is among these: when a server dies, its connections that were made end so
    ///   as well, and what was sent by them may have been carried out.
    ///
    /// A client that tells of which kind its error is knows more:
    /// `if error.is_connect() { Retry::Always(None) } else { Retry::for_error(error) }`, for that of
    /// hyper-util or reqwest. It is also to be preferred where a firewall on the way answers packets
    /// of connections that were made with "port unreachable": Linux reports that as refused.
    ///
    /// Of a boxed error: `Retry::for_error(&**error)`.
    #[must_use]
    pub fn for_error(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        // A chain that long is a loop.
        for _ in 0..32 {
            let Some(error) = cause else { break };
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == ErrorKind::ConnectionRefused
            {
                return Self::Always(None);
            }
            if error.is::<Open>() || error.is::<Overloaded>() || error.is::<RateLimited>() {
                return Self::No;
            }
            cause = error.source();
        }
        Self::IfIdempotent(None)
    }
}

/// What a [`RetryPolicy`](crate::RetryPolicy) knows about requests and results.
///
/// [`HttpRetry`](crate::HttpRetry) does for HTTP, [`RetryWhen`] for any request that can be cloned.
pub trait RetryRules<Req, Res, E> {
    /// A copy to send should this attempt fail; `None` if there can be none, and no retry then.
    fn copy(&self, request: &Req) -> Option<Req>;

    /// Whether the request does no harm if it is carried out twice.
    fn is_idempotent(&self, request: &Req) -> bool;

    /// What this result calls for.
    fn judge(&self, request: &Req, result: Result<&Res, &E>) -> Retry;

    /// Whether this is what the request was sent for: a hedge takes no other answer while a second
    /// one may come. Unless defined otherwise, a response that calls for no retry.
    fn is_good(&self, request: &Req, result: Result<&Res, &E>) -> bool {
        result.is_ok() && self.judge(request, result) == Retry::No
    }
}

/// Rules for requests that can be cloned and carried out twice: the closure judges the results.
///
/// ```
/// use escala_cluster::{Retry, RetryConfig, RetryPolicy, RetryWhen};
///
/// let rules = RetryWhen(|_: &u32, result: Result<&u32, &std::io::Error>| match result {
///     Ok(_) => Retry::No,
///     Err(error) => Retry::for_error(error),
/// });
/// let policy = RetryPolicy::new("lookups", RetryConfig::default(), rules)?;
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
#[derive(Clone, Copy)]
pub struct RetryWhen<F>(pub F);

impl<F, Req, Res, E> RetryRules<Req, Res, E> for RetryWhen<F>
where
    Req: Clone,
    F: Fn(&Req, Result<&Res, &E>) -> Retry,
{
    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }

    fn is_idempotent(&self, _: &Req) -> bool {
        true
    }

    fn judge(&self, request: &Req, result: Result<&Res, &E>) -> Retry {
        self.0(request, result)
    }
}

impl<F> fmt::Debug for RetryWhen<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryWhen").finish_non_exhaustive()
    }
}
