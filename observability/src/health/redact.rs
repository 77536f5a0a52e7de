//! Takes the passwords out of error texts before anybody reads them.

/// Longest text that is passed on.
const MAX: usize = 300;

/// The text without the user part of URLs, without the values of secret-looking keys, on one line
/// and cut to 300 bytes.
pub(crate) fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX));
    for word in text.split_inclusive(char::is_whitespace) {
        if clean.len() >= MAX {
            break;
        }
        let word = without_secret(word);
        clean.extend(word.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    if clean.len() > MAX {
        clean.truncate(clean.floor_char_boundary(MAX));
        clean.push('…');
    }
    clean.truncate(clean.trim_end().len());
    clean
}

fn without_secret(word: &str) -> String {
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        // The last @ ends the user part, whatever characters the password holds.
        return format!("{scheme}://***@{}", without_values(host));
    }
    without_values(word)
}

/// Blanks `key=value` and `key:value` where the key sounds secret.
fn without_values(word: &str) -> String {
    let blank = |piece: &str| {
        let at = piece.find(['=', ':'])? + 1;
        let key = piece[..at].to_ascii_lowercase();
        let value = piece[at..].trim_end_matches(|c: char| c.is_whitespace() || END.contains(&c));
        let secret = SECRET.iter().any(|word| key.contains(word)) && !value.is_empty();
        secret.then(|| format!("{}***{}", &piece[..at], &piece[at + value.len()..]))
    };
    word.split_inclusive(END)
        .map(|piece| blank(piece).unwrap_or_else(|| piece.to_owned()))
        .collect()
}

/// What ends a value in a query string or a list.
const END: [char; 4] = ['&', '?', ';', ','];
const SECRET: [&str; 7] = ["password", "passwd", "pwd", "secret", "token", "apikey", "api_key"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (text, clean) in [
            ("connection refused", "connection refused"),
            (
                "cannot reach postgres://ops:s3cret@db:5432/main: timed out",
                "cannot reach postgres://***@db:5432/main: timed out",
            ),
            ("redis://:p@ss@cache:6379", "redis://***@cache:6379"),
            ("host=db password=s3cret user=ops", "host=db password=*** user=ops"),
            ("Token:abc expired", "Token:*** expired"),
            ("http://a/?x=1&access_token=abc&y=2 no", "http://a/?x=1&access_token=***&y=2 no"),
            ("two\nlines\u{7}", "two lines"),
        ] {
            assert_eq!(redact(text), clean);
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let cut = redact(&"é".repeat(1_000));
        assert!(cut.len() <= MAX + 3 && cut.ends_with('…'));
    }

    proptest! {
        #[test]
        fn a_password_in_a_url_never_gets_through(
            before in "[a-z ]{0,20}", user in "[a-z]{0,8}", password in "[A-Z0-9:@]{8,16}",
        ) {
            let clean = redact(&format!("{before} pg://{user}:{password}@host/db {before}"));
            prop_assert!(!clean.contains(&password), "{}", clean);
        }

        #[test]
        fn any_text_can_be_redacted(text in any::<String>()) {
            let clean = redact(&text);
            prop_assert!(clean.len() <= MAX + 3 && !clean.contains(char::is_control));
        }
    }
}
