//! A request as the engine sees it.

use http::header::{self, HeaderMap};
use http::{Method, Uri};

use super::cache_control::RequestDirectives;

/// A request: its head, and what its `Cache-Control` and `Pragma` say, read once.
///
/// Costs nothing beyond two header lookups if the request has neither field; never allocates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestView<'a> {
    pub(crate) method: &'a Method,
    /// The target as the layer got it: with or without scheme and authority.
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) directives: RequestDirectives,
    has_body: bool,
}

impl<'a> RequestView<'a> {
    /// Reads a request's head.
    pub(crate) fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let directives = RequestDirectives::parse(headers);
        let has_body = headers.contains_key(header::TRANSFER_ENCODING)
            || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
        Self { method, uri, headers, directives, has_body }
    }

    /// Says whether the request has content, where its head cannot (HTTP/2 without a length).
    pub(crate) fn with_body(self, has_body: bool) -> Self {
        Self { has_body: self.has_body || has_body, ..self }
    }

    /// Whether a stored response can answer this method.
    pub(crate) fn is_lookup(&self) -> bool {
        *self.method == Method::GET || *self.method == Method::HEAD
    }

    /// Whether the cache must keep out of this request altogether.
    ///
    /// Content in a `GET` has no meaning, so it is in no key, yet some origins read it: an answer
    /// to it would poison the key. An upgrade changes the protocol. `If-Match` and
    /// `If-Unmodified-Since` are the origin's to judge (RFC 9111 section 4.3.2).
    pub(crate) fn bypasses(&self) -> bool {
        self.has_body || self.headers.contains_key(header::UPGRADE) || self.is_for_the_origin()
    }

    /// Whether it has a condition that a cache must not answer by itself.
    pub(crate) fn is_for_the_origin(&self) -> bool {
        self.headers.contains_key(header::IF_MATCH)
            || self.headers.contains_key(header::IF_UNMODIFIED_SINCE)
    }
}
