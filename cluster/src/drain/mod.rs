//! Graceful drain: a server that ends without losing a request.

mod accept;
mod config;
mod connection;
mod heads;
mod io;
mod request;
mod serve;
mod server;
mod signals;
mod stats;
mod watch;

use std::fmt;
use std::io::Result as IoResult;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch as channel;

pub use self::config::DrainConfig;
pub use self::serve::{ServeError, serve};
pub use self::stats::{DrainEnd, DrainReport, DrainStats};

use self::stats::Counters;

/// Ends one server, or several, in good order: not ready, lame duck, no new connections, open
/// requests finished, the rest cut at the deadline.
///
/// A cheap handle: clones share it. It serves once; a drain that has begun cannot be taken back.
///
/// # Example
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, http::StatusCode, routing::get};
/// use escala_cluster::{Drain, DrainConfig, serve};
///
/// # async fn server() -> Result<(), Box<dyn std::error::Error>> {
/// let drain = Drain::new(DrainConfig::default().deadline(Duration::from_secs(15)));
/// drain.on_signals()?;
///
/// let ready = drain.clone();
/// let router = Router::new().route("/", get(async || "hello")).route(
///     "/health/ready",
///     get(async move || match ready.is_draining() {
///         false => StatusCode::OK,
///         true => StatusCode::SERVICE_UNAVAILABLE,
///     }),
/// );
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let report = serve(listener, router, drain).await?;
/// assert!(report.is_clean(), "{report:?}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    config: DrainConfig,
    status: channel::Sender<Status>,
    counters: Arc<Counters>,
    /// Whether signals are listened to: a second listener would take the first signal for the
    /// second one.
    on_signals: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    phase: Phase,
    /// Servers that have not ended.
    servers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Aborted,
}

impl Drain {
    /// A drain that has not begun. The configuration is checked by [`serve`].
    #[must_use]
    pub fn new(config: DrainConfig) -> Self {
        let status = channel::Sender::new(Status { phase: Phase::Serving, servers: 0 });
        let counters = Arc::default();
        let on_signals = AtomicBool::new(false);
        Self { shared: Arc::new(Shared { config, status, counters, on_signals }) }
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &DrainConfig {
        &self.shared.config
    }

    /// From now on the first SIGTERM or SIGINT begins the drain, and a second one ends it at once:
    /// connections are cut and [`serve`] returns.
    ///
    /// Neither signal ends the process by itself any more, even after `serve` has returned. Calling
    /// it again changes nothing.
    ///
    /// # Errors
    /// There is no tokio runtime, or the system refuses the handler.
    ///
    /// # Panics
    /// If the runtime was built without its I/O driver (`enable_io`).
    pub fn on_signals(&self) -> IoResult<()> {
        if self.shared.on_signals.load(Ordering::Acquire) {
            return Ok(());
        }
        signals::listen(self)?;
        self.shared.on_signals.store(true, Ordering::Release);
        Ok(())
    }

    /// Begins the drain. Calling it again changes nothing.
    pub fn begin(&self) {
        if self.advance(Phase::Draining) {
            #[cfg(feature = "tracing")]
            tracing::info!(lame_duck = ?self.config().lame_duck, "drain begins");
        }
    }

    /// Ends the drain at once, as a second signal does: every connection is cut.
    pub fn abort(&self) {
        if self.advance(Phase::Aborted) {
            #[cfg(feature = "tracing")]
            tracing::warn!("drain aborted: open connections are cut");
        }
    }

    /// Whether the drain has begun: from the start of the lame duck on. For the readiness check.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.status.borrow().phase >= Phase::Draining
    }

    /// Ends when the drain begins, or when no handle is left that could begin it.
    pub fn started(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.reaches(|status| status.phase >= Phase::Draining)
    }

    /// Ends when the drain has begun and every server on it has ended: no request can come any
    /// more, and what serves requests (worker lanes, connection pools) may go. Also ends when no
    /// handle is left.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.reaches(|status| status.phase >= Phase::Draining && status.servers == 0)
    }

    /// The figures of all servers on this drain, as of now.
    #[must_use]
    pub fn stats(&self) -> DrainStats {
        self.shared.counters.snapshot(self.is_draining())
    }

    fn aborted(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.reaches(|status| status.phase >= Phase::Aborted)
    }

    /// An error of the channel means that every handle is gone.
    fn reaches<F>(&self, end: F) -> impl Future<Output = ()> + Send + 'static + use<F>
    where
        F: Fn(&Status) -> bool + Send + 'static,
    {
        let mut status = self.shared.status.subscribe();
        async move { drop(status.wait_for(end).await) }
    }

    /// False if it was there already.
    fn advance(&self, phase: Phase) -> bool {
        self.shared.status.send_if_modified(|status| {
            let later = phase > status.phase;
            status.phase = status.phase.max(phase);
            later
        })
    }

    fn count_servers(&self, change: impl FnOnce(usize) -> usize) {
        self.shared.status.send_modify(|status| status.servers = change(status.servers));
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("status", &*self.shared.status.borrow())
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
