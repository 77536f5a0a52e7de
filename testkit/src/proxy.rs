//! A TCP proxy that breaks connections on demand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Error;
use crate::ports;

mod connection;

/// How many connections may be open at once; further ones are reset. Each holds two buffers.
const MAX_OPEN: usize = 4096;

/// A TCP proxy on a free loopback port, in this process, with faults to switch on and off.
///
/// It runs on the runtime that starts it. Dropping it closes its port and resets its
/// connections. At most 4096 connections are open at once; more are reset.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

/// What the handle and the tasks share.
#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    /// The listening socket, `None` while cut; the accept loop works on a duplicate of it.
    listener: Mutex<Option<std::net::TcpListener>>,
    faults: watch::Sender<Faults>,
    accepted: AtomicU64,
}

/// The faults in force, and how often the ones that happen once have happened.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// The handle is gone.
    closed: bool,
    refuse: bool,
    blackhole: bool,
    delay: Duration,
    cuts: u64,
    half_closes: u64,
}

impl FaultProxy {
    /// Starts a proxy in front of a server, which need not be up.
    ///
    /// # Errors
    /// When no port is free.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(upstream: SocketAddr) -> Result<Self, Error> {
        let listener = listen_on_free_port()?;
        let addr = listener.local_addr().map_err(Error::io("listen on a free port"))?;
        let faults = watch::Sender::new(Faults::default());
        let listener = Mutex::new(Some(listener));
        let shared = Arc::new(Shared { upstream, listener, faults, accepted: AtomicU64::new(0) });
        tokio::spawn(accept_all(Arc::clone(&shared)));
        Ok(Self { addr, shared })
    }

    /// Where the proxy listens. It stays the same through all faults.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Resets all connections and refuses new ones until [`heal`](Self::heal).
    ///
    /// New ones are refused, and no byte passes, when this returns; the resets follow when the
    /// runtime runs the connections' tasks.
    pub fn cut(&self) {
        let Some(listener) = self.shared.listener.lock().take() else { return };
        // Closing it would leave the accept loop's duplicate listening. It cannot fail: the
        // socket listens.
        let _ = rustix::net::shutdown(&listener, Shutdown::Both);
        self.change(|faults| {
            faults.refuse = true;
            faults.cuts += 1;
        });
    }

    /// Swallows all bytes in both directions, silently, on old and new connections, while on.
    ///
    /// A connection that has lost bytes is reset when this is switched off: what it would carry
    /// then could not be understood.
    pub fn blackhole(&self, on: bool) {
        self.change(|faults| faults.blackhole = on);
    }

    /// Holds back each piece of data for that long, in both directions; zero for no delay.
    ///
    /// One piece (at most 16 KiB) is on its way at a time, so large transfers become slow too.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// Ends the stream from the server to the client (FIN) on all open connections, while the
    /// client's bytes still reach the server. New connections are not affected.
    pub fn half_close(&self) {
        self.change(|faults| faults.half_closes += 1);
    }

    /// Ends all faults. New connections are accepted when this returns.
    ///
    /// # Panics
    /// When another process has taken the port during a cut. Nothing does by accident: the port
    /// is outside of the range for outgoing connections.
    pub fn heal(&self) {
        let mut listener = self.shared.listener.lock();
        if listener.is_none() {
            *listener = Some(listen(self.addr).expect("the port was left alone during the cut"));
        }
        drop(listener);
        self.change(|faults| {
            faults.refuse = false;
            faults.blackhole = false;
            faults.delay = Duration::ZERO;
        });
    }

    /// How many connections have been accepted since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.faults.send_modify(change);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.cut();
        self.change(|faults| faults.closed = true);
    }
}

/// Binds a free port, and another one when somebody takes it in between.
fn listen_on_free_port() -> Result<std::net::TcpListener, Error> {
    let mut listener = listen(ports::loopback(ports::free()?));
    for _ in 1..ports::ATTEMPTS {
        if listener.is_err() {
            listener = listen(ports::loopback(ports::free()?));
        }
    }
    listener.map_err(Error::io("listen on a free port"))
}

/// Binds an address although connections of an earlier listener linger on it: the standard
/// library sets `SO_REUSEADDR`.
fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections while no cut is in force.
async fn accept_all(shared: Arc<Shared>) {
    let mut faults = shared.faults.subscribe();
    let mut open = JoinSet::new();
    loop {
        let cuts = match faults.wait_for(|faults| faults.closed || !faults.refuse).await {
            Ok(now) if !now.closed => now.cuts,
            _ => break,
        };
        let duplicate = shared.listener.lock().as_ref().map(std::net::TcpListener::try_clone);
        match duplicate {
            Some(Ok(listener)) => {
                let Ok(listener) = TcpListener::from_std(listener) else { break };
                let mut cut = faults.clone();
                tokio::select! {
                    biased;
                    _ = cut.wait_for(|now| now.cuts != cuts) => {}
                    () = accept(&shared, &listener, &mut open) => {}
                }
            }
            // Out of descriptors: the proxy ends, and clients are reset.
            Some(Err(_)) => break,
            // Cut again in between.
            None => tokio::task::yield_now().await,
        }
    }
    // The last connections reset themselves.
    while open.join_next().await.is_some() {}
}

/// Accepts connections until the socket is shut down.
async fn accept(shared: &Arc<Shared>, listener: &TcpListener, open: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            biased;
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                shared.accepted.fetch_add(1, Relaxed);
                if open.len() < MAX_OPEN {
                    open.spawn(connection::run(client, Arc::clone(shared)));
                } else {
                    connection::reset(client);
                }
            }
        }
    }
}
