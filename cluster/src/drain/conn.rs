//! One connection, as its parts see it: what it does, and how it ends.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::label::Asked;
use super::report::CutKind;
use super::server::{Mode, Server};
use super::stats::{count_end, count_start};
#[cfg(feature = "http2")]
use super::streams::Streams;
use super::tally::{Tally, Way};

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
/// is enough; after an upgrade only `upgraded` and `end` are used. The streams of HTTP/2 have tasks of
/// their own: what they change is changed by one operation.
pub(super) struct Conn {
    server: Arc<Server>,
    tally: Arc<Tally>,
    asked: Asked,
    since: Instant,
    activity: AtomicU8,
    /// What has happened that ends idleness, besides requests: more of the body of one that has been
    /// answered already has come, or the connection speaks HTTP/2.
    moves: AtomicU64,
    /// Odd while a write waits for the client; each even number means that bytes have gone out.
    stall: AtomicU64,
    /// Reads and writes that moved bytes, of HTTP/2 only.
    traffic: AtomicU64,
    /// Whether a request's body has not been read to its end.
    uploading: AtomicBool,
    /// The number of the request whose head has two lengths that may differ; 0: none.
    ambiguous: AtomicU64,
    /// Whether the next read asks the kernel itself.
    looks: AtomicBool,
    /// Whether it is closed without a request, so that nothing can be on its way to the client.
    quiet: AtomicBool,
    /// Whether our side is closed, and what the client still sends is thrown away.
    parting: AtomicBool,
    /// The number it is registered under.
    upgraded: OnceLock<u64>,
    end: AtomicU8,
    #[cfg(feature = "http2")]
    h2: AtomicBool,
    #[cfg(feature = "http2")]
    streams: Streams,
}

impl Conn {
    pub(super) fn accepted(server: &Arc<Server>) -> Arc<Self> {
        count_start(&server.counters().accepted);
        server.joins();
        Arc::new(Self {
            server: Arc::clone(server),
            tally: server.account().requests.open(),
            asked: Asked::default(),
            since: Instant::now(),
            activity: AtomicU8::new(Activity::Fresh as u8),
            moves: AtomicU64::new(0),
            stall: AtomicU64::new(0),
            traffic: AtomicU64::new(0),
            uploading: AtomicBool::new(false),
            ambiguous: AtomicU64::new(0),
            looks: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            parting: AtomicBool::new(false),
            upgraded: OnceLock::new(),
            end: AtomicU8::new(ConnectionEnd::Finished as u8),
            #[cfg(feature = "http2")]
            h2: AtomicBool::new(false),
            #[cfg(feature = "http2")]
            streams: Streams::default(),
        })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn activity(&self) -> Activity {
        #[cfg(feature = "http2")]
        if self.is_h2() {
            return if self.streams.is_empty() { Activity::Idle } else { Activity::Busy };
        }
        match self.activity.load(Ordering::Relaxed) {
            0 => Activity::Fresh,
            1 => Activity::Head,
            2 => Activity::Busy,
            _ => Activity::Idle,
        }
    }

    #[cfg(not(feature = "http2"))]
    #[expect(clippy::unused_self, reason = "it speaks HTTP/1 whatever happens")]
    pub(super) fn is_h2(&self) -> bool {
        false
    }

    #[cfg(feature = "http2")]
    pub(super) fn is_h2(&self) -> bool {
        self.h2.load(Ordering::Relaxed)
    }

    /// From its first request on it speaks HTTP/2.
    #[cfg(feature = "http2")]
    pub(super) fn speak_h2(&self) {
        self.h2.store(true, Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "http2")]
    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Requests begun so far.
    pub(super) fn requests(&self) -> u64 {
        self.tally.started()
    }

    /// What has happened so far that ends idleness.
    pub(super) fn moves(&self) -> u64 {
        self.requests() + self.moves.load(Ordering::Relaxed)
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
        if moved {
            self.passes();
        }
    }

    /// Bytes have come or gone.
    pub(super) fn passes(&self) {
        if self.is_h2() {
            self.traffic.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Another number than before: its client is still there.
    pub(super) fn traffic(&self) -> u64 {
        self.traffic.load(Ordering::Relaxed)
    }

    /// Whether bytes of ours wait for the client.
    pub(super) fn is_stalled(&self) -> bool {
        self.stall() % 2 == 1
    }

    /// The same odd number twice: nothing has gone out between.
    pub(super) fn stall(&self) -> u64 {
        self.stall.load(Ordering::Relaxed)
    }

    pub(super) fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Relaxed)
    }

    /// On HTTP/1; on HTTP/2 it is a matter of each stream.
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

    #[inline]
    pub(super) fn request_begins(&self) {
        self.tally.start();
        self.activity.store(Activity::Busy as u8, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn request_ends(&self, way: Way) {
        self.tally.end(way, !self.is_h2());
        self.activity.store(Activity::Idle as u8, Ordering::Relaxed);
    }

    /// From now on the connection speaks another protocol, in a task we do not know.
    pub(super) fn upgrade(&self) {
        let open = &self.server.account().open;
        self.upgraded
            .get_or_init(|| open.enter(CutKind::Upgraded, self.asked.label().to_string().into()));
    }

    /// What is known of its last request, on HTTP/1.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// When it was accepted.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.get().is_some()
    }

    /// Before it is closed without a request: one may have arrived just now.
    pub(super) fn look(&self) {
        self.looks.store(true, Ordering::Relaxed);
    }

    /// True once after [`look`](Self::look).
    pub(super) fn looks_once_more(&self) -> bool {
        let looks = self.looks.load(Ordering::Relaxed);
        if looks {
            self.looks.store(false, Ordering::Relaxed);
        }
        looks
    }

    /// It is told to end.
    pub(super) fn told(&self) {
        let quiet = self.activity() != Activity::Busy && !self.is_h2();
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    pub(super) fn part(&self) {
        self.parting.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Relaxed)
    }

    pub(super) fn ends_as(&self, end: ConnectionEnd) {
        self.end.store(end as u8, Ordering::Release);
    }

    /// Counts the connection as ended, once its socket goes.
    pub(super) fn closed(&self) {
        if let Some(number) = self.upgraded.get() {
            self.server.account().open.leave(*number);
        }
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

impl Drop for Conn {
    fn drop(&mut self) {
        self.server.account().requests.close(&self.tally);
    }
}
