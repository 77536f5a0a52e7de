//! Takes connections from the listener, whatever goes wrong with single ones.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::application::Application;
use super::connection::Connection;
use super::server::Server;
use super::stats::count_start;

/// The most that a listener may have in its queue where the system does not say: Linux's own default.
const QUEUE_MAX: usize = 4_096;

/// A client of which nothing is heard is asked by the kernel after so long, and again so often, nine
/// times on Linux. One that is gone without a word would hold its place for ever: a WebSocket, or a
/// handler that waits for something, has no timeout of its own. As often as a proxy does that keeps
/// connections (60 s), and over within four minutes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The first wait after an error of the system, doubled up to the longest: descriptors run out for
/// moments, and a loop that spins makes it worse.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);

pub(super) struct Acceptor<A> {
    listener: TcpListener,
    application: A,
    server: Arc<Server>,
    backoff: Backoff,
}

impl<A: Application> Acceptor<A> {
    pub(super) fn new(listener: TcpListener, application: A, server: Arc<Server>) -> Self {
        keep_alive(&listener);
        Self { listener, application, server, backoff: Backoff::default() }
    }

    /// Never ends. May be dropped at any wait without losing a connection.
    pub(super) async fn run(&mut self) -> Infallible {
        loop {
            // Before the accept: a connection that finds no place waits in the kernel's queue.
            let place = match self.server.free_place() {
                Some(place) => place,
                None => place(&self.listener, &self.server).await,
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => self.start(stream, peer, place),
                Err(error) => {
                    drop(place);
                    self.pause_after(&error).await;
                }
            }
        }
    }

    /// Takes the connections whose handshake is done, then closes the listener. The kernel would
    /// reset them. If other processes have the same socket, they go on taking their share meanwhile,
    /// and what comes later is theirs.
    ///
    /// # Errors
    /// The listener cannot be taken from the runtime.
    pub(super) async fn take_queue(self) -> io::Result<()> {
        let Self { listener, application, server, backoff } = self;
        // Asks the kernel itself: the runtime may not yet know of the last arrivals.
        let listener = listener.into_std()?;
        let mut queue = Queue { listener, application, server, backoff };
        for _ in 0..longest_queue() {
            let place = queue.server.place().await;
            if !queue.take(place).await {
                break;
            }
        }
        Ok(())
    }

    fn start(&mut self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        self.backoff = Backoff::default();
        start(stream, peer, place, &self.application, &self.server);
    }

    async fn pause_after(&mut self, error: &io::Error) {
        pause_after(error, &mut self.backoff, &self.server).await;
    }
}

/// Waits for a place while all are taken, and has idle connections make room if one is wanted.
async fn place(listener: &TcpListener, server: &Server) -> OwnedSemaphorePermit {
    loop {
        tokio::select! {
            biased;
            place = server.place() => return place,
            () = wanted(listener) => {}
        }
        if let Some(place) = server.make_room().await {
            return place;
        }
    }
}

/// Has the kernel look after the clients of a listener's connections, which inherit it: no call a
/// connection.
fn keep_alive(listener: &TcpListener) {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    // Fails only where the system has none of it, and then dead clients stay.
    let _none = SockRef::from(listener).set_tcp_keepalive(&keepalive);
}

/// More than this cannot have been in the queue when the server began to close, and what comes later
/// is for those who have the same socket.
fn longest_queue() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    let limit = limit.and_then(|limit| limit.trim().parse().ok()).unwrap_or(QUEUE_MAX);
    limit.max(QUEUE_MAX)
}

/// Ends when a connection waits in the kernel's queue, without taking it.
async fn wanted(listener: &TcpListener) {
    let waits = async {
        // A second descriptor, since the runtime's own can only be asked by accepting. It is called a
        // stream because of those the runtime can be asked, and never read.
        let socket = std::net::TcpStream::from(listener.as_fd().try_clone_to_owned()?);
        TcpStream::from_std(socket)?.readable().await
    };
    // Its error is that there is no descriptor for asking: then one may well wait.
    drop::<io::Result<()>>(waits.await);
}

/// A listener outside the runtime.
struct Queue<A> {
    listener: std::net::TcpListener,
    application: A,
    server: Arc<Server>,
    backoff: Backoff,
}

impl<A: Application> Queue<A> {
    /// False if the queue is empty.
    async fn take(&mut self, place: OwnedSemaphorePermit) -> bool {
        let accepted = self.listener.accept().and_then(|(stream, peer)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, peer))
        });
        match accepted {
            Ok((stream, peer)) => start(stream, peer, place, &self.application, &self.server),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                drop(place);
                pause_after(&error, &mut self.backoff, &self.server).await;
            }
        }
        true
    }
}

fn start<A: Application>(
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    application: &A,
    server: &Arc<Server>,
) {
    // Fails only on a socket that is gone already, which the connection notices by itself.
    let _gone = stream.set_nodelay(true);
    tokio::spawn(Connection::new(stream, peer, application.clone(), server, place));
}

async fn pause_after(error: &io::Error, backoff: &mut Backoff, server: &Server) {
    count_start(&server.counters().accept_errors);
    #[cfg(feature = "tracing")]
    tracing::warn!(error = error as &dyn std::error::Error, "a connection was not accepted");
    if let Some(time) = backoff.after(error.kind()) {
        sleep(time).await;
    }
}

/// How long to wait before the next accept.
#[derive(Debug, Default)]
struct Backoff {
    errors: u32,
}

impl Backoff {
    /// `None` for the error of one connection, which says nothing about the next.
    fn after(&mut self, error: io::ErrorKind) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error, ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return None;
        }
        let time = BACKOFF_FIRST.saturating_mul(1 << self.errors.min(20)).min(BACKOFF_LONGEST);
        self.errors = self.errors.saturating_add(1);
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_looks_after_clients_that_are_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        keep_alive(&listener);
        let address = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(address).await.expect("connected");
        let (stream, _) = listener.accept().await.expect("accepted");
        assert!(SockRef::from(&stream).keepalive().expect("a socket"));
    }

    #[test]
    fn it_waits_longer_after_each_error_of_the_system_and_not_for_one_connection() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(io::ErrorKind::ConnectionAborted), None);
        let waits: Vec<u128> = (0..9)
            .filter_map(|_| backoff.after(io::ErrorKind::Other))
            .map(|time| time.as_millis())
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    }
}
