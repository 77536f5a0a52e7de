//! Whether a text may leave a transaction open behind it.
//!
//! The driver does not show the transaction status that the server sends, so the pool looks for the
//! commands that open a transaction. Both functions may say yes wrongly, which costs one rollback;
//! neither says no wrongly, since PostgreSQL opens a block by `BEGIN`, `START TRANSACTION` and
//! `.. AND CHAIN` only, and not from inside a function or `DO`.

/// Whether one statement opens a transaction: its first word says it.
pub(super) fn opens_transaction(statement: &str) -> bool {
    let text = skip_blank(statement);
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let word = &text[..end];
    // COMMIT, END, ROLLBACK and ABORT may end in AND CHAIN.
    let chain = ["commit", "end", "rollback", "abort"];
    ["begin", "start"].iter().any(|first| word.eq_ignore_ascii_case(first))
        || chain.iter().any(|last| word.eq_ignore_ascii_case(last)) && contains(text, "chain")
}

/// Whether any of several statements may open a transaction.
pub(super) fn may_open_transaction(batch: &str) -> bool {
    ["begin", "start", "chain"].iter().any(|word| contains(batch, word))
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

/// The text without leading blanks, semicolons and comments. Block comments nest in PostgreSQL.
fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        if let Some(comment) = text.strip_prefix("--") {
            text = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if text.starts_with("/*") {
            text = skip_block(text);
        } else {
            return text;
        }
    }
}

fn skip_block(text: &str) -> &str {
    let (mut rest, mut depth) = (text, 0_usize);
    loop {
        if let Some(inner) = rest.strip_prefix("/*") {
            (rest, depth) = (inner, depth + 1);
        } else if let Some(outer) = rest.strip_prefix("*/") {
            (rest, depth) = (outer, depth - 1);
            if depth == 0 {
                return rest;
            }
        } else {
            let mut chars = rest.chars();
            if chars.next().is_none() {
                return rest;
            }
            rest = chars.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_open_a_transaction_are_found_behind_comments() {
        for opening in [
            "begin",
            " BEGIN isolation level serializable",
            "-- why\nStart Transaction",
            "/* a /* nested */ b */ begin;",
            ";;begin",
            "commit and chain",
            "-- é\r/* ü */Begin",
        ] {
            assert!(opens_transaction(opening), "{opening}");
        }
        for other in ["", "select 'begin'", "/* begin", "-- begin", "beginning", "commit", "é"] {
            assert!(!opens_transaction(other), "{other}");
        }
    }

    #[test]
    fn batches_are_searched_whole() {
        assert!(may_open_transaction("create table t(); BEGIN"));
        assert!(may_open_transaction("rollback AND Chain"));
        assert!(!may_open_transaction("create table t(a int)"));
    }
}
