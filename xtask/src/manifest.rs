//! What the rules and the feature matrix need from a `Cargo.toml`.
//!
//! A manifest is read line by line: a section heading, or `key = value`. That covers how this
//! workspace writes its manifests, gives each entry its line number for a finding, and spares
//! the tree a TOML parser. A value may go on over further lines; those are not entries.

/// One `key = value` line of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The heading it stands under, without brackets; empty before the first one.
    pub section: &'a str,
    /// The key as written, so `tokio.workspace` for `tokio.workspace = true`.
    pub key: &'a str,
    /// The rest of the line after `=`, trimmed.
    pub value: &'a str,
    /// Counted from one.
    pub line: usize,
}

impl<'a> Entry<'a> {
    /// The first part of a dotted key: the dependency's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.key.split('.').next().unwrap_or(self.key).trim_matches('"')
    }

    /// The value without its quotes, if it is a plain string.
    #[must_use]
    pub fn string(&self) -> Option<&'a str> {
        self.value.strip_prefix('"')?.split('"').next()
    }

    /// The string that `field` has in an inline table such as `{ version = "1", path = "x" }`.
    #[must_use]
    pub fn field(&self, field: &str) -> Option<&'a str> {
        let table = self.value.strip_prefix('{')?;
        table.split([',', '{']).find_map(|part| {
            let (key, value) = part.split_once('=')?;
            let value = value.trim().strip_prefix('"')?;
            (key.trim() == field).then(|| value.split('"').next()).flatten()
        })
    }

    /// Whether the entry stands in a table of dependencies of any kind, per target or not.
    #[must_use]
    pub fn is_dependency(&self) -> bool {
        self.section.ends_with("dependencies") && self.section != "workspace.dependencies"
    }
}

/// All entries of a manifest in order.
pub fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if let Some(heading) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = heading.trim_matches(['[', ']']);
            return None;
        }
        let (key, value) = line.split_once('=')?;
        let key = key.trim();
        let plain = |c: char| c.is_alphanumeric() || "_-.\"".contains(c);
        (!key.is_empty() && key.chars().all(plain)).then(|| Entry {
            section,
            key,
            value: value.trim(),
            line: index + 1,
        })
    })
}

/// The package's name, if the manifest is one of a package.
#[must_use]
pub fn package_name(text: &str) -> Option<&str> {
    entries(text).find(|e| e.section == "package" && e.key == "name")?.string()
}

/// Whether the package may be published: a library for strangers, not a part of the house.
#[must_use]
pub fn is_published(text: &str) -> bool {
    let withheld = |e: Entry<'_>| e.section == "package" && e.key == "publish";
    package_name(text).is_some() && !entries(text).any(|e| withheld(e) && e.value == "false")
}

/// The package's features in the order of the manifest, without `default`.
pub fn features(text: &str) -> impl Iterator<Item = &str> {
    entries(text).filter(|e| e.section == "features" && e.key != "default").map(|e| e.key)
}

/// The version that all packages inherit, from the root manifest.
#[must_use]
pub fn workspace_version(text: &str) -> Option<&str> {
    entries(text).find(|e| e.section == "workspace.package" && e.key == "version")?.string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str = r#"[package]
name = "escala-x"
version.workspace = true

[features]
default = []
# A comment = ignored.
redis = ["dep:redis", "tokio/net"]
serde = [
    "dep:serde",
]

[target.'cfg(unix)'.dependencies]
rustix = { version = "1.1", features = ["a", "b"], path = "../r" }
"#;

    #[test]
    fn entries_know_their_section_and_line() {
        let found: Vec<_> = entries(LIBRARY).map(|e| (e.section, e.key, e.line)).collect();
        assert_eq!(
            found,
            [
                ("package", "name", 2),
                ("package", "version.workspace", 3),
                ("features", "default", 6),
                ("features", "redis", 8),
                ("features", "serde", 9),
                ("target.'cfg(unix)'.dependencies", "rustix", 14),
            ]
        );
    }

    #[test]
    fn an_inline_table_gives_its_fields() {
        let entry = entries(LIBRARY).last().expect("the manifest has entries");
        assert!(entry.is_dependency());
        assert_eq!(entry.name(), "rustix");
        assert_eq!(entry.field("version"), Some("1.1"));
        assert_eq!(entry.field("path"), Some("../r"));
        assert_eq!(entry.field("features"), None);
        assert_eq!(entry.string(), None);
    }

    #[test]
    fn a_package_is_published_unless_it_says_no() {
        assert!(is_published(LIBRARY));
        assert!(!is_published("[package]\nname = \"x\"\npublish = false\n"));
        assert!(!is_published("[workspace]\nmembers = []\n"));
        assert_eq!(package_name(LIBRARY), Some("escala-x"));
        assert_eq!(package_name("[workspace]\n"), None);
    }

    #[test]
    fn features_leave_out_default() {
        assert_eq!(features(LIBRARY).collect::<Vec<_>>(), ["redis", "serde"]);
        assert_eq!(features("[package]\nname = \"x\"\n").count(), 0);
    }

    #[test]
    fn the_workspace_version_is_not_a_packages() {
        assert_eq!(workspace_version("[workspace.package]\nversion = \"0.1.0\"\n"), Some("0.1.0"));
        assert_eq!(workspace_version("[package]\nversion = \"0.1.0\"\n"), None);
    }
}
