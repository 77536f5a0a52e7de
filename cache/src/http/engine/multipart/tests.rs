//! The layout of a `multipart/byteranges` body.

use super::super::testing::{headers, values};
use super::*;

/// RFC 9110 section 14.6.
#[test]
fn parts_say_their_type_and_place() {
    let mut map = headers(&[("content-type", "text/plain"), ("content-length", "10")]);
    let body = b"0123456789";
    let plan = plan(&mut map, &[0..2, 8..10], 10, 0xabc);
    let boundary = format!("{:032x}", 0xabc);
    let mut whole = Vec::new();
    for (lead, range) in &plan.parts {
        whole.extend_from_slice(lead);
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        whole.extend_from_slice(&body[range]);
    }
    whole.extend_from_slice(&plan.end);
    let expected = [
        &format!("--{boundary}"),
        "Content-Type: text/plain",
        "Content-Range: bytes 0-1/10",
        "",
        "01",
        &format!("--{boundary}"),
        "Content-Type: text/plain",
        "Content-Range: bytes 8-9/10",
        "",
        "89",
        &format!("--{boundary}--"),
        "",
    ]
    .join("\r\n");
    assert_eq!(String::from_utf8(whole).unwrap(), expected);
    assert_eq!(plan.len, expected.len() as u64);
    assert_eq!(values(&map, "content-length"), [expected.len().to_string()]);
    let content_type = format!("multipart/byteranges; boundary={boundary}");
    assert_eq!(values(&map, "content-type"), [content_type]);
}

/// RFC 9110 section 15.3.7.2: no `Content-Range` in the head of a multipart response.
#[test]
fn the_head_has_no_content_range_and_parts_need_no_type() {
    let mut map = headers(&[("content-range", "bytes 0-1/10")]);
    let plan = plan(&mut map, &[0..1, 2..3], 10, 1);
    assert!(!map.contains_key("content-range"));
    assert!(!String::from_utf8_lossy(&plan.parts[0].0).contains("Content-Type"));
}
