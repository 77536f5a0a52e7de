//! Rules about code: length, clones that were never made ready, what has no place in it.
//!
//! They take what [`code_only`](crate::rust::code_only) leaves of a file, so that nothing is found
//! in comments and literals.

use super::Finding;
use crate::rust::{block, line_of};

/// A file ends here, its test module not counted. Past it nobody holds the whole in mind.
pub const FILE_WALL: usize = 500;

/// No file is longer than [`FILE_WALL`] lines without its `#[cfg(test)]` modules; tests and
/// benches are free. (A function's length is clippy's business.)
#[must_use]
pub fn length(path: &str, code: &str) -> Vec<Finding> {
    let mut folders: Vec<&str> = path.split('/').collect();
    let file = folders.pop();
    if file == Some("tests.rs") || folders.iter().any(|f| matches!(*f, "tests" | "benches")) {
        return Vec::new();
    }
    let lines = code.lines().count() - test_lines(code);
    if lines <= FILE_WALL {
        return Vec::new();
    }
    let advice = format!("{lines} lines without tests, the wall is {FILE_WALL}: split the file");
    vec![Finding::new(path, FILE_WALL + 1, "length", advice)]
}

/// How many lines the `#[cfg(test)] mod .. { .. }` blocks take.
fn test_lines(code: &str) -> usize {
    let mut lines = 0;
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]").map(|at| from + at) {
        let after = &code[at + "#[cfg(test)]".len()..];
        from = code.len() - after.len();
        // Further attributes may stand between, `#[expect(..)]` for one.
        let item = after.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with("#["));
        if item.is_some_and(|item| item.starts_with("mod ") && !item.ends_with(';'))
            && let Some(body) = block(code, from)
        {
            lines += line_of(code, body.end) - line_of(code, at) + 1;
            from = body.end;
        }
    }
    lines
}

/// No `fn call` clones `self.inner` unless it also swaps the clone in.
///
/// Only the value that `poll_ready` was called on is ready; a fresh clone has reserved nothing.
#[must_use]
pub fn unready_clone(path: &str, code: &str) -> Vec<Finding> {
    let calls = ["fn call(", "fn call<"].into_iter().flat_map(|head| code.match_indices(head));
    let bad = calls.filter(|&(at, _)| {
        let Some(body) = block(code, at) else { return false };
        // Without blanks, so that a chain broken over lines is still one.
        let body: String = code[body].split_whitespace().collect();
        let clones = ["self.inner.clone()", "Clone::clone(&self.inner)"];
        let swaps = ["mem::replace(", "mem::swap("];
        clones.iter().any(|c| body.contains(c)) && !swaps.iter().any(|s| body.contains(s))
    });
    let advice = "the clone was never made ready: call the ready value and leave the clone in its \
                  place with `mem::replace(&mut self.inner, clone)`";
    bad.map(|(at, _)| Finding::new(path, line_of(code, at), "unready-clone", advice)).collect()
}

/// What no code of ours holds, and what to write instead.
const BANNED: [(&str, &str); 6] = [
    ("#[should_panic", "return the error and assert on it, or catch the panic and look at it"),
    ("#[ignore", "make the test run everywhere, or delete it"),
    ("todo!(", "write it, or leave the item out until it is needed"),
    ("todo!{", "write it, or leave the item out until it is needed"),
    ("dbg!(", "remove it, or make it a `tracing` event"),
    ("unimplemented!(", "write it, or leave the item out until it is needed"),
];

/// No `#[should_panic]`, `#[ignore]`, `todo!`, `dbg!`, `unimplemented!`, in tests neither.
#[must_use]
pub fn banned(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let line: String = line.split_whitespace().collect();
        for (what, advice) in BANNED.iter().filter(|(what, _)| holds(&line, what)) {
            let advice = format!("no `{what}`: {advice}");
            findings.push(Finding::new(path, index + 1, "banned", advice));
        }
    }
    findings
}

/// Whether the line holds `what` from the beginning of a word.
fn holds(line: &str, what: &str) -> bool {
    let in_a_word = |at: usize| line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    line.match_indices(what).any(|(at, _)| !in_a_word(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rust::code_only;

    /// The lines that the rule finds in the text.
    fn lines(rule: fn(&str, &str) -> Vec<Finding>, text: &str) -> Vec<usize> {
        rule("x/src/f.rs", &code_only(text)).iter().map(|f| f.line).collect()
    }

    #[test]
    fn a_file_may_reach_the_wall_and_not_pass_it() {
        assert_eq!(lines(length, &"x\n".repeat(FILE_WALL)), []);
        assert_eq!(lines(length, &"x\n".repeat(FILE_WALL + 1)), [FILE_WALL + 1]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let tests = "#[cfg(test)]\nmod tests {\n    const A: &str = \"}\";\n}\n";
        assert_eq!(test_lines(&code_only(tests)), 4);
        let attributes = "#[cfg(test)]\n#[expect(x, reason = \"y\")]\nmod tests {\n}\nfn f() {}\n";
        assert_eq!(test_lines(&code_only(attributes)), 4);
        let text = "x\n".repeat(FILE_WALL) + tests;
        assert_eq!(lines(length, &text), []);
    }

    #[test]
    fn other_test_items_count() {
        let text = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\nfn f() {\n}\n";
        assert_eq!(test_lines(&code_only(text)), 0);
    }

    #[test]
    fn tests_and_benches_may_be_long() {
        let text = "x\n".repeat(FILE_WALL + 1);
        for path in ["x/tests/it/main.rs", "benches/benches/http.rs", "x/src/a/tests.rs"] {
            assert_eq!(length(path, &text), [], "{path}");
        }
    }

    #[test]
    fn an_unready_clone_is_found() {
        let plain = "impl X {\n    fn call(&mut self, r: R) {\n        self.inner.clone().call(r)\n    }\n}";
        assert_eq!(lines(unready_clone, plain), [2]);
        let broken =
            "fn call<T>(&mut self) {\n  let c = self\n  .inner\n  .clone();\n // mem::replace(\n}";
        assert_eq!(lines(unready_clone, broken), [1]);
        assert_eq!(lines(unready_clone, "fn call(&mut self) { Clone::clone(&self.inner) }"), [1]);
    }

    #[test]
    fn a_clone_that_is_swapped_in_is_fine() {
        let swapped = "fn call(&mut self) {\n    let clone = self.inner.clone();\n    \
                       let ready = std::mem::replace(&mut self.inner, clone);\n}";
        assert_eq!(lines(unready_clone, swapped), []);
        assert_eq!(lines(unready_clone, "fn call(&mut self) { self.inner.call(r) }"), []);
        assert_eq!(lines(unready_clone, "fn layer(&self) { self.inner.clone() }"), []);
        assert_eq!(lines(unready_clone, "fn call(&mut self) { /* self.inner.clone() */ }"), []);
        assert_eq!(lines(unready_clone, "fn call(&mut self);"), []);
    }

    #[test]
    fn what_has_no_place_is_found() {
        let text = "#[should_panic]\n#[should_panic(expected = \"x\")]\n#[ignore = \"slow\"]\n\
                    std::todo!()\ndbg! (x)\nunimplemented!()\n";
        assert_eq!(lines(banned, text), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn words_in_comments_and_strings_are_fine() {
        let text = "// todo!()\nlet a = \"dbg!(x)\";\nmy_dbg!(x);\n/// `#[ignore]`\n#[cfg(x)]\n";
        assert_eq!(lines(banned, text), []);
    }
}
