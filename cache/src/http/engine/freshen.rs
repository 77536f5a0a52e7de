//! What a 304 does to stored responses (RFC 9111 sections 3.2 and 4.3.4).

use http::header::{self, HeaderMap, HeaderName};

use super::date;
use super::fields::{add, remove_hop_by_hop};
use super::head::StoredHead;
use super::policy::Policy;
use super::request::RequestView;
use super::storable::{Exchange, Refusal, assess};
use super::time::UnixMs;
use super::validators::{EntityTag, is_strong_date};

/// A stored response after a 304 confirmed it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Freshened {
    /// With the new headers; answers this request in any case.
    pub(crate) head: StoredHead,
    /// What becomes of the copy in the store.
    pub(crate) fate: Fate,
}

/// What becomes of a stored response that was updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The updated one takes its place.
    Replace,
    /// It stays as it is: the update was about this request alone.
    Leave,
    /// It leaves the store: the new headers forbid keeping it.
    Remove(Refusal),
}

/// Which of the stored responses a 304 confirms; the last one is the one to answer with.
///
/// `stored` are those whose validators stood in the request. Empty if the 304 is about none of
/// them: it then answers the client's own condition, or the request has to be repeated without
/// conditions.
pub(crate) fn nominated(
    stored: &[&StoredHead],
    not_modified: &HeaderMap,
    now: UnixMs,
) -> Vec<usize> {
    let tag = EntityTag::of(not_modified);
    let modified = date::field(not_modified, &header::LAST_MODIFIED, now);
    let dated = date::field(not_modified, &header::DATE, now).unwrap_or(now.seconds());
    let mut chosen: Vec<usize> = match (tag, modified) {
        // A strong tag confirms all that have it, and no other.
        (Some(tag), _) if !tag.weak => {
            indices(stored, |head| has_tag(head, |other| other.strongly_equals(&tag)))
        }
        (Some(tag), _) => {
            let fitting = indices(stored, |head| has_tag(head, |other| other.weakly_equals(&tag)));
            most_recent(stored, &fitting)
        }
        (None, Some(modified)) => {
            let fitting = indices(stored, |head| head.last_modified == Some(modified));
            if is_strong_date(modified, dated) { fitting } else { most_recent(stored, &fitting) }
        }
        // Without a validator it can only mean the one response that was asked about.
        (None, None) if stored.len() == 1 => vec![0],
        (None, None) => Vec::new(),
    };
    chosen.sort_by_key(|&index| stored.get(index).map(|head| (head.date, head.response_at)));
    chosen
}

fn indices(stored: &[&StoredHead], fits: impl Fn(&StoredHead) -> bool) -> Vec<usize> {
    let fitting = stored.iter().enumerate().filter(|(_, head)| fits(head));
    fitting.map(|(index, _)| index).collect()
}

fn has_tag(head: &StoredHead, fits: impl Fn(&EntityTag<'_>) -> bool) -> bool {
    EntityTag::of(&head.headers).is_some_and(|tag| fits(&tag))
}

fn most_recent(stored: &[&StoredHead], of: &[usize]) -> Vec<usize> {
    let age = |index: &usize| stored.get(*index).map(|head| (head.date, head.response_at));
    of.iter().copied().max_by_key(age).into_iter().collect()
}

/// Updates a stored response with the headers of a 304.
///
/// `request` is the client's request that led to the validation: should the 304 change `Vary`,
/// its fields are the ones that select the response from now on. It is also what makes another
/// variant its own if the 304 chose that one.
pub(crate) fn freshen(
    policy: &Policy,
    request: &RequestView<'_>,
    head: &StoredHead,
    not_modified: &HeaderMap,
    request_at: UnixMs,
    response_at: UnixMs,
) -> Freshened {
    let headers = merged(&head.headers, not_modified);
    let keeps_out = request.bypasses() || policy.honour_no_store && request.directives.no_store;
    let exchange = Exchange { request, status: head.status, request_at, response_at };
    match assess(policy, &exchange, headers.clone()) {
        Ok((head, _)) if keeps_out => Freshened { head, fate: Fate::Leave },
        Ok((head, _)) => Freshened { head, fate: Fate::Replace },
        Err(refusal) => {
            let mut head = StoredHead { request_at, response_at, ..head.clone() };
            head.headers = headers;
            remove_hop_by_hop(&mut head.headers);
            head.headers.remove(header::AGE);
            head.initial_age_ms = 0;
            let fate = match refusal {
                Refusal::Authorization => Fate::Leave,
                refusal => Fate::Remove(refusal),
            };
            Freshened { head, fate }
        }
    }
}

/// The stored headers with each field of the new ones in place of its former values (section
/// 3.2).
///
/// What belongs to one connection is not taken over, and neither is what describes the stored
/// bytes themselves: whatever a server says in a 304, those have not changed.
fn merged(stored: &HeaderMap, update: &HeaderMap) -> HeaderMap {
    let mut update = update.clone();
    remove_hop_by_hop(&mut update);
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE] {
        update.remove(name);
    }
    let mut headers = stored.clone();
    // These were about the former answer: the new one has its own, or none.
    for name in [header::AGE, header::DATE] {
        headers.remove(name);
    }
    remove_obsolete_warnings(&mut headers);
    for name in update.keys() {
        headers.remove(name);
    }
    for (name, value) in &update {
        add(&mut headers, name.clone(), value.clone());
    }
    headers
}

/// `Warning` codes 1xx were about freshness; the field is obsolete (section 5.5).
fn remove_obsolete_warnings(headers: &mut HeaderMap) {
    const WARNING: HeaderName = header::WARNING;
    let kept: Vec<_> = headers
        .get_all(WARNING)
        .iter()
        .filter(|value| value.as_bytes().first() != Some(&b'1'))
        .cloned()
        .collect();
    headers.remove(WARNING);
    for value in kept {
        add(headers, WARNING, value);
    }
}

#[cfg(test)]
mod tests;
