//! Which stored responses an unsafe request makes void (RFC 9111 section 4.4).

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Uri};

use super::fields::single;
use super::request::RequestView;

/// The targets whose stored responses have to go after this answer: none for a safe method or an
/// error; else the request's own target, and those of `Location` and `Content-Location` if they
/// are of the same origin.
///
/// Each has scheme and authority exactly if the request's target has, so that the layer makes its
/// key in the same way. At most three.
pub(crate) fn invalidations(
    request: &RequestView<'_>,
    status: StatusCode,
    headers: &HeaderMap,
) -> Vec<Uri> {
    if is_safe(request.method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let mut targets = vec![request.uri.clone()];
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if let Some(target) = location(request, headers, &name)
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    targets
}

/// Whether the field names the request's own target.
pub(crate) fn is_own_location(
    request: &RequestView<'_>,
    headers: &HeaderMap,
    name: &HeaderName,
) -> bool {
    location(request, headers, name).is_some_and(|target| {
        target.path_and_query().map(PathAndQuery::as_str)
            == request.uri.path_and_query().map(PathAndQuery::as_str)
    })
}

/// The methods that IANA lists as safe. `CONNECT` has no stored responses; any other, above all an
/// unknown one, may change something.
fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET"
            | "HEAD"
            | "OPTIONS"
            | "TRACE"
            | "CONNECT"
            | "PRI"
            | "PROPFIND"
            | "QUERY"
            | "REPORT"
            | "SEARCH"
    )
}

/// The target that a field refers to, if it is of the request's origin.
fn location(request: &RequestView<'_>, headers: &HeaderMap, name: &HeaderName) -> Option<Uri> {
    let reference = single(headers, name)?.to_str().ok()?;
    let reference = reference.split_once('#').map_or(reference, |(before, _)| before);
    let path_and_query = match absolute(reference) {
        Some(absolute) => {
            let absolute: Uri = absolute.parse().ok()?;
            if !is_same_origin(request, &absolute) {
                return None;
            }
            let (path, query) = (absolute.path(), absolute.query());
            join(&without_dots(path), query)
        }
        None => relative(reference, request.uri)?,
    };
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

/// A reference with an authority, completed by a scheme if it has none (`//host/path`).
fn absolute(reference: &str) -> Option<Cow<'_, str>> {
    if reference.starts_with("//") {
        return Some(Cow::Owned(format!("{ANY_SCHEME}:{reference}")));
    }
    let (scheme, _) = reference.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    is_scheme.then_some(Cow::Borrowed(reference))
}

/// Stands for the scheme of the request, where a reference leaves it open.
const ANY_SCHEME: &str = "same";

/// A reference without an authority, resolved against the target (RFC 3986 section 5.2.2).
fn relative(reference: &str, target: &Uri) -> Option<String> {
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let base = target.path();
    Some(if path.is_empty() {
        join(base, query.or(target.query()))
    } else if path.starts_with('/') {
        join(&without_dots(path), query)
    } else {
        let directory = &base[..=base.rfind('/')?];
        join(&without_dots(&format!("{directory}{path}")), query)
    })
}

fn join(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// Removes `.` and `..` segments (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                out.pop();
            }
            other => {
                out.push(other);
                continue;
            }
        }
        // `a/.` and `a/..` mean directories.
        if is_last {
            out.push("");
        }
    }
    format!("/{}", out.join("/"))
}

/// Same scheme, host and port. Where the request does not say its scheme (origin form), a
/// reference may have either, and its default port is the default of the request as well.
fn is_same_origin(request: &RequestView<'_>, other: &Uri) -> bool {
    let own_scheme = request.uri.scheme_str();
    let other_scheme = other.scheme_str().filter(|scheme| *scheme != ANY_SCHEME);
    if let (Some(own), Some(other)) = (own_scheme, other_scheme)
        && !own.eq_ignore_ascii_case(other)
    {
        return false;
    }
    let default_port = match other_scheme.or(own_scheme) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => Some(80),
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => Some(443),
        Some(_) => return false,
        None => None,
    };
    let host = || single(request.headers, &header::HOST)?.to_str().ok()?.parse().ok();
    let own: Option<Authority> = request.uri.authority().cloned().or_else(host);
    let (Some(own), Some(other)) = (own, other.authority()) else { return false };
    own.host().eq_ignore_ascii_case(other.host())
        && own.port_u16().or(default_port) == other.port_u16().or(default_port)
}

#[cfg(test)]
mod tests;
