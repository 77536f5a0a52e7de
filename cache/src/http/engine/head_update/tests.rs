//! Stored `GET` responses after the answer to a `HEAD`.

use super::super::testing::{Request, after, at, headers, stored, values};
use super::*;

const CC: &str = "cache-control";

fn update(head: &StoredHead, status: u16, lines: &[(&str, &str)]) -> HeadUpdate {
    let request = Request::new("HEAD", "/page", &[]);
    let status = StatusCode::from_u16(status).unwrap();
    let answer = (status, &headers(lines));
    head_update(&Policy::rfc(), &request.view(), (head, 100), answer, after(10), after(10))
}

/// RFC 9111 section 4.3.5.
#[test]
fn the_same_representation_is_updated() {
    let modified = at(-100);
    let head = stored(&[
        (CC, "max-age=2"),
        ("etag", "\"a\""),
        ("last-modified", &modified),
        ("x", "1"),
        ("y", "1"),
    ]);
    let same = [
        ("etag", "\"a\""),
        ("last-modified", modified.as_str()),
        ("content-length", "100"),
        (CC, "max-age=1000"),
        ("x", "2"),
    ];
    for lines in [&same[..], &same[2..]] {
        let HeadUpdate::Update(updated) = update(&head, 200, lines) else { panic!("{lines:?}") };
        assert_eq!(values(&updated.head.headers, "x"), ["2"]);
        assert_eq!(values(&updated.head.headers, "y"), ["1"]);
        assert!(updated.head.remaining_ms(after(100)) > 0);
    }
}

/// RFC 9111 section 4.3.5: otherwise the stored response is stale.
#[test]
fn another_representation_makes_it_stale() {
    let modified = at(-100);
    let head = stored(&[(CC, "max-age=60"), ("etag", "\"a\""), ("last-modified", &modified)]);
    let other = at(-99);
    for line in [("etag", "\"b\""), ("last-modified", other.as_str()), ("content-length", "99")] {
        assert_eq!(update(&head, 200, &[line]), HeadUpdate::Stale, "{line:?}");
    }
}

#[test]
fn only_a_200_says_anything() {
    let head = stored(&[(CC, "max-age=60")]);
    for status in [304, 404, 410, 500] {
        assert_eq!(update(&head, status, &[("etag", "\"b\"")]), HeadUpdate::Unrelated, "{status}");
    }
}
