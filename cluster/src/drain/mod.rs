//! Graceful drain: a server that ends without losing a request.

mod accept;
mod application;
mod body;
mod config;
mod conn;
mod connection;
mod heads;
mod http;
mod io;
mod job;
mod label;
mod open;
mod primitives;
mod report;
mod request;
mod router;
mod serve;
mod server;
mod signals;
mod stats;
mod streams;
mod tally;
#[cfg(test)]
mod tests;
mod watch;

use std::borrow::Cow;
use std::fmt;
use std::io::Result as IoResult;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep_until, timeout_at};

pub use self::config::DrainConfig;
pub use self::job::{Job, JobCut};
pub use self::report::{Cut, CutKind, DrainEnd, DrainReport};
pub use self::serve::{ServeError, serve, serve_management};
pub use self::stats::DrainStats;

use self::stats::Account;

/// As much of a job's name as is kept.
const NAME_LENGTH: usize = 78;

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
///
/// # Streams that do not end by themselves
/// An SSE stream is a response like any other, and a WebSocket a connection: the drain waits for both
/// until its deadline, and then cuts them. [`Drain::closing`] tells them in time. Their clients connect
/// again, and come out at another process.
/// ```
/// use std::convert::Infallible;
/// use axum::extract::State;
/// use axum::response::sse::{Event, Sse};
/// use escala_cluster::Drain;
/// use futures_util::{Stream, StreamExt};
///
/// async fn ticks(State(drain): State<Drain>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
///     let events = futures_util::stream::repeat_with(|| Ok(Event::default().data("tick")));
///     Sse::new(events.take_until(drain.closing()))
/// }
/// ```
/// ```
/// use axum::extract::State;
/// use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
/// use axum::response::Response;
/// use escala_cluster::Drain;
///
/// async fn upgrade(State(drain): State<Drain>, upgrade: WebSocketUpgrade) -> Response {
///     upgrade.on_upgrade(|socket| echo(socket, drain))
/// }
///
/// async fn echo(mut socket: WebSocket, drain: Drain) {
///     let mut closing = std::pin::pin!(drain.closing());
///     loop {
///         tokio::select! {
///             message = socket.recv() => match message {
///                 Some(Ok(message)) => {
///                     if socket.send(message).await.is_err() {
///                         return;
///                     }
///                 }
///                 _ => return,
///             },
///             () = &mut closing => {
///                 let reason = CloseFrame { code: close_code::AWAY, reason: "restart".into() };
///                 // Fails only if the client is gone.
///                 drop(socket.send(Message::Close(Some(reason))).await);
///                 return;
///             }
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    config: DrainConfig,
    status: channel::Sender<Status>,
    account: Arc<Account>,
    began: OnceLock<Instant>,
    closed: OnceLock<Instant>,
    /// Whether signals are listened to: a second listener would take the first signal for the
    /// second one.
    on_signals: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    phase: Phase,
    /// Servers that have not ended.
    servers: usize,
    /// Whether it was not the deadline that cut.
    aborted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// The lame duck.
    Draining,
    Closing,
    Cutting,
}

impl Drain {
    /// A drain that has not begun. The configuration is checked by [`serve`].
    #[must_use]
    pub fn new(config: DrainConfig) -> Self {
        let status = Status { phase: Phase::Serving, servers: 0, aborted: false };
        Self {
            shared: Arc::new(Shared {
                config,
                status: channel::Sender::new(status),
                account: Arc::default(),
                began: OnceLock::new(),
                closed: OnceLock::new(),
                on_signals: AtomicBool::new(false),
            }),
        }
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

    /// Begins the drain. Calling it again changes nothing. It may begin before the first server does;
    /// the lame duck counts from here.
    pub fn begin(&self) {
        self.shared.began.get_or_init(Instant::now);
        if self.advance(Phase::Draining) {
            #[cfg(feature = "tracing")]
            tracing::info!(lame_duck = ?self.config().lame_duck, "drain begins");
        }
    }

    /// Ends the drain at once, as a second signal does: every connection is cut.
    pub fn abort(&self) {
        self.shared.began.get_or_init(Instant::now);
        self.shared.account.open.cut();
        let aborted = self.shared.status.send_if_modified(|status| {
            let now = status.phase < Phase::Cutting;
            status.aborted |= now;
            status.phase = Phase::Cutting;
            now
        });
        if aborted {
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

    /// Ends when the lame duck is over and responses say `Connection: close`: for what does not end by
    /// itself, such as SSE streams and WebSockets, see [above](Self#streams-that-do-not-end-by-themselves).
    /// Also ends when no handle is left.
    pub fn closing(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.reaches(|status| status.phase >= Phase::Closing)
    }

    /// Registers work that the drain waits for although it belongs to no connection, until the guard
    /// is dropped. It can be registered at any time: a request that is finished during the drain may
    /// leave some behind. Once the drain has cut, nothing waits for it any more, and
    /// [`Job::run`] refuses it.
    ///
    /// The name is for the report; of a long one the first 78 bytes are kept.
    pub fn job(&self, name: impl Into<Cow<'static, str>>) -> Job {
        let mut name = name.into();
        if name.len() > NAME_LENGTH {
            name = name[..name.floor_char_boundary(NAME_LENGTH)].to_owned().into();
        }
        Job::new(self, self.shared.account.open.enter(CutKind::Job, name))
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
        self.shared.account.snapshot(self.is_draining())
    }

    /// Ends when the lame duck is over.
    async fn lame_duck_over(&self) {
        self.started().await;
        let end = self.began() + self.config().lame_duck;
        // A timer that is over still takes a tick, in which connections would come that need not.
        if end > Instant::now() {
            // Its error is that the time is over.
            let _over = timeout_at(end, self.closing()).await;
        }
        self.shared.closed.get_or_init(Instant::now);
        self.advance(Phase::Closing);
    }

    /// Ends when what is left is to be cut.
    async fn cuts(&self) {
        let end = self.closed() + self.config().deadline;
        tokio::select! {
            biased;
            () = self.reaches(|status| status.phase >= Phase::Cutting) => {}
            () = sleep_until(end) => {
                self.shared.account.open.cut();
                self.advance(Phase::Cutting);
            }
        }
    }

    fn began(&self) -> Instant {
        self.shared.began.get().copied().unwrap_or_else(Instant::now)
    }

    fn closed(&self) -> Instant {
        self.shared.closed.get().copied().unwrap_or_else(Instant::now)
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
