//! Rules about text as such: how a file opens, blanks, tabs, paths of one machine.

use super::Finding;

/// Every Rust file opens with a `//!` that says what it is for, or, as a crate's root may, with
/// the README that does.
#[must_use]
pub fn header(path: &str, text: &str) -> Vec<Finding> {
    let says_something = |line: &str| {
        line.strip_prefix("//!").is_some_and(|l| !l.trim().is_empty())
            || line.starts_with("#![doc = include_str!(")
    };
    if text.lines().next().is_some_and(says_something) {
        return Vec::new();
    }
    vec![Finding::new(path, 1, "header", "open the file with `//!` and what it is for")]
}

/// No line ends with a blank.
#[must_use]
pub fn trailing_blanks(path: &str, text: &str) -> Vec<Finding> {
    let bad = |line: &str| line.ends_with([' ', '\t', '\r']);
    on_lines(path, text, bad, "blanks", "remove the blanks at the end of the line")
}

/// No Rust line is indented with a tab.
#[must_use]
pub fn tabs(path: &str, text: &str) -> Vec<Finding> {
    let bad = |line: &str| line[..line.len() - line.trim_start().len()].contains('\t');
    on_lines(path, text, bad, "tabs", "indent with spaces")
}

/// Nothing names a folder that exists on one machine only.
#[must_use]
pub fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let bad = |line: &str| MACHINE_FOLDERS.iter().any(|folder| names_folder(line, folder));
    let advice = "say the path relative to the checkout, or make it an argument";
    on_lines(path, text, bad, "machine-path", advice)
}

// In two pieces, so that this file keeps its own rule. The first two end with a slash since the
// bare word is also a route or the path of a URL.
const MACHINE_FOLDERS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tm", "p/w")];

/// Whether the line holds `folder` as an absolute path: not as a part of a longer one such as
/// `./work/..`, and not as the beginning of a longer name.
fn names_folder(line: &str, folder: &str) -> bool {
    let in_a_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + folder.len()..].chars().next();
        let absolute = !before.is_some_and(|c| in_a_name(c) || "}~".contains(c));
        absolute && (folder.ends_with('/') || !after.is_some_and(in_a_name))
    })
}

fn on_lines(
    path: &str,
    text: &str,
    bad: impl Fn(&str) -> bool,
    rule: &'static str,
    advice: &str,
) -> Vec<Finding> {
    // Not `lines()`, which hides a carriage return.
    let lines = text.split('\n').enumerate().filter(|(_, line)| bad(line));
    lines.map(|(index, _)| Finding::new(path, index + 1, rule, advice)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that the rule finds in the text.
    fn lines(rule: fn(&str, &str) -> Vec<Finding>, text: &str) -> Vec<usize> {
        rule("f", text).iter().map(|f| f.line).collect()
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        assert_eq!(lines(header, "//! Says it.\nfn f() {}\n"), []);
        assert_eq!(lines(header, "#![doc = include_str!(\"../README.md\")]\n"), []);
        for text in ["", "fn f() {}\n", "// Not this.\n", "//!\n//! Late.\n", "\n//! Late.\n"] {
            assert_eq!(lines(header, text), [1], "{text:?}");
        }
    }

    #[test]
    fn no_line_ends_with_a_blank() {
        assert_eq!(lines(trailing_blanks, "a\n\n  b\n"), []);
        assert_eq!(lines(trailing_blanks, "a \nb\t\nc\r\n \nd"), [1, 2, 3, 4]);
    }

    #[test]
    fn tabs_are_for_strings_only() {
        assert_eq!(lines(tabs, "    a\n    let t = \"\t\";\n"), []);
        assert_eq!(lines(tabs, "\ta\n  \tb\n"), [1, 2]);
    }

    #[test]
    fn a_path_of_this_machine_is_found() {
        for [head, tail] in [["cd /wo", "rk/main"], ["\"/ro", "ot/.x\""], ["=/tm", "p/w/t"]] {
            assert_eq!(lines(machine_paths, &[head, tail].concat()), [1], "{head}{tail}");
        }
        assert_eq!(lines(machine_paths, &["a\nfile:///wo", "rk/x"].concat()), [2]);
        assert_eq!(lines(machine_paths, &["at /tm", "p/w"].concat()), [1]);
    }

    #[test]
    fn other_paths_are_not() {
        for text in
            ["network/x", "./work/x", "${HOME}/work/x", "GET /work", "/tmp/wal", "/rooted/x"]
        {
            assert_eq!(lines(machine_paths, text), [], "{text}");
        }
    }
}
