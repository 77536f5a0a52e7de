//! Holds the whole workspace to the rules of `cargo xtask tidy`.

use xtask::{tidy, workspace};

#[test]
fn the_workspace_keeps_the_rules_of_the_house() {
    let sources = workspace::sources(workspace::root()).expect("the workspace can be read");
    let findings = tidy::check(&sources);
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}
