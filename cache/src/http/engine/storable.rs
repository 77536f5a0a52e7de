//! Whether a response may be stored (RFC 9111 section 3).

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use super::cache_control::{CacheControl, Seconds};
use super::fields::{remove_hop_by_hop, set};
use super::freshness::{self, Governing, Lifetime, Source, Stale, is_heuristically_cacheable};
use super::head::StoredHead;
use super::policy::{Authorized, Policy};
use super::request::RequestView;
use super::time::UnixMs;
use super::vary::{Vary, VaryField};
use super::{age, date, invalidation};

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
    let is_post = *request.method == Method::POST;
    if *request.method != Method::GET && !(is_post && policy.store_post) {
        return Err(Refusal::Method);
    }
    let bypasses = request.bypasses() && !is_post;
    if bypasses || policy.honour_no_store && request.directives.no_store {
        return Err(Refusal::Request);
    }
    let exchange = Exchange { request, status, request_at, response_at };
    let (head, source) = assess(policy, &exchange, headers.clone())?;
    if is_post {
        post_may_answer_get(request, status, headers, source)?;
    }
    if head.is_useful(response_at) { Ok(head) } else { Err(Refusal::Useless) }
}

/// What a response came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange<'a> {
    pub(crate) request: &'a RequestView<'a>,
    pub(crate) status: StatusCode,
    pub(crate) request_at: UnixMs,
    pub(crate) response_at: UnixMs,
}

/// Applies all rules that are about the response, whether it is new or was freshened, and works
/// out what a hit has to know.
pub(crate) fn assess(
    policy: &Policy,
    exchange: &Exchange<'_>,
    mut headers: HeaderMap,
) -> Result<(StoredHead, Source), Refusal> {
    let Exchange { request, status, request_at, response_at } = *exchange;
    let governing = Governing::of(policy, &headers);
    let directives = &governing.directives;
    status_allows(policy, status, directives)?;
    if directives.private.is_whole() {
        return Err(Refusal::Private);
    }
    authorization_allows(policy, request, directives)?;
    let Vary::Names(names) = Vary::parse(&headers) else { return Err(Refusal::VaryStar) };

    let dated = date_or_now(&mut headers, response_at);
    let lifetime = freshness::lifetime(policy, &governing, status, &headers, dated, response_at);
    lifetime_allows(policy, status, directives, lifetime)?;
    let initial_age_ms = age::initial_ms(&headers, dated, request_at, response_at);
    remove_unstorable(&mut headers, directives);
    if has_cookie(&headers) && !(policy.store_set_cookie && lifetime.source == Source::Explicit) {
        return Err(Refusal::SetCookie);
    }
    let stale = Stale::of(policy, directives, lifetime.ms);
    let head = StoredHead {
        status,
        request_at,
        response_at,
        date: dated,
        last_modified: date::field(&headers, &header::LAST_MODIFIED, response_at),
        lifetime_ms: lifetime.ms,
        initial_age_ms,
        stale_while_revalidate_ms: stale.while_revalidate_ms,
        stale_if_error_ms: stale.if_error_ms,
        stale_if_unreachable_ms: stale.if_unreachable_ms,
        no_cache: directives.no_cache.is_whole(),
        never_stale: stale.never,
        immutable: directives.immutable,
        vary: names.iter().map(|name| VaryField::of(name, request.headers)).collect(),
        headers,
    };
    Ok((head, lifetime.source))
}

/// `no-store`, unless `must-understand` replaces it by a condition that holds (RFC 9111 section
/// 5.2.2.3); and the statuses that are not stored at all.
fn status_allows(
    policy: &Policy,
    status: StatusCode,
    directives: &CacheControl,
) -> Result<(), Refusal> {
    match status.as_u16() {
        206 => return Err(Refusal::Partial),
        // Interim, about another response, or caused by this request's conditions, range, limits
        // or instance manipulations; RFC 6585 forbids to store 428, 429, 431 and 511.
        ..200 | 226 | 304 | 408 | 412 | 416 | 417 | 425 | 428 | 429 | 431 | 511 => {
            return Err(Refusal::Status);
        }
        _ => {}
    }
    if directives.must_understand {
        if !is_understood(status) {
            return Err(Refusal::NotUnderstood);
        }
    } else if directives.no_store {
        return Err(Refusal::NoStore);
    }
    if !policy.store_errors && is_error(status) {
        return Err(Refusal::ErrorStatus);
    }
    Ok(())
}

/// RFC 9111 section 3.5.
fn authorization_allows(
    policy: &Policy,
    request: &RequestView<'_>,
    directives: &CacheControl,
) -> Result<(), Refusal> {
    if !request.headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let shared = match policy.store_authorized {
        Authorized::Never => false,
        Authorized::Public => directives.public,
        Authorized::Explicit => {
            directives.public
                || directives.must_revalidate
                || directives.s_maxage != Seconds::Absent
        }
    };
    if shared { Ok(()) } else { Err(Refusal::Authorization) }
}

/// Something has to allow storing (section 3, last condition), and with heuristics off the
/// response itself or the route has to.
fn lifetime_allows(
    policy: &Policy,
    status: StatusCode,
    directives: &CacheControl,
    lifetime: Lifetime,
) -> Result<(), Refusal> {
    let allowed = match lifetime.source {
        Source::Forced | Source::Explicit | Source::Default | Source::Heuristic => true,
        // Then it can only be validated each time, which `no-cache` plainly asks for.
        Source::None => {
            let wanted = policy.heuristic_percent > 0 || directives.no_cache.is_whole();
            wanted && (is_heuristically_cacheable(status) || directives.public)
        }
    };
    if allowed { Ok(()) } else { Err(Refusal::NoLifetime) }
}

/// RFC 9110 section 9.3.3: the response has a lifetime and is what a `GET` would get.
fn post_may_answer_get(
    request: &RequestView<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    source: Source,
) -> Result<(), Refusal> {
    let is_own = status == StatusCode::OK
        && source == Source::Explicit
        && invalidation::is_own_location(request, headers, &header::CONTENT_LOCATION);
    if is_own { Ok(()) } else { Err(Refusal::Method) }
}

/// The value of `Date`; a response without a valid one gets the time it arrived (RFC 9110 section
/// 6.6.1).
fn date_or_now(headers: &mut HeaderMap, response_at: UnixMs) -> u64 {
    date::field(headers, &header::DATE, response_at).unwrap_or_else(|| {
        set(headers, header::DATE, date::format(response_at.seconds()));
        response_at.seconds()
    })
}

/// Takes out what is not stored: hop-by-hop fields, what `no-cache` and `private` name (RFC 9111
/// section 3.1), and `Age`, which is written anew each time.
fn remove_unstorable(headers: &mut HeaderMap, directives: &CacheControl) {
    remove_hop_by_hop(headers);
    headers.remove(header::AGE);
    for name in directives.no_cache.names().iter().chain(directives.private.names()) {
        headers.remove(name);
    }
}

fn has_cookie(headers: &HeaderMap) -> bool {
    headers.contains_key(header::SET_COOKIE)
        || headers.contains_key(HeaderName::from_static("set-cookie2"))
}

/// Refusals, failures and codes nobody registered: what must not last by accident.
fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 407 | 500 | 502..) || !is_understood(status)
}

/// The final statuses whose meaning for a cache is known here: those registered by IANA, without
/// the ones [`status_allows`] refuses.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 207 | 208 | 300..=303 | 305 | 307 | 308 | 400..=407 | 409..=411 | 413..=415
            | 421..=424 | 426 | 451 | 500..=508 | 510
    )
}

#[cfg(test)]
mod tests;
