//! The life of one server, from its first connection to the report of its drain.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_service::Service;

use super::Drain;
use super::accept::Acceptor;
use super::application::with_routes_made;
use super::report::{DrainEnd, DrainReport};
use super::server::{Mode, Server};
use super::stats::DrainStats;
use crate::ConfigError;

/// Time for the tasks of cut connections to drop their sockets; what is left then is owned by a
/// task that does not look.
const CUT_GRACE: Duration = Duration::from_millis(250);

/// Time for the last answers of a management port, once what it tells of has ended.
const MANAGEMENT_DEADLINE: Duration = Duration::from_secs(1);

/// A server could not run, or not end as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The drain was made with a configuration that breaks its rules; nothing was served.
    #[error("the drain's configuration is refused")]
    Config(#[source] ConfigError),
    /// The listener could not be emptied at the end. Its queue is lost; open connections were
    /// cut.
    #[error("the listener could not be emptied")]
    Listener(#[source] io::Error),
}

/// Serves a router, or any other tower service, on a listener until the drain has ended it. It takes
/// the place of `axum::serve`.
///
/// Each request is given to a clone of the service, once that is ready; while it is not, the request
/// counts as in flight and its time runs. Answers that may have no body (to `HEAD`, 204, 304) are sent
/// without the one they have, and are finished with their heads.
///
/// HTTP/1 with upgrades, with the feature `http2` also HTTP/2 by prior knowledge, `TCP_NODELAY`,
/// [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo) on every request, and the bounds of
/// [`DrainConfig`](crate::DrainConfig). TCP keepalive finds clients that are gone without a word, within
/// four minutes; the option is set on the listener. Errors of accept never end it.
///
/// Once the drain begins:
/// 1. it serves on for [`lame_duck`](crate::DrainConfig::lame_duck), while
///    [`Drain::is_draining`] is true;
/// 2. it accepts what the kernel has queued, and closes the listener. Where other processes have the
///    same socket, they go on taking their share, and what comes later is theirs;
/// 3. every response says `Connection: close`, connections without a request are closed after
///    [`idle_linger`](crate::DrainConfig::idle_linger), those of HTTP/2 get GOAWAY, and
///    [`Drain::closing`] ends;
/// 4. it waits for requests, for upgraded connections and for [jobs](Drain::job), and returns as soon as
///    none is left;
/// 5. at the [`deadline`](crate::DrainConfig::deadline), counted from step 2, it cuts the rest, and names
///    it in the report.
///
/// A connection that the server closes behind a response is read until its client has closed too, for a
/// second at most: the kernel would reset it for what the client still sends, and the client might lose
/// the response.
///
/// # Cancellation
/// Dropping the future closes the listener and cuts the connections.
///
/// # Errors
/// The configuration breaks its rules, or the listener cannot be emptied.
///
/// # Limits
/// No TLS: a proxy in front speaks it. HTTP/2: at most 128 streams a connection and 16 KiB of headers a
/// request, no tunnels. A handler that blocks its thread cannot be cut, and is counted in the report but
/// not named. A client of HTTP/2 that has not read what its kernel holds, and is silent for a second
/// while its connection ends, may lose it. A client that sends a request at the very moment its idle connection is closed loses it:
/// it is asked for once more before the close, but what is on the wire then cannot be seen.
///
/// # Cost
/// Keeping track of a request takes no lock and no allocation: on HTTP/1 some 20 ns for count, name,
/// guard, and moving the response through its wrapper, or 27 with feature `http2`. `ConnectInfo` costs what
/// it does in axum. A service that is not ready takes a box, and so does a request of HTTP/2. A request that
/// waits reads the clock once. A request timeout, and the wait for a request's body, arm a timer when they
/// begin.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    drain: Drain,
) -> Result<DrainReport, ServeError>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    drain.config().validate().map_err(ServeError::Config)?;
    let running = Running::on(&drain);
    let server = &running.server;
    let mut acceptor = Acceptor::new(listener, with_routes_made(service), Arc::clone(server));
    let before = tokio::select! {
        biased;
        before = lame_duck_over(&drain) => before,
        never = acceptor.run() => match never {},
    };

    server.enter(Mode::Closing);
    #[cfg(feature = "tracing")]
    tracing::info!(open = drain.stats().connections_open, "no new connections are accepted");
    let emptied = async {
        acceptor.take_queue().await?;
        server.emptied().await;
        // After it: requests leave jobs behind.
        drain.shared.account.open.jobs_ended().await;
        Ok(())
    };
    let finished = tokio::select! {
        biased;
        emptied = emptied => emptied.map(|()| true).map_err(ServeError::Listener)?,
        () = drain.cuts() => false,
    };
    if !finished {
        server.enter(Mode::Cutting);
        // Its error is that some are left: they are written off.
        let _left = timeout(CUT_GRACE, server.emptied()).await;
        server.write_off();
    }
    let end = match (finished, drain.shared.status.borrow().aborted) {
        (true, _) => DrainEnd::Finished,
        (false, false) => DrainEnd::Deadline,
        (false, true) => DrainEnd::Aborted,
    };
    let cut = if finished { Default::default() } else { drain.shared.account.open.listed() };
    let elapsed = drain.began().elapsed();
    let report = DrainReport::between(before, drain.stats(), end, elapsed, cut);
    #[cfg(feature = "tracing")]
    tracing::info!("{report}");
    Ok(report)
}

/// As [`serve`], for a management port: it answers until every other server on the drain has ended, so
/// that health, figures and [`/drain`](Drain::router) can be asked all the while. Then it has a second
/// at most.
///
/// It is not one of the drain's servers: its connections and requests are in no figure of the drain, and
/// the report is its own. The bounds of connections are those of the drain's configuration. At least one
/// other server has to be on the drain, or it ends as soon as the drain begins.
///
/// # Cancellation
/// As [`serve`].
///
/// # Errors
/// As [`serve`].
pub async fn serve_management<S>(
    listener: TcpListener,
    service: S,
    drain: &Drain,
) -> Result<DrainReport, ServeError>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let config = drain.config().clone();
    let config = config.lame_duck(Duration::ZERO).idle_linger(Duration::ZERO);
    let own = Drain::new(config.deadline(MANAGEMENT_DEADLINE));
    let (stopped, ends) = (drain.stopped(), own.clone());
    let end = async move {
        stopped.await;
        ends.begin();
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        never = end => match never {},
        report = serve(listener, service, own) => report,
    }
}

/// Ends when the lame duck is over, with the figures of the drain's begin.
async fn lame_duck_over(drain: &Drain) -> DrainStats {
    drain.started().await;
    let before = drain.stats();
    drain.lame_duck_over().await;
    before
}

/// A server that counts as running until this is dropped, and none of whose connections lives
/// longer.
struct Running {
    drain: Drain,
    server: Arc<Server>,
}

impl Running {
    fn on(drain: &Drain) -> Self {
        drain.count_servers(|servers| servers + 1);
        Self { drain: drain.clone(), server: Server::new(drain) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.enter(Mode::Cutting);
        self.drain.count_servers(|servers| servers - 1);
    }
}
