//! What a request asks for: its method, its target and its `Host`, in one form only.

use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderValue, Method, StatusCode, Uri, Version};

/// A request that goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// What is wrong with it, for who sent it.
    pub(crate) rule: &'static str,
}

const fn bad(rule: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, rule }
}

/// Brings the target into origin form (`/path?query`, or `*`), with the host in `Host`.
///
/// Two readers of one request must see the same target: the cache would otherwise keep under one
/// name what the origin has answered for another.
pub(crate) fn normalise(request: &mut Parts) -> Result<(), Refusal> {
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        let rule = "this proxy makes no tunnels and sends no request back";
        return Err(Refusal { status: StatusCode::NOT_IMPLEMENTED, rule });
    }
    check_host(request)?;
    if request.uri.authority().is_some() || request.uri.scheme().is_some() {
        return from_absolute(request);
    }
    match request.uri.path() {
        "*" if request.method == Method::OPTIONS => Ok(()),
        path if path.starts_with('/') => Ok(()),
        _ => Err(bad("the target is neither a path nor a URL")),
    }
}

/// RFC 9112, section 3.2: exactly one, and one that can be a host.
fn check_host(request: &Parts) -> Result<(), Refusal> {
    let mut hosts = request.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.as_bytes().iter().all(|&byte| is_of_host(byte)) => Ok(()),
        (Some(_), None) => Err(bad("Host is no host")),
        (Some(_), Some(_)) => Err(bad("there is more than one Host")),
        (None, _) if request.version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(bad("Host is missing")),
    }
}

/// RFC 9112, section 3.2.2: the host of an absolute target wins over `Host`.
fn from_absolute(request: &mut Parts) -> Result<(), Refusal> {
    let target = std::mem::take(&mut request.uri).into_parts();
    let known = |scheme: &Scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
    if !target.scheme.as_ref().is_some_and(known) {
        return Err(bad("the target's scheme is not http"));
    }
    let has_user = |authority: &Authority| authority.as_str().contains('@');
    let Some(host) = target.authority.filter(|authority| !has_user(authority)) else {
        return Err(bad("the target has a user, or no host"));
    };
    if !host.as_str().bytes().all(is_of_host) {
        return Err(bad("the target's host is no host"));
    }
    let host = HeaderValue::from_str(host.as_str()).map_err(|_| bad("the target's host"))?;
    request.headers.insert(HOST, host);
    let path = target.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
    request.uri = Uri::from(path);
    Ok(())
}

/// RFC 3986's `host [":" port]`, without the comma: it would let two hosts look like one.
const fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'.' | b':'
                | b'-'
                | b'_'
                | b'~'
                | b'['
                | b']'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b';'
                | b'='
        )
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn check(method: &str, target: &str, hosts: &[&str]) -> Result<(String, String), u16> {
        let mut request = Request::builder().method(method).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        normalise(&mut parts).map_err(|refusal| refusal.status.as_u16())?;
        let host = parts.headers.get(HOST).map(|host| host.to_str().unwrap().to_owned());
        assert!(parts.headers.get_all(HOST).iter().count() <= 1);
        Ok((parts.uri.to_string(), host.unwrap_or_default()))
    }

    fn is(target: &str, host: &str) -> Result<(String, String), u16> {
        Ok((target.to_owned(), host.to_owned()))
    }

    #[test]
    fn a_target_has_one_form_and_one_host() {
        assert_eq!(check("GET", "/a?b=1", &["x:80"]), is("/a?b=1", "x:80"));
        assert_eq!(check("OPTIONS", "*", &["x"]), is("*", "x"));
        assert_eq!(check("GET", "http://b/p?q", &["a"]), is("/p?q", "b"));
        assert_eq!(check("GET", "http://b", &["a"]), is("/", "b"));
        assert_eq!(check("GET", "/", &["[::1]:80"]), is("/", "[::1]:80"));
        assert_eq!(check("GET", "/", &[""]), is("/", ""));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        assert_eq!(check("GET", "/", &[]), Err(400));
        assert_eq!(check("GET", "http://b/", &[]), Err(400), "Host is required there too");
        assert_eq!(check("GET", "/", &["a", "a"]), Err(400));
        for host in ["a b", "a/b", "u@a", "a,b", "a?b", "a#b", "a\\b", "\u{e9}"] {
            assert_eq!(check("GET", "/", &[host]), Err(400), "{host}");
        }
        assert_eq!(check("GET", "*", &["a"]), Err(400));
        assert_eq!(check("GET", "ftp://b/", &["a"]), Err(400));
        assert_eq!(check("GET", "http://u@b/", &["a"]), Err(400));
        assert_eq!(check("GET", "http://b,c/", &["a"]), Err(400));
        assert_eq!(check("GET", "b:80", &["a"]), Err(400));
        assert_eq!(check("CONNECT", "b:80", &["a"]), Err(501));
        assert_eq!(check("TRACE", "/", &["a"]), Err(501));
    }

    #[test]
    fn an_old_request_needs_no_host() {
        let request = Request::get("/").version(Version::HTTP_10).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        assert_eq!(normalise(&mut parts), Ok(()));
    }
}
