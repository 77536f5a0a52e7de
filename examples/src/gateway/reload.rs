//! Reads the file again: on SIGHUP, and when it changes if that is watched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::snapshot::Current;

/// Reloads until it is dropped.
///
/// # Errors
/// The system refuses the signal's handler.
pub(super) fn on_changes(
    path: PathBuf,
    current: Arc<Current>,
) -> anyhow::Result<impl Future<Output = ()>> {
    let hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let watch = current.get().file.watch;
    let seen = stamp(&path);
    Ok(run(path, current, hangup, watch, seen))
}

async fn run(
    path: PathBuf,
    current: Arc<Current>,
    mut hangup: Signal,
    watch: Option<Duration>,
    mut seen: Option<Stamp>,
) {
    loop {
        let changed = async {
            loop {
                let Some(watch) = watch else { return std::future::pending().await };
                tokio::time::sleep(watch).await;
                let now = stamp(&path);
                // A file that is away for a moment is being replaced.
                if now.is_some() && now != seen {
                    return;
                }
            }
        };
        tokio::select! {
            hung_up = hangup.recv() => if hung_up.is_none() { return },
            () = changed => {}
        }
        seen = stamp(&path);
        match current.reload(&path) {
            Ok(()) => tracing::info!(file = %path.display(), "the new file is in use"),
            Err(error) => tracing::error!("the old file stays in use: {error:#}"),
        }
    }
}

/// What changes with a file's content, however it was written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
    inode: u64,
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let data = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: data.modified().ok()?, length: data.len(), inode: data.ino() })
}
