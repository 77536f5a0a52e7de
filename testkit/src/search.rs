//! Where programs are found, and which package to install when they are not.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// The folders in which programs are looked for, in order.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    folders: Vec<PathBuf>,
}

impl Default for Search {
    /// `PATH`, then the system's folders, which an ordinary user's `PATH` often lacks.
    fn default() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        let system =
            ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        let folders = env::split_paths(&path).chain(system.into_iter().map(PathBuf::from));
        Self { folders: folders.collect() }
    }
}

impl Search {
    /// The same search with a folder that comes first.
    pub(crate) fn first_in(mut self, folder: PathBuf) -> Self {
        self.folders.insert(0, folder);
        self
    }

    /// The same search with folders that come last.
    pub(crate) fn then_in(mut self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        self.folders.extend(folders);
        self
    }

    /// The first executable of this name; the error names the Debian package that has it.
    pub(crate) fn find(&self, binary: &str, package: &'static str) -> Result<PathBuf, Error> {
        self.folders
            .iter()
            .map(|folder| folder.join(binary))
            .find(|file| is_executable(file))
            .ok_or_else(|| Error::MissingBinary { binary: binary.to_owned(), package })
    }

    /// The folders as a value for the environment variable `PATH` of a child.
    pub(crate) fn as_path(&self) -> OsString {
        // A folder with a colon in its name cannot be in PATH; leaving PATH empty is then right.
        env::join_paths(&self.folders).unwrap_or_default()
    }
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
