//! What hostile fields cost: memory in proportion to their length, however they are written.

use http::{HeaderValue, StatusCode};

use super::testing::{NOW, Request, get, headers, stored};
use super::{
    CacheStatus, Policy, RequestView, admit, answer, decide, freshen, invalidations, nominated,
};

/// Twice what common servers take as one field.
const LEN: usize = 20_000;

/// Fields that make a careless reader go back and forth, or keep much for little.
fn hostile() -> Vec<Vec<u8>> {
    let seeds = [
        "\"",
        "\\",
        "\"\\",
        "a,",
        ",",
        " ",
        "\"a\",",
        "W/\"",
        "no-cache=\"a,",
        "no-cache=\"a\",",
        "max-age=1,",
        "a;q=0.1,",
        "a=(b c),",
        "0-0,",
        "-1,",
        "a b",
        "*,",
        "/../",
        "%2e",
        "x=\"y\";",
    ];
    let repeat = |seed: &&str| seed.bytes().cycle().take(LEN).collect::<Vec<u8>>();
    let mut fields: Vec<_> = seeds.iter().map(repeat).collect();
    fields.push([b"bytes=".as_slice(), &fields[13]].concat());
    fields.push([b"a=(".as_slice(), &fields[5]].concat());
    fields
}

/// All entry points with one value in every field that is read.
fn exercise(value: &[u8]) {
    let all = [
        "age",
        "cache-control",
        "cdn-cache-control",
        "connection",
        "content-location",
        "date",
        "etag",
        "expires",
        "last-modified",
        "location",
        "vary",
        "warning",
    ];
    let policy = Policy::rfc();
    let asks = [
        "accept-language",
        "cache-control",
        "host",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "pragma",
        "range",
    ];
    let request = Request { headers: headers(&asks.map(|name| (name, value))), ..get(&[]) };
    let view = RequestView::new(&request.method, &request.uri, &request.headers);
    let lines = headers(&all.map(|name| (name, value)));
    let good = stored(&[("cache-control", "max-age=60"), ("vary", "accept-language")]);
    for name in all {
        let lines = headers(&[(name, value), ("vary", b"accept-language")]);
        if let Ok(head) = admit(&policy, &view, StatusCode::OK, &lines, NOW, NOW) {
            let _ = decide(&policy, &view, &[&head, &good], NOW);
            let _ = answer(&policy, &view, &head, 100, NOW, CacheStatus::hit("a"));
            let _ = freshen(&policy, &view, &head, &lines, NOW, NOW);
        }
    }
    let _ = freshen(&policy, &view, &good, &lines, NOW, NOW);
    let _ = nominated(&[&good], &lines, NOW);
    let post = Request { method: http::Method::POST, ..request.clone() };
    let _ = invalidations(&post.view(), StatusCode::OK, &lines);
}

#[test]
fn hostile_fields_cost_memory_in_proportion_to_their_length() {
    for field in hostile() {
        if HeaderValue::from_bytes(&field).is_err() {
            continue;
        }
        let used = allocation_counter::measure(|| exercise(&field));
        // Some twenty fields, each copied and split a few times.
        let bound = 100 * LEN as u64;
        let start = String::from_utf8_lossy(&field[..12]).into_owned();
        assert!(used.bytes_max < bound, "{start}: {} bytes at once", used.bytes_max);
    }
}
