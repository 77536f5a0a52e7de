//! Keeps the write-ahead log short.
//!
//! SQLite would move the log into the database inside a commit, while its callers wait. Here the
//! writer does it after it has answered them. And SQLite begins the log anew only if at that moment
//! nobody reads from it, which under constant readers is never; so past a size the writer waits for
//! those who read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::busy::Patience;
use super::config::SqliteConfig;

/// How long the writer waits for readers before it lets the log grow on: as long as a caller may be
/// kept waiting without a reason of its own.
const WAIT: Duration = Duration::from_millis(100);

/// The writer's care for the log.
#[derive(Debug)]
pub(super) struct Checkpoints {
    log: PathBuf,
    /// Pages in the log, as the last commit told.
    pages: Arc<AtomicI32>,
    /// Pages in the log when it was last moved, and when the readers were last waited for.
    moved: i32,
    waited: i32,
    every: i32,
    longest: u64,
    patience: Patience,
    usual: Duration,
}

impl Checkpoints {
    pub(super) fn new(
        conn: &mut Connection,
        config: &SqliteConfig,
        patience: Patience,
    ) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicI32::new(0));
        let told = Arc::clone(&pages);
        // Takes the place of SQLite's own checkpoint.
        conn.wal_hook(Some(move |_: &mut _, pages| {
            told.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            log: beside(&config.path, "-wal"),
            pages,
            moved: 0,
            waited: 0,
            every: config.checkpoint_pages as i32,
            longest: config.max_log,
            patience,
            usual: config.busy_timeout,
        })
    }

    /// Moves the log into the database if enough has come.
    pub(super) fn run(&mut self, conn: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.moved {
            // It began anew.
            (self.moved, self.waited) = (0, 0);
        }
        if pages - self.moved < self.every {
            return;
        }
        self.moved = pages;
        // What fails here is tried again, and a full disk is told to those who write.
        let _busy = conn.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE);
        let size = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        if size < self.longest || pages - self.waited < self.every {
            return;
        }
        self.waited = pages;
        self.patience.set(WAIT);
        let emptied = conn.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE);
        self.patience.set(self.usual);
        if emptied.is_ok() {
            self.pages.store(0, Ordering::Relaxed);
            (self.moved, self.waited) = (0, 0);
        }
    }
}

/// A file that SQLite keeps beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
