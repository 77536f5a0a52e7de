//! Reads the workspace from disk: its folder, its text files, its packages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::manifest;
use crate::tidy::Source;

/// A package of the workspace, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The name that `-p` takes.
    pub name: String,
    /// The folder below the workspace root.
    pub folder: String,
    /// False for packages that say `publish = false`.
    pub published: bool,
    /// Its features in the order of the manifest, without `default`.
    pub features: Vec<String>,
}

/// The folder of the root manifest.
#[must_use]
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask is a folder of the workspace")
}

/// The packages whose manifests are among `sources`, in the order of their folders.
#[must_use]
pub fn packages(sources: &[Source]) -> Vec<Package> {
    let manifests = sources.iter().filter_map(|source| {
        let folder = source.path.strip_suffix("/Cargo.toml")?;
        let name = manifest::package_name(&source.text)?;
        Some(Package {
            name: name.to_owned(),
            folder: folder.to_owned(),
            published: manifest::is_published(&source.text),
            features: manifest::features(&source.text).map(str::to_owned).collect(),
        })
    });
    manifests.collect()
}

/// Every text file that is, or could be, committed, ordered by path.
///
/// The walk asks no `git`: that would refuse a checkout that belongs to somebody else, and a
/// source archive has none. It leaves out `.git`, symbolic links, files that are not UTF-8, and
/// what the root `.gitignore` names.
///
/// # Errors
/// A folder or file that cannot be read.
pub fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let ignore = match fs::read_to_string(root.join(".gitignore")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.context("read .gitignore")?,
    };
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        let read = || format!("read {}", full.display());
        for entry in fs::read_dir(&full).with_context(read)? {
            let entry = entry.with_context(read)?;
            let relative = folder.join(entry.file_name());
            let path = relative.to_string_lossy().into_owned();
            if path == ".git" || is_ignored(&ignore, &path) {
                continue;
            }
            let kind = entry.file_type().with_context(read)?;
            if kind.is_dir() {
                folders.push(relative);
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).with_context(|| format!("read {path}"))?;
                found.extend(String::from_utf8(bytes).ok().map(|text| Source { path, text }));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Whether `.gitignore` names the path. Of git's patterns these are understood: `/path` from the
/// root, `name` at any depth, and `*.ending`; each with or without a closing `/`.
fn is_ignored(ignore: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let patterns = ignore.lines().map(|line| line.trim().trim_end_matches('/'));
    patterns.filter(|p| !p.is_empty() && !p.starts_with('#')).any(|pattern| {
        if let Some(anchored) = pattern.strip_prefix('/') {
            return path == anchored;
        }
        pattern.strip_prefix('*').map_or(name == pattern, |ending| name.ends_with(ending))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_paths_are_those_that_gitignore_names() {
        let ignore = "# built\n/target\n*.profraw\ndata/\n";
        for path in ["target", "x/y.profraw", "data", "examples/data"] {
            assert!(is_ignored(ignore, path), "{path}");
        }
        for path in ["x/target", "targets", "y.profraws", "database", "# built"] {
            assert!(!is_ignored(ignore, path), "{path}");
        }
    }

    #[test]
    fn packages_come_from_the_manifests_below_the_root() {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let library = "[package]\nname = \"escala-x\"\n[features]\nserde = []\n";
        let found = packages(&[
            source("Cargo.toml", "[workspace]\n"),
            source("kit/Cargo.toml", "[package]\nname = \"kit\"\npublish = false\n"),
            source("x/Cargo.toml", library),
        ]);
        let expected = [("kit", "kit", false, 0), ("escala-x", "x", true, 1)];
        let found: Vec<_> = found
            .iter()
            .map(|p| (p.name.as_str(), p.folder.as_str(), p.published, p.features.len()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_walk_finds_this_file_and_no_build_products() {
        let sources = sources(root()).expect("the workspace can be read");
        assert!(sources.iter().any(|s| s.path == "xtask/src/workspace.rs"));
        assert!(!sources.iter().any(|s| s.path.starts_with("target/")));
    }
}
