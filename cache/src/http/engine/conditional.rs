//! Conditions: those the cache puts to the origin (RFC 9111 section 4.3.1), and the client's, put
//! to a stored response (section 4.3.2).

use http::HeaderValue;
use http::header::{self, HeaderMap, HeaderName};

use super::date;
use super::fields::{set, single};
use super::head::StoredHead;
use super::request::RequestView;
use super::time::UnixMs;
use super::validators::{EntityTag, NoneMatch, is_strong_date};

/// What to ask the origin about one stored response.
pub(crate) fn preconditions(head: &StoredHead) -> Vec<(HeaderName, HeaderValue)> {
    let mut list = Vec::new();
    if EntityTag::of(&head.headers).is_some()
        && let Some(tag) = head.headers.get(header::ETAG)
    {
        list.push((header::IF_NONE_MATCH, tag.clone()));
    }
    if head.last_modified.is_some()
        && let Some(date) = head.headers.get(header::LAST_MODIFIED)
    {
        list.push((header::IF_MODIFIED_SINCE, date.clone()));
    }
    list
}

/// What to ask the origin about several variants: their entity tags. A date would not say which.
pub(crate) fn preconditions_of_all(stored: &[&StoredHead]) -> Vec<(HeaderName, HeaderValue)> {
    let mut tags: Vec<&[u8]> = Vec::new();
    for head in stored {
        if let Some(tag) = head.headers.get(header::ETAG)
            && EntityTag::of(&head.headers).is_some()
            && tags.len() < MAX_TAGS
            && !tags.contains(&tag.as_bytes())
        {
            tags.push(tag.as_bytes());
        }
    }
    if tags.is_empty() {
        return Vec::new();
    }
    let value = HeaderValue::from_bytes(&tags.join(&b", "[..]));
    value.map(|value| vec![(header::IF_NONE_MATCH, value)]).unwrap_or_default()
}

/// More tags than this in one request cost more than they save.
const MAX_TAGS: usize = 16;

/// All conditions and ranges that a request may have.
const CONDITIONS: [HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// Whether the client asks for something else than the whole, current representation.
pub(crate) fn has_conditions(headers: &HeaderMap) -> bool {
    CONDITIONS.iter().any(|name| headers.contains_key(name))
}

/// Replaces all conditions and ranges in `headers` by `preconditions`.
pub(crate) fn replace(headers: &mut HeaderMap, preconditions: &[(HeaderName, HeaderValue)]) {
    for name in &CONDITIONS {
        headers.remove(name);
    }
    for (name, value) in preconditions {
        set(headers, name.clone(), value.clone());
    }
}

/// Whether the client already has this response, so that 304 answers it.
///
/// `If-None-Match` wins over `If-Modified-Since`. A response without `Last-Modified` counts as
/// modified when it was made. Conditions are about successes only (RFC 9110 section 13.2.1).
pub(crate) fn is_not_modified(request: &RequestView<'_>, head: &StoredHead, now: UnixMs) -> bool {
    if !request.is_lookup() || !head.status.is_success() {
        return false;
    }
    if let Some(condition) = NoneMatch::parse(request.headers, &header::IF_NONE_MATCH) {
        return condition.matches(EntityTag::of(&head.headers).as_ref());
    }
    date::field(request.headers, &header::IF_MODIFIED_SINCE, now)
        .is_some_and(|since| head.last_modified.unwrap_or(head.date) <= since)
}

/// Whether a `Range` still means the stored representation (RFC 9110 section 13.1.5): there is no
/// `If-Range`, or it names this representation strongly.
pub(crate) fn range_applies(request: &RequestView<'_>, head: &StoredHead, now: UnixMs) -> bool {
    if !request.headers.contains_key(header::IF_RANGE) {
        return true;
    }
    let Some(condition) = single(request.headers, &header::IF_RANGE) else { return false };
    if let Some(tag) = EntityTag::parse(condition.as_bytes()) {
        return EntityTag::of(&head.headers).is_some_and(|stored| stored.strongly_equals(&tag));
    }
    match (date::parse(condition.as_bytes(), now), head.last_modified) {
        (Some(date), Some(modified)) => date == modified && is_strong_date(modified, head.date),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
