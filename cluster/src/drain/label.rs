//! What a request is called in a report: method and path.

use std::fmt;

use http::Request;

/// As much as is kept of it.
const LENGTH: usize = 78;

/// Kept in place, because the request itself goes to the handler, and sharing its path would keep the
/// whole head for as long. Without the query, in which there may be secrets.
#[derive(Clone, Copy)]
pub(super) struct Label {
    text: [u8; LENGTH],
    length: u8,
}

impl Label {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let mut label = Self { text: [0; LENGTH], length: 0 };
        label.push(request.method().as_str());
        label.push(" ");
        label.push(request.uri().path());
        label
    }

    fn push(&mut self, part: &str) {
        let from = usize::from(self.length);
        let taken = part.len().min(LENGTH - from);
        self.text[from..from + taken].copy_from_slice(&part.as_bytes()[..taken]);
        self.length += u8::try_from(taken).unwrap_or(u8::MAX);
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text[..usize::from(self.length)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_method_and_path_without_query_and_bounded() {
        for (method, uri, label) in [
            ("GET", "/a/b?token=secret", "GET /a/b"),
            ("CONNECT", "db.internal:5432", "CONNECT "),
            ("OPTIONS", "*", "OPTIONS *"),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).expect("valid");
            assert_eq!(Label::of(&request).to_string(), label);
        }
        let long = format!("/{}", "ä".repeat(100));
        let request = Request::builder().uri(&long).body(()).expect("valid");
        let label = Label::of(&request).to_string();
        assert!(label.starts_with("GET /ää") && label.len() <= LENGTH + 2, "{label}");
    }
}
