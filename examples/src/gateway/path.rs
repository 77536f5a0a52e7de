//! The path that routes are chosen by: the one that servers make of a target. Pure.
//!
//! A server decodes what is encoded and takes `//` for `/`, and some cut off the parameters of a segment,
//! so that `/%70df`, `//pdf` and `/pdf;a=b` are `/pdf` to it; a route for `/pdf` has to be taken by them as
//! well. What servers do not agree on otherwise is refused:
//! `.` and `..`, encoded or not, an encoded slash, a backslash. The target itself goes on as it came.

use std::borrow::Cow;

use axum::http::StatusCode;

use crate::proxy::target::Refusal;

const fn bad(rule: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, rule }
}

/// A path decoded, without parameters, with one slash for several.
///
/// # Errors
/// Two servers could take it for different ones.
pub(super) fn plain(path: &str) -> Result<Cow<'_, [u8]>, Refusal> {
    let bytes = path.as_bytes();
    // The usual path is looked at once, and nothing of it is copied.
    let special = |at: usize, byte: u8| match byte {
        b'%' | b'\\' | b';' => true,
        b'.' | b'/' => at > 0 && bytes[at - 1] == b'/',
        _ => false,
    };
    if !bytes.iter().enumerate().any(|(at, &byte)| special(at, byte)) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut parameters = false;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let byte = match first {
            b'%' => {
                let (byte, after) = decode(after)?;
                rest = after;
                byte
            }
            b'\\' => return Err(bad("the path has a backslash")),
            byte => byte,
        };
        // Encoded, too: to some servers it is the same. A slash is never encoded here.
        parameters = byte == b';' || parameters && byte != b'/';
        // What is cut off was looked at all the same: not all servers cut it off.
        if !parameters && (byte, plain.last()) != (b'/', Some(&b'/')) {
            plain.push(byte);
        }
    }
    if plain.split(|&byte| byte == b'/').any(|segment| matches!(segment, b"." | b"..")) {
        return Err(bad("the path has . or .. in it"));
    }
    Ok(Cow::Owned(plain))
}

/// What two digits stand for, and what follows them.
fn decode(after: &[u8]) -> Result<(u8, &[u8]), Refusal> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let [high, low, after @ ..] = after else { return Err(bad("the path ends within a code")) };
    let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
        return Err(bad("the path has a % without a code"));
    };
    match high * 16 + low {
        0 | b'/' | b'\\' => Err(bad("the path has an encoded slash, backslash or zero")),
        byte => Ok((byte, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_servers_make_of_it() {
        for (given, made) in [
            ("/", "/"),
            ("*", "*"),
            ("/pdf/1", "/pdf/1"),
            ("/pdf/.well-known/a..b/...", "/pdf/.well-known/a..b/..."),
            ("/%70df/1", "/pdf/1"),
            ("/p%64%66", "/pdf"),
            ("//pdf///1", "/pdf/1"),
            ("/pdf;a=b/1", "/pdf/1"),
            ("/pdf;", "/pdf"),
            ("/a;x=1;y/;z/pdf;", "/a/pdf"),
            ("/pdf%3ba", "/pdf"),
            ("/pdf%3Bx/new", "/pdf/new"),
            ("/a%20b%C3%A9", "/a b\u{e9}"),
            ("/%2570df", "/%70df"),
        ] {
            assert_eq!(plain(given), Ok(Cow::Borrowed(made.as_bytes())), "{given}");
        }
    }

    #[test]
    fn what_servers_do_not_agree_on_is_refused() {
        for given in [
            "/x/../pdf",
            "/x/./pdf",
            "/..",
            "/.",
            "/x/%2e%2E/pdf",
            "/x/.%2e/pdf",
            "/x/..;a=b/pdf",
            "/x%2fpdf",
            "/x%5Cpdf",
            "/x\\pdf",
            "/%00",
            "/100%",
            "/%7",
            "/%zz",
            "/%+1",
            "/pdf;%2f",
            "/pdf;%zz",
            "/x/..;/pdf",
            "/x/..%3b/pdf",
        ] {
            assert_eq!(
                plain(given).map_err(|refusal| refusal.status.as_u16()),
                Err(400),
                "{given}"
            );
        }
    }
}
