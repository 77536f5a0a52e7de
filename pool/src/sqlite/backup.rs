//! A copy of the database while it is in use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::SqlitePool;
use super::busy::Patience;
use super::checkpoint::beside;
use super::config::SqliteConfig;
use crate::error::PoolError;

/// Pages copied between two looks whether the copy is still wanted: 1 MiB at SQLite's usual size.
const STEP: i32 = 256;

/// The pause before a step that met a lock is tried again.
const AGAIN: Duration = Duration::from_millis(5);

impl SqlitePool {
    /// Copies the database into a file, as it is at one moment, while others read and write.
    ///
    /// The copy is made under another name beside `path`, written through to the disk, and then put
    /// in the place of what stood there; it is one file, without a log. It has the permissions of
    /// the database. One backup of a pool runs at a time; a second one waits.
    ///
    /// A thread of its own reads one state of the database from begin to end, so writers are not
    /// held up; the write-ahead log keeps what they write meanwhile and grows by it.
    ///
    /// # Errors
    /// [`PoolError::Backup`] if the file cannot be written, or `path` is this database or one with a
    /// log or journal beside it, as a database in use mostly has: do not rely on that;
    /// [`PoolError::Sqlite`]; [`PoolError::Closed`] if the pool is closed meanwhile.
    ///
    /// # Cancellation
    /// When the future is dropped the copy ends soon and its file is removed. What stands at `path`
    /// is the old file or the new one, whole.
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<(), PoolError> {
        let turn = Arc::clone(&self.inner.backups).acquire_owned().await;
        let turn = turn.map_err(|_closed| PoolError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let job = Job {
            config: self.inner.config.clone(),
            path: path.as_ref().to_owned(),
            wanted: Arc::clone(&wanted.0),
            closed: Arc::clone(&self.inner.closed),
            _turn: turn,
        };
        std::thread::Builder::new()
            .name("escala-backup".to_owned())
            .spawn(move || drop(answer.send(job.run())))
            .map_err(PoolError::Backup)?;
        answered.await.unwrap_or(Err(PoolError::Closed))
    }
}

/// Ends the copy when it is dropped with the caller's future.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct Job {
    config: SqliteConfig,
    path: PathBuf,
    wanted: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    /// Kept until the copy has ended, also when its caller left before.
    _turn: OwnedSemaphorePermit,
}

impl Job {
    fn run(&self) -> Result<(), PoolError> {
        self.refuse_a_database_in_use().map_err(PoolError::Backup)?;
        let part = Part::create(&self.path).map_err(PoolError::Backup)?;
        self.copy(&part.path)?;
        self.save(&part).map_err(PoolError::Backup)?;
        // It took its time to be written through.
        self.check_wanted()?;
        self.replace(&part).map_err(PoolError::Backup)
    }

    fn check_wanted(&self) -> Result<(), PoolError> {
        if self.closed.load(Ordering::Relaxed) || !self.wanted.load(Ordering::Relaxed) {
            return Err(PoolError::Closed);
        }
        Ok(())
    }

    /// To put a file in the place of an open database, or of one whose log or journal is still to be
    /// worked into it, can destroy both. This sees the pool's own file and what has left a log or a
    /// journal; a database in use without either, or opened a moment later, it does not see.
    fn refuse_a_database_in_use(&self) -> io::Result<()> {
        let same = fs::canonicalize(&self.path)
            .is_ok_and(|path| fs::canonicalize(&self.config.path).is_ok_and(|own| own == path));
        let left = ["-wal", "-journal"].iter().any(|suffix| beside(&self.path, suffix).exists());
        if same || left {
            let text = "a database that is in use stands there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(())
    }

    fn copy(&self, part: &Path) -> Result<(), PoolError> {
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read = flags | OpenFlags::SQLITE_OPEN_READ_ONLY;
        let open = || -> rusqlite::Result<(Connection, Connection)> {
            let mut from = Connection::open_with_flags(&self.config.path, read)?;
            Patience::install(&mut from, self.config.busy_timeout)?;
            // Held to the end: else SQLite would begin anew after each write of others.
            from.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
            let write = flags | OpenFlags::SQLITE_OPEN_READ_WRITE;
            let to = Connection::open_with_flags(part, write)?;
            // A copy that is not finished is thrown away.
            to.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(()))?;
            to.execute_batch("PRAGMA synchronous = OFF")?;
            Ok((from, to))
        };
        let (from, mut to) = open().map_err(PoolError::Sqlite)?;
        let backup = Backup::new(&from, &mut to).map_err(PoolError::Sqlite)?;
        loop {
            self.check_wanted()?;
            match backup.step(STEP).map_err(PoolError::Sqlite)? {
                StepResult::Done => break,
                StepResult::More => {}
                // Nobody else knows the copy, and the state to copy is held: this should not be.
                _ => sleep(AGAIN),
            }
        }
        drop(backup);
        // The copy would say of itself that it has a log.
        to.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(PoolError::Sqlite)?;
        to.close().map_err(|(_, error)| PoolError::Sqlite(error))
    }

    fn save(&self, part: &Part) -> io::Result<()> {
        fs::set_permissions(&part.path, fs::metadata(&self.config.path)?.permissions())?;
        File::open(&part.path)?.sync_all()
    }

    /// Puts the copy in its place. After a power cut the old file stands there or the new one.
    fn replace(&self, part: &Part) -> io::Result<()> {
        self.refuse_a_database_in_use()?;
        fs::rename(&part.path, &self.path)?;
        // A folder cannot be opened elsewhere.
        #[cfg(unix)]
        File::open(folder_of(&self.path))?.sync_all()?;
        Ok(())
    }
}

/// The file of a copy under way; removed unless it was put in its place.
struct Part {
    path: PathBuf,
}

impl Part {
    fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut part = name.to_owned();
        part.push(format!(".{:016x}.part", fastrand::u64(..)));
        let part = folder_of(path).join(part);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            // Nobody else reads what the database may hold.
            options.mode(0o600);
        }
        options.open(&part)?;
        Ok(Self { path: part })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is not there any more if it was renamed.
        drop(fs::remove_file(&self.path));
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
