//! The conditions a cache sends; those it answers are tested with the answers.

use super::super::testing::{at, headers, stored};
use super::*;

/// RFC 9111 section 4.3.1: the entity tag, and the date beside it.
#[test]
fn both_validators_are_sent() {
    let modified = at(-100);
    let head = stored(&[("etag", "\"a\""), ("last-modified", &modified)]);
    let sent = preconditions(&head);
    let names: Vec<_> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["if-none-match", "if-modified-since"]);
    assert_eq!(sent[0].1, "\"a\"");
    assert_eq!(sent[1].1, modified.as_str());
}

#[test]
fn the_tags_of_many_variants_are_bounded_and_not_repeated() {
    let heads: Vec<_> =
        (0..40).map(|index| stored(&[("etag", &format!("\"{}\"", index / 2))])).collect();
    let all: Vec<&StoredHead> = heads.iter().collect();
    let sent = preconditions_of_all(&all);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.to_str().unwrap().split(", ").count(), MAX_TAGS);
    let modified = at(-100);
    assert_eq!(preconditions_of_all(&[&stored(&[("last-modified", &modified)])]), []);
}

#[test]
fn conditions_are_seen() {
    for name in &CONDITIONS {
        assert!(has_conditions(&headers(&[(name.as_str(), "x")])), "{name}");
    }
    assert!(!has_conditions(&headers(&[("accept", "x"), ("cache-control", "no-cache")])));
}
