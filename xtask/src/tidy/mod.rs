//! The rules of the house that neither the compiler nor clippy knows.
//!
//! Each rule is a function of a path and a text (some also of what stands elsewhere, given as an
//! argument) and says for each finding what to do. A rule that is wrong somewhere is changed
//! here, for all; there is no way to switch one off for a file.

pub mod code;
pub mod dependencies;
pub mod pages;
pub mod text;

use std::fmt;

use crate::manifest;
use crate::rust::code_only;

/// A text file of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Path below the workspace root, with `/`.
    pub path: String,
    /// The whole content.
    pub text: String,
}

/// A place where a rule is broken. Displayed as `path:line: [rule] advice`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path below the workspace root.
    pub path: String,
    /// Counted from one.
    pub line: usize,
    /// The rule's short name.
    pub rule: &'static str,
    /// What is wrong and what to do.
    pub advice: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.path, self.line, self.rule, self.advice)
    }
}

/// Applies every rule to every file it concerns; the findings are ordered by place.
#[must_use]
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let root = sources.iter().find(|s| s.path == "Cargo.toml").map_or("", |s| &s.text);
    let version = manifest::workspace_version(root).unwrap_or("0.0.0");
    let mut findings = Vec::new();
    for Source { path, text } in sources {
        findings.extend(check_text(path, text));
        if path.ends_with(".rs") {
            findings.extend(check_rust(path, text));
        }
        if path == "Cargo.toml" || path.ends_with("README.md") {
            findings.extend(pages::versions(path, text, version));
        }
        if let Some(folder) = path.strip_suffix("/Cargo.toml") {
            findings.extend(check_package(sources, folder, text));
        }
    }
    findings.extend(dependencies::testkit_without_version("Cargo.toml", root));
    findings.sort();
    findings
}

/// The rules for any text.
fn check_text(path: &str, text: &str) -> Vec<Finding> {
    [text::trailing_blanks(path, text), text::machine_paths(path, text)].concat()
}

/// The rules for a Rust file by itself.
fn check_rust(path: &str, text: &str) -> Vec<Finding> {
    let code = code_only(text);
    [
        text::header(path, text),
        text::tabs(path, text),
        code::length(path, &code),
        code::unready_clone(path, &code),
        code::banned(path, &code),
        pages::example_command(path, text),
    ]
    .concat()
}

/// The rules for a package as a whole, given its manifest.
fn check_package(sources: &[Source], folder: &str, manifest_text: &str) -> Vec<Finding> {
    let manifest_path = format!("{folder}/Cargo.toml");
    let mut findings = dependencies::between_packages(&manifest_path, manifest_text);
    if !manifest::is_published(manifest_text) {
        return findings;
    }
    let inside = format!("{folder}/src/");
    let code: Vec<&Source> = sources.iter().filter(|s| s.path.starts_with(&inside)).collect();
    let readme_path = format!("{folder}/README.md");
    let readme = sources.iter().find(|s| s.path == readme_path).map(|s| s.text.as_str());
    findings.extend(pages::readme(&readme_path, readme, code.iter().map(|s| s.text.as_str())));
    // Without a page each figure would be one more finding that says the same.
    if let Some(readme) = readme {
        for Source { path, text } in code {
            findings.extend(pages::stats_fields(path, &code_only(text), readme));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    /// A workspace of one library that keeps every rule.
    fn clean() -> Vec<Source> {
        vec![
            source("Cargo.toml", "[workspace.package]\nversion = \"0.1.0\"\n"),
            source("x/Cargo.toml", "[package]\nname = \"escala-x\"\n"),
            source("x/README.md", "`escala-x = \"0.1\"` counts `hits`.\n"),
            source(
                "x/src/lib.rs",
                "//! X.\n#![doc = include_str!(\"../README.md\")]\n\
                 pub struct XStats {\n    pub hits: u64,\n}\n",
            ),
        ]
    }

    #[test]
    fn a_clean_workspace_has_no_findings() {
        assert_eq!(check(&clean()), []);
    }

    #[test]
    fn each_rule_is_applied() {
        let mut sources = clean();
        sources[0].text += "testkit = { version = \"1\" }\n";
        sources[0].text = sources[0].text.replace("testkit", "[workspace.dependencies]\ntestkit");
        sources[1].text += "[dependencies]\nescala-y = \"0.1\"\n";
        sources[2].text = "`escala-x = \"0.2\"` \n".into();
        sources[3].text = "pub struct XStats {\n\tpub hits: u64,\n}\n#[ignore]\nfn call() { \
                           self.inner.clone() }\n"
            .into();
        let home = ["/ro", "ot/x"].concat();
        sources.push(source("deploy/unit", &home));
        sources.push(source("x/examples/a.rs", "//! Nothing.\n"));
        sources.push(source("x/src/long.rs", &format!("//! Long.{}", "\n// x".repeat(500))));

        let mut rules: Vec<_> = check(&sources).iter().map(|f| f.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let expected = [
            "banned",
            "blanks",
            "command",
            "dependency",
            "header",
            "length",
            "machine-path",
            "readme",
            "stats",
            "tabs",
            "testkit",
            "unready-clone",
            "version",
        ];
        assert_eq!(rules, expected);
    }

    #[test]
    fn a_finding_names_place_rule_and_advice() {
        let finding = Finding::new("a/b.rs", 7, "tabs", "indent with spaces");
        assert_eq!(finding.to_string(), "a/b.rs:7: [tabs] indent with spaces");
    }
}
