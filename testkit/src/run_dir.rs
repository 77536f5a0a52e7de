//! Temporary folders that disappear, also those of a test that was killed.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Error;
use crate::shared_memory;

/// The file in each folder on which its owner holds a lock while it lives.
const OWNER: &str = "owner.lock";

/// The prefix of the folders' names.
const PREFIX: &str = "run-";

/// The folder of one server or cluster, removed on drop.
#[derive(Debug)]
pub(crate) struct RunDir {
    dir: TempDir,
    /// Locked as long as it is open, so the system unlocks it however this process ends.
    _owner: File,
}

impl RunDir {
    /// Makes a new folder and removes the ones whose owner has died.
    pub(crate) fn new() -> Result<Self, Error> {
        Self::create().map_err(Error::io("create a temporary folder"))
    }

    fn create() -> io::Result<Self> {
        let base = base()?;
        // Nobody sweeps between our making the folder and our locking the file in it.
        let _guard = lock(&base.join("base.lock"))?;
        sweep(&base)?;
        // Traversable for others: a server of another user lives in a folder below.
        let mode = Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().prefix(PREFIX).permissions(mode).tempdir_in(&base)?;
        let owner = lock(&dir.path().join(OWNER))?;
        Ok(Self { dir, _owner: owner })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// The folder of this user in the system's folder for temporary files.
pub(crate) fn base() -> io::Result<PathBuf> {
    let user = rustix::process::geteuid();
    let base = std::env::temp_dir().join(format!("escala-testkit-{user}"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&base)?;
    // The name can be guessed: what another user has put there must not be used.
    if fs::symlink_metadata(&base)?.uid() != user.as_raw() {
        let why = format!("{} belongs to another user", base.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(base)
}

/// Opens a file and waits for the exclusive lock on it.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Removes the folders that nobody owns any more, with the processes and the shared memory that
/// belong to them.
fn sweep(base: &Path) -> io::Result<()> {
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(PREFIX) {
            continue;
        }
        let owner = File::open(path.join(OWNER));
        // Without the file the owner died before the lock, which is taken under the guard.
        if owner.is_ok_and(|file| file.try_lock().is_err()) {
            continue;
        }
        kill_inhabitants(&path)?;
        // An owner who is just ending removes it too.
        for node in fs::read_dir(&path).into_iter().flatten().flatten() {
            shared_memory::free(&node.path());
        }
        // A folder that resists is tried again by the next start.
        let _ = fs::remove_dir_all(&path);
    }
    Ok(())
}

/// Kills (SIGKILL) the processes whose working folder is in this one, and returns how many there
/// were.
///
/// That is how servers are known that nobody here is the parent of: those which a killed test left
/// behind (a stopped walreceiver, for one, gets no parent death signal), and those which Patroni
/// starts.
pub(crate) fn kill_inhabitants(dir: &Path) -> io::Result<usize> {
    let mut alive = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let lives_here =
            fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder.starts_with(dir));
        let pid = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && lives_here
        {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
            alive += 1;
        }
    }
    Ok(alive)
}

#[cfg(test)]
mod tests;
