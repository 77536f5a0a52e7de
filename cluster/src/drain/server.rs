//! What the connections of one server share: its phase, its places, its account.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::stats::{Account, Counters};
use super::{Drain, DrainConfig};

/// While every place is taken and one is wanted, connections without a request are looked for this
/// often.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// At most this share of all connections goes at a time: room for a burst, and no stampede.
const SWEEP_SHARE: u32 = 8;

/// Connections that come here are as in `Serving`, told to end, or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Serving,
    Closing,
    Cutting,
}

/// The right to be a connection; what works for one holds it together.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

pub(super) struct Server {
    config: DrainConfig,
    account: Arc<Account>,
    mode: AtomicU8,
    /// Times that the connections were told something: a mode, or to look whether they are idle.
    calls: AtomicU64,
    moved: Arc<Notify>,
    /// Connections that may still go in this sweep.
    surplus: AtomicU32,
    /// One permit a connection. All of them back means that no connection is left.
    places: Arc<Semaphore>,
    /// Connections that are still to be counted as ended.
    open: AtomicU64,
}

impl Server {
    pub(super) fn new(drain: &Drain) -> Arc<Self> {
        let config = drain.config().clone();
        Arc::new(Self {
            places: Arc::new(Semaphore::new(config.max_connections as usize)),
            config,
            account: Arc::clone(&drain.shared.account),
            mode: AtomicU8::new(Mode::Serving as u8),
            calls: AtomicU64::new(0),
            moved: Arc::default(),
            surplus: AtomicU32::new(0),
            open: AtomicU64::new(0),
        })
    }

    pub(super) fn config(&self) -> &DrainConfig {
        &self.config
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.account.counters
    }

    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            0 => Mode::Serving,
            1 => Mode::Closing,
            _ => Mode::Cutting,
        }
    }

    /// Tells every connection, those that wait and those that come.
    pub(super) fn enter(&self, mode: Mode) {
        self.mode.fetch_max(mode as u8, Ordering::AcqRel);
        self.call();
    }

    fn call(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        self.moved.notify_waiters();
    }

    /// Another number than before means that there is something to see.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }

    /// Ends at the next call after this one, even if it is not polled before.
    pub(super) fn moved(&self) -> OwnedNotified {
        Arc::clone(&self.moved).notified_owned()
    }

    pub(super) fn free_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// A place for one connection; waits while all are taken.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.places).acquire_owned().await.expect("never closed")
    }

    /// Has idle connections make room, and waits for it for a while.
    pub(super) async fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        let share = (self.config.max_connections / SWEEP_SHARE).max(1);
        self.surplus.store(share, Ordering::Release);
        self.call();
        timeout(SWEEP_INTERVAL, self.place()).await.ok()
    }

    /// Whether a connection that is idle is to make room.
    pub(super) fn is_surplus(&self) -> bool {
        // A place that came free meanwhile is room enough.
        let less = |surplus: u32| surplus.checked_sub(1);
        self.places.available_permits() == 0
            && self.surplus.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    /// Ends when every connection has given its place back.
    pub(super) async fn emptied(&self) {
        let all = self.places.acquire_many(self.config.max_connections).await;
        drop(all.expect("never closed"));
    }

    pub(super) fn joins(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts what is left as cut: upgraded connections whose task has not yet noticed.
    pub(super) fn write_off(&self) {
        let left = self.open.swap(0, Ordering::AcqRel);
        self.counters().connections_cut.fetch_add(left, Ordering::Release);
    }

    /// False if it was written off before.
    pub(super) fn leave(&self) -> bool {
        let left = |open: u64| open.checked_sub(1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).is_ok()
    }
}
