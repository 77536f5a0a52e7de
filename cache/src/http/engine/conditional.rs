//! Conditions: those the cache puts to the origin, and the client's, put to a stored response.

use http::HeaderValue;
use http::header::{self, HeaderMap, HeaderName};

/// Replaces all conditions and ranges in `headers` by `preconditions`.
pub(crate) fn replace(headers: &mut HeaderMap, preconditions: &[(HeaderName, HeaderValue)]) {
    for name in [
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::RANGE,
    ] {
        headers.remove(name);
    }
    for (name, value) in preconditions {
        headers.insert(name.clone(), value.clone());
    }
}
