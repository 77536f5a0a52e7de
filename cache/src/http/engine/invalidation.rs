//! Which stored responses an unsafe request makes void (RFC 9111 section 4.4).

use http::header::HeaderMap;
use http::{StatusCode, Uri};

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
    let _ = (request, status, headers);
    Vec::new()
}
