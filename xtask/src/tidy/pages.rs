//! Rules that hold documentation to the code: versions, statistics, crate pages, commands.

use super::Finding;
use crate::rust::{block, line_of};

/// Wherever `escala-x = ".."` stands, the requirement is one that the workspace's version meets,
/// given to as many places as it has.
#[must_use]
pub fn versions(path: &str, text: &str, version: &str) -> Vec<Finding> {
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let required = required_version(line)?;
        let agrees = version.strip_prefix(required);
        if agrees.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            return None;
        }
        let advice = format!("asks for {required}, the workspace is at {version}: make them agree");
        Some(Finding::new(path, index + 1, "version", advice))
    });
    lines.collect()
}

/// The version that a line such as `escala-x = { version = "0.1", .. }` asks for.
fn required_version(line: &str) -> Option<&str> {
    let (_, after) = line.split_once("escala-")?;
    let (name, value) = after.split_once('=')?;
    if !name.trim().chars().all(|c| c.is_ascii_lowercase() || c == '-') {
        return None;
    }
    let value = value.trim_start();
    let quoted = match value.strip_prefix('{') {
        Some(table) => table.split_once("version")?.1.trim_start().strip_prefix('=')?.trim_start(),
        None => value,
    };
    let required = quoted.strip_prefix('"')?.split('"').next()?;
    Some(required.trim_start_matches(['^', '=', '~', ' ']))
}

/// Every public field of a `..Stats` struct stands in the crate's README: a figure nobody
/// explains is a figure nobody reads. `code` is what [`code_only`](crate::rust::code_only) leaves.
#[must_use]
pub fn stats_fields(path: &str, code: &str, readme: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, head) in code.match_indices("pub struct ") {
        let name = word(&code[at + head.len()..]);
        let Some(body) = block(code, at).filter(|_| name.ends_with("Stats")) else { continue };
        for (offset, head) in code[body.clone()].match_indices("pub ") {
            let field = word(&code[body.start + offset + head.len()..]);
            if !has_word(readme, field) {
                let advice = format!(
                    "`{name}::{field}` is not in the crate's README.md: say there what it counts"
                );
                let line = line_of(code, body.start + offset);
                findings.push(Finding::new(path, line, "stats", advice));
            }
        }
    }
    findings
}

/// A crate has a README.md, and some file of its code includes it, so that its examples compile.
#[must_use]
pub fn readme<'a>(
    path: &str,
    readme: Option<&str>,
    mut code: impl Iterator<Item = &'a str>,
) -> Vec<Finding> {
    if readme.is_none() {
        return vec![Finding::new(path, 1, "readme", "write the crate's page")];
    }
    let is_included = |line: &str| {
        let line = line.trim_start();
        !line.starts_with("//") && line.contains("include_str!(") && line.contains("/README.md\")")
    };
    if code.any(|text| text.lines().any(is_included)) {
        return Vec::new();
    }
    let advice =
        "include it with `#![doc = include_str!(\"../README.md\")]`, so that it is compiled";
    vec![Finding::new(path, 1, "readme", advice)]
}

/// Every example's header names the command that runs it.
#[must_use]
pub fn example_command(path: &str, text: &str) -> Vec<Finding> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_example = match parts.as_slice() {
        ["examples", "src", "bin", _] | [.., "examples", _] => true,
        // A program of several files has its header in `main.rs`.
        ["examples", "src", "bin", _, file] | [.., "examples", _, file] => *file == "main.rs",
        _ => false,
    };
    let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
    if !is_example || header.contains("cargo run") {
        return Vec::new();
    }
    vec![Finding::new(path, 1, "command", "name the exact `cargo run ..` in the file's header")]
}

/// The identifier that the text begins with.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(text)
}

fn has_word(text: &str, wanted: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rust::code_only;

    /// The lines that ask for another version than 0.1.0.
    fn outdated(text: &str) -> Vec<usize> {
        versions("README.md", text, "0.1.0").iter().map(|f| f.line).collect()
    }

    #[test]
    fn versions_that_agree_are_fine() {
        for line in [
            "escala-cache = \"0.1\"",
            "escala-cache = \"0.1.0\"",
            "escala-cache = { version = \"0.1\", features = [\"redis\"] }",
            "escala-pool = { path = \"pool\", version = \"0.1.0\" }",
            "escala-cache.workspace = true",
            "the escala-cache crate: a = \"9\"",
            "other = \"9\"",
        ] {
            assert_eq!(outdated(line), [], "{line}");
        }
    }

    #[test]
    fn versions_that_do_not_are_found() {
        for line in [
            "escala-cache = \"0.2\"",
            "escala-cache = \"0.1.1\"",
            "escala-cache = \"0.10\"",
            "escala-cache = { version = \"1\", features = [\"redis\"] }",
            "`escala-cache = \"0.2\"`",
        ] {
            assert_eq!(outdated(line), [1], "{line}");
        }
    }

    const STATS: &str = "/// X.\n#[non_exhaustive]\npub struct XStats {\n    /// pub no.\n    \
                         pub hits_total: u64,\n    pub size: u64,\n    inner: u64,\n}\n\
                         pub struct Other {\n    pub misses: u64,\n}\n";

    #[test]
    fn every_figure_is_explained() {
        assert_eq!(stats_fields("x", &code_only(STATS), "| `hits_total` | .. |\n| `size` |"), []);
        assert_eq!(stats_fields("x", "pub struct XStats(u64);", ""), []);
    }

    #[test]
    fn a_figure_without_a_word_is_found() {
        let lines = |readme| -> Vec<usize> {
            stats_fields("x", &code_only(STATS), readme).iter().map(|f| f.line).collect()
        };
        assert_eq!(lines("`hits_total_2`, `sizes`"), [5, 6]);
        assert_eq!(lines("`hits_total`"), [6]);
    }

    #[test]
    fn a_readme_is_compiled() {
        let included = "#![doc = include_str!(\"../README.md\")]";
        assert_eq!(readme("x/README.md", Some("x"), ["", included].into_iter()), []);
        let nested = "    #[doc = include_str!(\"../../README.md\")]";
        assert_eq!(readme("x/README.md", Some("x"), [nested].into_iter()), []);
    }

    #[test]
    fn a_readme_that_is_missing_or_not_compiled_is_found() {
        let included = "#![doc = include_str!(\"../README.md\")]";
        assert_eq!(readme("x/README.md", None, [included].into_iter()).len(), 1);
        let comment = "// include_str!(\"../README.md\")";
        assert_eq!(readme("x/README.md", Some("x"), [comment].into_iter()).len(), 1);
    }

    #[test]
    fn an_example_names_its_command() {
        let header = "//! Shows x.\n//!\n//! `cargo run --bin x`\nfn main() {}\n";
        let silent = "//! Shows x.\nfn main() {} // cargo run\n";
        for path in ["examples/src/bin/x.rs", "cache/examples/x.rs", "pool/examples/x/main.rs"] {
            assert_eq!(example_command(path, header), [], "{path}");
            assert_eq!(example_command(path, silent).len(), 1, "{path}");
        }
        for path in ["examples/src/lib.rs", "examples/src/bin/x/part.rs", "cache/src/x.rs"] {
            assert_eq!(example_command(path, silent), [], "{path}");
        }
    }
}
