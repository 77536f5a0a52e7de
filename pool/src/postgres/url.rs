//! Connection strings as libpq reads them: `postgres://...`, or `key=value` pairs.
//!
//! Only the form is read here; what the parameters mean is not this file's business. A string that
//! cannot be read is never quoted, since a misplaced character may make the password look like
//! something else.

use crate::config::ConfigError;

const FORM: &str =
    "must be postgres://user:password@host:port/database?parameter=value or key=value pairs";

/// The parameters in the order of the string. Several hosts are one value, parted by commas, as in
/// the other form; so are their ports.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let pairs = rest.map_or_else(|| pairs(text), uri);
    pairs.ok_or_else(|| ConfigError::new("url", "[hidden]", FORM))
}

fn uri(mut rest: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            found.push((key.to_owned(), value));
        }
    };
    // A password may hold a question mark, so what begins the query is looked for behind it.
    if let Some(at) = rest.find(['@', '/']).filter(|at| rest[*at..].starts_with('@')) {
        let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
        add("user", decode(user)?);
        add("password", decode(password)?);
        rest = &rest[at + 1..];
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    if !hosts.is_empty() {
        let split: Option<Vec<_>> = hosts.split(',').map(host).collect();
        let (names, ports): (Vec<_>, Vec<_>) = split?.into_iter().unzip();
        add("host", names.join(","));
        if ports.iter().any(|port| !port.is_empty()) {
            add("port", ports.join(","));
        }
    }
    add("dbname", decode(database)?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        found.push((decode(key)?, decode(value)?));
    }
    Some(found)
}

/// `name`, `name:port`, `[ip]` or `[ip]:port`; a folder of sockets comes percent-encoded.
fn host(text: &str) -> Option<(String, String)> {
    let (name, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (ip, rest) = text.split_once(']')?;
            (ip, if rest.is_empty() { "" } else { rest.strip_prefix(':')? })
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port_like = port.bytes().all(|byte| byte.is_ascii_digit());
    port_like.then(|| Some((decode(name)?, port.to_owned())))?
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        decoded.push((digit()? * 16 + digit()?) as u8);
    }
    // PostgreSQL's strings end with a zero, so none can be sent to it.
    String::from_utf8(decoded).ok().filter(|text| !text.contains('\0'))
}

/// `key = value` parted by blanks. A value with blanks stands between single quotes; a backslash
/// takes the next character as it is.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
        let (value, after) = value(after.trim_start())?;
        found.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Some(found)
}

fn value(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut chars = text[usize::from(quoted)..].chars();
    let mut value = String::new();
    loop {
        let before = chars.as_str();
        match chars.next() {
            None | Some('\0') if quoted => return None,
            None => return Some((value, "")),
            Some('\0') => return None,
            Some('\'') if quoted => return Some((value, chars.as_str())),
            Some(blank) if !quoted && blank.is_whitespace() => return Some((value, before)),
            Some('\\') => value.push(chars.next()?),
            Some(other) => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<String> {
        let pairs = parse(text).ok()?;
        Some(pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(";"))
    }

    #[test]
    fn both_forms_are_read() {
        for (text, expected) in [
            ("postgres://", ""),
            ("postgres://db", "host=db"),
            ("postgresql://db:6000/shop", "host=db;port=6000;dbname=shop"),
            ("postgres://app:s%3Acret@db/", "user=app;password=s:cret;host=db"),
            ("postgres://app:who?@db/x", "user=app;password=who?;host=db;dbname=x"),
            ("postgres://a,b:1,[::1]:2/", "host=a,b,::1;port=,1,2"),
            ("postgres://%2Frun%2Fpg/x", "host=/run/pg;dbname=x"),
            ("postgres:///x?host=/run&port=1", "dbname=x;host=/run;port=1"),
            (
                "postgres://db?sslmode=require&options=-c%20a%3Db",
                "host=db;sslmode=require;options=-c a=b",
            ),
            ("", ""),
            (
                "host=db port = 1\tuser='a b' password='it\\'s \\\\'",
                "host=db;port=1;user=a b;password=it's \\",
            ),
            ("host=a\\ b", "host=a b"),
            ("host=", "host="),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_being_shown() {
        for text in [
            "hunter2",
            "postgres://app:hunter2@db:port/x",
            "postgres://app:hunter2@db/x?hunter2",
            "postgres://app:hunter2%@db",
            "postgres://app:hunter2%zz@db",
            "postgres://app:hunter2%00@db",
            "postgres://[::1/hunter2",
            "postgres://[::1]hunter2",
            "password='hunter2",
            "password=hunter2\\",
            "password hunter2=x",
            "=hunter2",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error}{error:?}").contains("hunter2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            drop(parse(&text));
            drop(parse(&format!("postgres://{text}")));
        }

        #[test]
        fn quoted_values_come_out_as_they_went_in(value in "[^\0]*") {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            let found = parse(&format!("a='{quoted}' b=c")).unwrap();
            prop_assert_eq!(&found[0].1, &value);
            prop_assert_eq!(&found[1].1, "c");
        }
    }
}
