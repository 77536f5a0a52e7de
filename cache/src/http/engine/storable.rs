//! Whether a response may be stored (RFC 9111 section 3).

use http::StatusCode;
use http::header::HeaderMap;

use super::head::StoredHead;
use super::policy::Policy;
use super::request::RequestView;
use super::time::UnixMs;

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// The method's answers are never stored.
    Method,
    /// The request bypasses the cache, or said `no-store`.
    Request,
    /// 1xx, 304, or a status that only this request's conditions or ranges can have caused.
    Status,
    /// 206: a part is not a whole.
    Partial,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// The request had `Authorization` and the response does not allow sharing.
    Authorization,
    /// `Set-Cookie`, which the policy keeps out.
    SetCookie,
    /// `Vary: *`, or one that cannot be read.
    VaryStar,
    /// A `must-understand` response with a status this cache does not know.
    NotUnderstood,
    /// An error status, which the policy keeps out.
    ErrorStatus,
    /// Nothing says for how long it is fresh.
    NoLifetime,
    /// It is stale already, may not be served stale, and has no validator to ask about.
    Useless,
}

impl Refusal {
    /// The reason in one word, for statistics and `Cache-Status`'s `detail`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Request => "request",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary",
            Self::NotUnderstood => "must-understand",
            Self::ErrorStatus => "error-status",
            Self::NoLifetime => "no-lifetime",
            Self::Useless => "stale",
        }
    }

    /// Whether the next answer for the same key will most likely be refused too, so that requests
    /// for it need not wait for one another (hit-for-miss).
    pub(crate) fn is_lasting(self) -> bool {
        match self {
            Self::NoStore
            | Self::Private
            | Self::SetCookie
            | Self::VaryStar
            | Self::NotUnderstood
            | Self::NoLifetime
            | Self::Useless => true,
            // These are about one request or one bad moment.
            Self::Method
            | Self::Request
            | Self::Status
            | Self::Partial
            | Self::Authorization
            | Self::ErrorStatus => false,
        }
    }
}

/// Whether the response may be stored, and what of it.
///
/// `request` is the client's request (its own conditions do not matter, see
/// [`Refusal::Status`]); `request_at` is when it was sent to the origin, `response_at` when the
/// response's head arrived. The body must be stored only once it has come to its end.
///
/// # Errors
/// The rule that forbids it.
pub(crate) fn admit(
    policy: &Policy,
    request: &RequestView<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    request_at: UnixMs,
    response_at: UnixMs,
) -> Result<StoredHead, Refusal> {
    let _ = (policy, request, status, headers, request_at, response_at);
    Err(Refusal::Useless)
}
