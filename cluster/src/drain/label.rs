//! What is known of a request under way: since when it waits, what is left of its response, and what it
//! is called in a report.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request};
use tokio::time::Instant;

use super::body::Left;
use super::conn::Conn;

/// As much as is kept of it, in words of eight bytes.
const WORDS: usize = 9;
const WORD: usize = 8;

/// What is known of a request under way. Only the task that works on it writes and reads it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    label: Label,
    /// When it first had to wait, in nanoseconds since its connection was accepted and one more; 0: not
    /// yet.
    since: AtomicU64,
    timed_out: AtomicBool,
    /// Bytes of its response's body still to come, as a word of [`Left`].
    left: AtomicU64,
}

impl Asked {
    #[inline]
    pub(super) fn begin<B>(&self, request: &Request<B>) {
        self.label.set(request);
        self.since.store(0, Ordering::Relaxed);
        // Rarely so, and a store that is not made is one less for the guard's locked step to wait for.
        if self.has_timed_out() {
            self.timed_out.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn label(&self) -> &Label {
        &self.label
    }

    pub(super) fn waits(&self, conn: &Conn) -> Instant {
        let since = self.since.load(Ordering::Relaxed);
        if since > 0 {
            return conn.since() + Duration::from_nanos(since - 1);
        }
        let now = Instant::now();
        let since = u64::try_from(now.duration_since(conn.since()).as_nanos());
        self.since.store(since.unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
        now
    }

    /// Since it first had to wait.
    pub(super) fn age(&self, conn: &Conn) -> Duration {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1);
        since.map_or(Duration::ZERO, |since| (conn.since() + Duration::from_nanos(since)).elapsed())
    }

    #[inline]
    pub(super) fn left(&self) -> Left {
        Left::of_word(self.left.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn set_left(&self, left: Left) {
        self.left.store(left.to_word(), Ordering::Relaxed);
    }

    /// Its handler has taken too long.
    pub(super) fn times_out(&self) {
        self.timed_out.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn has_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }
}

/// Kept by the connection, because the request itself goes to the handler, and sharing its path would
/// keep the whole head for as long. Without the query, in which there may be secrets.
///
/// Words instead of text, so that it can be written in place without a lock: it costs a store for every
/// eight bytes. Only the connection's own task writes and reads it.
#[derive(Debug, Default)]
pub(super) struct Label {
    /// A method is one word: a longer one is cut short.
    method: AtomicU64,
    /// The path's whole words.
    path: [AtomicU64; WORDS],
    /// Its last eight bytes, or all if there are fewer; part of them is in `path` as well, which is
    /// faster than to put together a word that is not whole.
    last: AtomicU64,
    length: AtomicUsize,
}

impl Label {
    #[inline]
    fn set<B>(&self, request: &Request<B>) {
        self.method.store(method(request.method()), Ordering::Relaxed);
        let path = request.uri().path().as_bytes();
        let path = path.get(..WORDS * WORD).unwrap_or(path);
        self.length.store(path.len(), Ordering::Relaxed);
        let (words, _) = path.as_chunks::<WORD>();
        for (place, word) in self.path.iter().zip(words) {
            place.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        let last = path.last_chunk().map_or_else(|| word(path), |last| u64::from_ne_bytes(*last));
        self.last.store(last, Ordering::Relaxed);
    }
}

/// The word of a method; those in use need no loop over their bytes.
#[inline]
fn method(method: &Method) -> u64 {
    match *method {
        Method::GET => const { word(b"GET") },
        Method::HEAD => const { word(b"HEAD") },
        Method::POST => const { word(b"POST") },
        Method::PUT => const { word(b"PUT") },
        Method::PATCH => const { word(b"PATCH") },
        Method::DELETE => const { word(b"DELETE") },
        Method::OPTIONS => const { word(b"OPTIONS") },
        _ => word(method.as_str().as_bytes()),
    }
}

/// The first eight bytes, with zeros behind: there is none in a method.
const fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    let mut index = 0;
    while index < WORD && index < bytes.len() {
        word[index] = bytes[index];
        index += 1;
    }
    u64::from_ne_bytes(word)
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |word: &AtomicU64| word.load(Ordering::Relaxed).to_ne_bytes();
        let method: Vec<u8> =
            bytes(&self.method).into_iter().take_while(|byte| *byte != 0).collect();
        let length = self.length.load(Ordering::Relaxed);
        let last = bytes(&self.last);
        let mut path: Vec<u8> =
            self.path.iter().flat_map(bytes).take(length / WORD * WORD).collect();
        // What the whole words do not have stands at the end of the last one.
        let rest = length - path.len();
        path.extend(if length < WORD { &last[..rest] } else { &last[WORD - rest..] });
        write!(f, "{} {}", String::from_utf8_lossy(&method), String::from_utf8_lossy(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_method_and_path_without_query_and_bounded() {
        // Shorter ones after longer ones: nothing of those may be left.
        let label = Label::default();
        for (method, uri, text) in [
            ("GET", "/a/rather/long/path/of/which/nothing/may/be/left", ""),
            ("GET", "/a/b?token=secret", "GET /a/b"),
            ("POST", "/12345678?token=secret", "POST /12345678"),
            ("DELETE", "/1234567", "DELETE /1234567"),
            ("CONNECT", "db.internal:5432", "CONNECT "),
            ("OPTIONS", "*", "OPTIONS *"),
            ("PROPPATCH", "/x", "PROPPATC /x"),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).expect("valid");
            label.set(&request);
            let text = if text.is_empty() { format!("{method} {uri}") } else { text.to_owned() };
            assert_eq!(label.to_string(), text);
        }
        let long = format!("/{}", "ä".repeat(100));
        let request = Request::builder().uri(&long).body(()).expect("valid");
        label.set(&request);
        let label = label.to_string();
        assert!(label.starts_with("GET /ää") && label.len() <= 4 + WORDS * WORD + 2, "{label}");
    }
}
