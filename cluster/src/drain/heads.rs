//! Looks for heads that state the length of their body twice, by `Content-Length` and by
//! `Transfer-Encoding`. Pure.
//!
//! hyper drops the first of them before a service sees the request, so it must be seen on its way in.
//! Only lines of heads are looked at. Where a head ends without a length, the next one follows; where
//! it ends with one, so many bytes are passed over; a chunked body is not followed: the next head is
//! one that arrives when nothing else is under way. One that was sent right behind such a body is not
//! looked at, and read as hyper reads it.

/// As much of a line as is kept until the rest of it comes: the longest length there can be, with
/// some spaces. One that is longer still, of zeros, is not believed.
const KEPT: usize = 64;

#[derive(Debug)]
pub(super) struct Heads {
    at: At,
    /// The number of the request whose head is read.
    request: u64,
    /// The begin of a line that has not ended.
    line: [u8; KEPT],
    kept: usize,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Head(Head),
    /// So many bytes of a body are still to come.
    Body(u64),
    /// Within what is not followed.
    Elsewhere,
}

/// What has been seen of a head.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    begun: bool,
    length: Option<Option<u64>>,
    coding: bool,
}

impl Default for Heads {
    fn default() -> Self {
        Self { at: At::Elsewhere, request: 0, line: [0; KEPT], kept: 0 }
    }
}

impl Heads {
    /// What comes next is the head of this request, unless that is known better.
    pub(super) fn begin(&mut self, request: u64) {
        if let At::Elsewhere = self.at {
            (self.at, self.kept, self.request) = (At::Head(Head::default()), 0, request);
        }
    }

    /// The number of a request whose head has ended within `bytes` and has both lengths. Nothing is
    /// looked at after it.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Option<u64> {
        loop {
            match self.at {
                At::Elsewhere => return None,
                At::Body(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[here..];
                    let left = left - here as u64;
                    if left > 0 {
                        self.at = At::Body(left);
                        return None;
                    }
                    (self.at, self.request) = (At::Head(Head::default()), self.request + 1);
                }
                At::Head(head) => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        self.keep(bytes);
                        return None;
                    };
                    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
                    bytes = rest;
                    let head = if self.kept == 0 {
                        head.line(line, false)
                    } else {
                        self.keep(line);
                        head.line(&self.line[..self.kept], self.kept == KEPT)
                    };
                    self.kept = 0;
                    if self.next(head) {
                        return Some(self.request);
                    }
                }
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let here = bytes.len().min(KEPT - self.kept);
        self.line[self.kept..self.kept + here].copy_from_slice(&bytes[..here]);
        self.kept += here;
    }

    /// Goes on after a line; true if the head has both lengths.
    fn next(&mut self, line: Line) -> bool {
        match line {
            Line::Within(head) => self.at = At::Head(head),
            Line::Last(Head { length: None, coding: false, .. }) => {
                (self.at, self.request) = (At::Head(Head::default()), self.request + 1);
            }
            Line::Last(Head { length: Some(Some(length)), coding: false, .. }) => {
                self.at = At::Body(length);
            }
            Line::Last(Head { length, coding, .. }) => {
                self.at = At::Elsewhere;
                return length.is_some() && coding;
            }
        }
        false
    }
}

#[derive(Clone, Copy)]
enum Line {
    Within(Head),
    /// It was empty: the head has ended.
    Last(Head),
}

impl Head {
    /// Goes on by a line, of which there may be more if it was `cut`.
    fn line(mut self, line: &[u8], cut: bool) -> Line {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            // Empty lines before a request are passed over, as hyper does.
            return if self.begun { Line::Last(self) } else { Line::Within(self) };
        }
        self.begun = true;
        match line[0] {
            b'c' | b'C' => {
                if let Some(value) = value(line, b"content-length:") {
                    let value = std::str::from_utf8(value.trim_ascii()).ok().filter(|_| !cut);
                    self.length = Some(value.and_then(|value| value.parse().ok()));
                }
            }
            b't' | b'T' => self.coding |= value(line, b"transfer-encoding:").is_some(),
            _ => {}
        }
        Line::Within(self)
    }
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str =
        "POST / HTTP/1.1\r\nContent-Length: 3\r\nhost: a\r\nTransfer-ENCODING: chunked\r\n\r\n";

    /// What is found however the bytes are cut.
    fn found(text: &str) -> Option<u64> {
        let whole = cut(text, text.len());
        for length in 1..text.len() {
            assert_eq!(cut(text, length), whole, "{text} in parts of {length}");
        }
        whole
    }

    fn cut(text: &str, length: usize) -> Option<u64> {
        let mut heads = Heads::default();
        heads.begin(1);
        text.as_bytes().chunks(length).find_map(|part| heads.read(part))
    }

    #[test]
    fn a_head_with_both_lengths_is_found_wherever_it_stands() {
        assert_eq!(found(BOTH), Some(1));
        assert_eq!(found(&format!("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n{BOTH}")), Some(2));
        let upload = "POST / HTTP/1.1\r\ncontent-length: 40\r\n\r\n";
        let body = "content-length:1\ntransfer-encoding:x\n\n\n\n";
        assert_eq!(body.len(), 40);
        assert_eq!(found(&format!("{upload}{body}{BOTH}")), Some(2));
        assert_eq!(found(&BOTH.replace("\r\n", "\n")), Some(1));
    }

    #[test]
    fn one_length_is_none_too_many_and_a_body_is_no_head() {
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for text in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc",
            chunked,
            &format!("{chunked}30\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
            "GET / HTTP/1.1\r\nx-content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length-x: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    /// A number of which only the begin was kept would be another one.
    #[test]
    fn a_length_of_many_zeros_is_read_whole_or_not_at_all() {
        let zeros = "0".repeat(60);
        let head = format!("POST / HTTP/1.1\r\ncontent-length: {zeros}5\r\n\r\n");
        // Nothing of its body is taken for a head; the next one is announced.
        for length in 1..=head.len() {
            let mut heads = Heads::default();
            heads.begin(1);
            let found: Vec<_> =
                head.as_bytes().chunks(length).filter_map(|part| heads.read(part)).collect();
            assert_eq!((found, heads.read(b"a\n\nbc")), (vec![], None));
            heads.begin(2);
            assert_eq!(heads.read(BOTH.as_bytes()), Some(2), "in parts of {length}");
        }
    }

    #[test]
    fn after_a_body_that_is_not_followed_it_waits_for_the_next_head() {
        let mut heads = Heads::default();
        heads.begin(1);
        assert_eq!(heads.read(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"), None);
        assert_eq!(heads.read(b"\r\n"), None);
        heads.begin(2);
        assert_eq!(heads.read(BOTH.as_bytes()), Some(2));
    }
}
