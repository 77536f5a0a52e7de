//! The wait for the lock of another process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

/// How long to sleep between two looks. SQLite's own handler soon sleeps for 100 ms, in which a
/// process that commits one group after the other has taken the lock again a hundred times.
const NAP: Duration = Duration::from_millis(1);

/// How long a connection waits for a lock.
#[derive(Debug, Clone)]
pub(super) struct Patience(Arc<AtomicU64>);

impl Patience {
    /// Makes a connection wait so long.
    pub(super) fn install(conn: &mut Connection, longest: Duration) -> rusqlite::Result<Self> {
        let patience = Self(Arc::default());
        patience.set(longest);
        let (limit, mut began) = (Arc::clone(&patience.0), Instant::now());
        conn.busy_handler(Some(move |tries| {
            if tries == 0 {
                began = Instant::now();
            }
            let again = began.elapsed() < Duration::from_millis(limit.load(Ordering::Relaxed));
            if again {
                sleep(NAP);
            }
            again
        }))?;
        Ok(patience)
    }

    pub(super) fn set(&self, longest: Duration) {
        // It fits: the configuration allows a year.
        self.0.store(longest.as_millis() as u64, Ordering::Relaxed);
    }
}
