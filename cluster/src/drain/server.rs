//! What the connections of one server share: its phase, its places, its account.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::stats::{Counters, count_end, count_start};
use super::{Drain, DrainConfig};

/// Connections that come here are as in `Serving`, told to end, or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Serving,
    Closing,
    Cutting,
}

pub(super) struct Server {
    config: DrainConfig,
    counters: Arc<Counters>,
    mode: AtomicU8,
    moved: Arc<Notify>,
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
            counters: Arc::clone(&drain.shared.counters),
            mode: AtomicU8::new(Mode::Serving as u8),
            moved: Arc::default(),
            open: AtomicU64::new(0),
        })
    }

    pub(super) fn config(&self) -> &DrainConfig {
        &self.config
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
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
        self.moved.notify_waiters();
    }

    /// Ends at the next move after this call, even if it is not polled before.
    pub(super) fn moved(&self) -> OwnedNotified {
        Arc::clone(&self.moved).notified_owned()
    }

    /// A place for one connection; waits while all are taken.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.places).acquire_owned().await.expect("never closed")
    }

    /// Ends when every connection has given its place back.
    pub(super) async fn emptied(&self) {
        let all = self.places.acquire_many(self.config.max_connections).await;
        drop(all.expect("never closed"));
    }

    /// Counts what is left as cut: upgraded connections whose task has not yet noticed.
    pub(super) fn write_off(&self) {
        let left = self.open.swap(0, Ordering::AcqRel);
        self.counters.connections_cut.fetch_add(left, Ordering::Release);
    }

    /// False if it was written off before.
    fn leave(&self) -> bool {
        let left = |open: u64| open.checked_sub(1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).is_ok()
    }
}

/// What a connection is doing, as far as its times are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// Accepted, nothing received.
    Fresh,
    /// Some of a request's head has been received.
    Head,
    /// A request is being answered.
    Busy,
    /// The last response is out.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionEnd {
    Finished,
    TimedOut,
    Cut,
}

/// What the parts of one connection know in common. They run in one task, so that relaxed order
/// is enough; after an upgrade only `upgraded` and `end` are used.
pub(super) struct Conn {
    server: Arc<Server>,
    activity: AtomicU8,
    requests: AtomicU64,
    /// What has happened that ends idleness: a request, or more of the body of one that has been
    /// answered already.
    moves: AtomicU64,
    /// Odd while a write waits for the client; each even number means that bytes have gone out.
    stall: AtomicU64,
    /// Whether a request's body has not been read to its end.
    uploading: AtomicBool,
    /// The number of the request whose head has two lengths that may differ; 0: none.
    ambiguous: AtomicU64,
    upgraded: AtomicBool,
    end: AtomicU8,
}

impl Conn {
    pub(super) fn accepted(server: &Arc<Server>) -> Arc<Self> {
        count_start(&server.counters.accepted);
        server.open.fetch_add(1, Ordering::AcqRel);
        Arc::new(Self {
            server: Arc::clone(server),
            activity: AtomicU8::new(Activity::Fresh as u8),
            requests: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            stall: AtomicU64::new(0),
            uploading: AtomicBool::new(false),
            ambiguous: AtomicU64::new(0),
            upgraded: AtomicBool::new(false),
            end: AtomicU8::new(ConnectionEnd::Finished as u8),
        })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn activity(&self) -> Activity {
        match self.activity.load(Ordering::Relaxed) {
            0 => Activity::Fresh,
            1 => Activity::Head,
            2 => Activity::Busy,
            _ => Activity::Idle,
        }
    }

    /// Requests begun so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What has happened so far that ends idleness.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Bytes have arrived; true if they begin a head, as those between requests do. Those of a body
    /// whose request has been answered early do not.
    pub(super) fn received(&self) -> bool {
        if !matches!(self.activity(), Activity::Fresh | Activity::Idle) {
            return false;
        }
        if self.uploading.load(Ordering::Relaxed) {
            self.moves.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.activity.store(Activity::Head as u8, Ordering::Relaxed);
        true
    }

    /// A write was tried, and bytes have gone out or not.
    pub(super) fn wrote(&self, moved: bool) {
        let stall = self.stall.load(Ordering::Relaxed);
        if (stall % 2 == 1) == moved {
            self.stall.store(stall + 1, Ordering::Relaxed);
        }
    }

    /// The same odd number twice: nothing has gone out between.
    pub(super) fn stall(&self) -> u64 {
        self.stall.load(Ordering::Relaxed)
    }

    pub(super) fn uploads(&self, uploading: bool) {
        self.uploading.store(uploading, Ordering::Relaxed);
    }

    /// The head of this request has two lengths.
    pub(super) fn is_ambiguous(&self, request: u64) -> bool {
        self.ambiguous.load(Ordering::Relaxed) == request
    }

    pub(super) fn set_ambiguous(&self, request: u64) {
        self.ambiguous.store(request, Ordering::Relaxed);
    }

    pub(super) fn request_begins(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.activity.store(Activity::Busy as u8, Ordering::Relaxed);
    }

    pub(super) fn request_ends(&self) {
        self.activity.store(Activity::Idle as u8, Ordering::Relaxed);
    }

    /// From now on the connection speaks another protocol, in a task we do not know.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    pub(super) fn ends_as(&self, end: ConnectionEnd) {
        self.end.store(end as u8, Ordering::Release);
    }

    /// Counts the connection as ended, once its socket goes.
    pub(super) fn closed(&self) {
        if !self.server.leave() {
            return;
        }
        let counters = self.server.counters();
        let end = self.end.load(Ordering::Acquire);
        let cut = self.is_upgraded() && self.server.mode() == Mode::Cutting;
        if cut || end == ConnectionEnd::Cut as u8 {
            count_end(&counters.connections_cut);
        } else if end == ConnectionEnd::TimedOut as u8 {
            count_end(&counters.connections_timed_out);
        } else {
            count_end(&counters.connections_finished);
        }
    }
}
