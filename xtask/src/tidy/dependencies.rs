//! Rules about who may depend on whom.

use super::Finding;
use crate::manifest::{entries, is_published};

/// No published crate depends on another escala crate, not even for its tests; `testkit` only
/// for its tests.
///
/// Examples and benches, which are not published, are where crates meet.
#[must_use]
pub fn between_packages(path: &str, manifest: &str) -> Vec<Finding> {
    if !is_published(manifest) {
        return Vec::new();
    }
    let dependencies = entries(manifest).filter(|entry| entry.is_dependency());
    let findings = dependencies.filter_map(|entry| {
        let name = entry.field("package").unwrap_or(entry.name());
        if name.starts_with("escala-") {
            let advice = format!(
                "no dependency on `{name}`: let the user pass a `Service` or a closure, and show \
                 both crates together in examples/"
            );
            return Some(Finding::new(path, entry.line, "dependency", advice));
        }
        let advice = "`testkit` belongs under [dev-dependencies]";
        (name == "testkit" && !entry.section.ends_with("dev-dependencies"))
            .then(|| Finding::new(path, entry.line, "testkit", advice))
    });
    // A dependency may also be a table of its own: `[dependencies.escala-x]`.
    let headings = manifest.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        line.starts_with('[') && line.contains("dependencies.escala-")
    });
    let headings = headings.map(|(index, _)| {
        let advice = "no dependency on another escala crate; and write it as one line";
        Finding::new(path, index + 1, "dependency", advice)
    });
    findings.chain(headings).collect()
}

/// `testkit` is named by path alone: with a version it would have to be published first.
#[must_use]
pub fn testkit_without_version(path: &str, root_manifest: &str) -> Vec<Finding> {
    let kit = entries(root_manifest)
        .filter(|e| e.section == "workspace.dependencies" && e.name() == "testkit");
    let bad = kit.filter(|e| e.field("path").is_none() || e.field("version").is_some());
    let advice = "write `testkit = { path = \"testkit\" }`, without a version";
    bad.map(|entry| Finding::new(path, entry.line, "testkit", advice)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and rule of what is found in a library with these further lines.
    fn found(lines: &str) -> Vec<(usize, &'static str)> {
        let manifest = format!("[package]\nname = \"escala-x\"\n{lines}");
        between_packages("x/Cargo.toml", &manifest).iter().map(|f| (f.line, f.rule)).collect()
    }

    #[test]
    fn a_library_names_no_other() {
        assert_eq!(found("[dependencies]\nescala-y.workspace = true\n"), [(4, "dependency")]);
        assert_eq!(found("[dev-dependencies]\nescala-y = \"0.1\"\n"), [(4, "dependency")]);
        assert_eq!(found("[build-dependencies]\nescala-y = \"0.1\"\n"), [(4, "dependency")]);
        assert_eq!(found("[target.x.dependencies]\nescala-y = \"0.1\"\n"), [(4, "dependency")]);
        let renamed = "[dependencies]\ny = { package = \"escala-y\", version = \"0.1\" }\n";
        assert_eq!(found(renamed), [(4, "dependency")]);
        assert_eq!(found("[dependencies.escala-y]\nversion = \"0.1\"\n"), [(3, "dependency")]);
    }

    #[test]
    fn other_dependencies_are_fine() {
        let lines = "[features]\nescala-like = []\n[dependencies]\ntokio.workspace = true\n\
                     [dev-dependencies]\ntestkit.workspace = true\n";
        assert_eq!(found(lines), []);
    }

    #[test]
    fn unpublished_packages_are_where_crates_meet() {
        let examples = "[package]\nname = \"escala-examples\"\npublish = false\n[dependencies]\n\
                        escala-y.workspace = true\ntestkit.workspace = true\n";
        assert_eq!(between_packages("examples/Cargo.toml", examples), []);
    }

    #[test]
    fn testkit_is_for_tests() {
        assert_eq!(found("[dependencies]\ntestkit.workspace = true\n"), [(4, "testkit")]);
    }

    #[test]
    fn testkit_has_a_path_and_no_version() {
        let check = |line: &str| {
            let root = format!("[workspace.dependencies]\n{line}\n");
            testkit_without_version("Cargo.toml", &root).len()
        };
        assert_eq!(check("testkit = { path = \"testkit\" }"), 0);
        assert_eq!(check("testkit = { path = \"testkit\", version = \"0.1\" }"), 1);
        assert_eq!(check("testkit = \"0.1\""), 1);
        assert_eq!(check("other = \"0.1\""), 0);
    }
}
