//! A proxy in front of Redis that loses, repeats and shuffles published messages.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::{Error, ports};

mod frame;

/// Which share of the messages, from 0 to 1, meets which fate.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PubSubFaults {
    /// Never arrives.
    pub lose: f64,
    /// Arrives twice.
    pub repeat: f64,
    /// Arrives after the message that follows it, or after 50 ms if none does.
    pub swap: f64,
}

/// A TCP proxy on a free loopback port, in this process, that knows the protocol of Redis (RESP2
/// and RESP3) and mistreats messages to subscribers; everything else passes as it is.
///
/// It runs on the runtime that starts it. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct PubSubProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    faults: Mutex<PubSubFaults>,
    chance: Mutex<fastrand::Rng>,
    seen: AtomicU64,
    lost: AtomicU64,
    repeated: AtomicU64,
    swapped: AtomicU64,
}

/// How long a message that is to be swapped waits for the next.
const SWAP: Duration = Duration::from_millis(50);

impl PubSubProxy {
    /// Starts a proxy in front of a Redis server. The same seed and the same messages in the
    /// same order meet the same fates.
    ///
    /// # Errors
    /// When no port is free.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(
        upstream: SocketAddr,
        seed: u64,
        faults: PubSubFaults,
    ) -> Result<Self, Error> {
        let (listener, addr) = listen().map_err(Error::io("listen on a free port"))?;
        let shared = Arc::new(Shared {
            faults: Mutex::new(faults),
            chance: Mutex::new(fastrand::Rng::with_seed(seed)),
            seen: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            swapped: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, upstream, Arc::clone(&shared)));
        Ok(Self { addr, shared, accepting: accepting.abort_handle() })
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the faults for the messages to come.
    pub fn set(&self, faults: PubSubFaults) {
        *self.shared.faults.lock() = faults;
    }

    /// How many messages the server has sent so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Relaxed)
    }

    /// How many of them were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    /// How many were repeated.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.shared.repeated.load(Relaxed)
    }

    /// How many were held back for the next.
    #[must_use]
    pub fn swapped(&self) -> u64 {
        self.shared.swapped.load(Relaxed)
    }
}

impl Drop for PubSubProxy {
    fn drop(&mut self) {
        // The connections are children of this task, and end with it.
        self.accepting.abort();
    }
}

fn listen() -> Result<(TcpListener, SocketAddr), io::Error> {
    let mut bound = bind();
    for _ in 1..ports::ATTEMPTS {
        if bound.is_err() {
            bound = bind();
        }
    }
    let listener = bound?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

fn bind() -> io::Result<TcpListener> {
    let port = ports::free().map_err(io::Error::other)?;
    let listener = std::net::TcpListener::bind(ports::loopback(port))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listener: TcpListener, upstream: SocketAddr, shared: Arc<Shared>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                let shared = Arc::clone(&shared);
                open.spawn(async move {
                    // Whichever side ends first, both are closed.
                    let _ = carry(client, upstream, &shared).await;
                });
            }
        }
    }
}

async fn carry(client: TcpStream, upstream: SocketAddr, shared: &Shared) -> io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::select! {
        copied = tokio::io::copy(&mut from_client, &mut to_server) => copied.map(drop),
        carried = mistreat(from_server, to_client, shared) => carried,
    }
}

/// Carries what the server says, frame by frame.
async fn mistreat(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
) -> io::Result<()> {
    let mut unread = Vec::new();
    let mut held: Option<Vec<u8>> = None;
    loop {
        while let Some(length) = frame::length(&unread) {
            let frame: Vec<u8> = unread.drain(..length).collect();
            if !frame::is_message(&frame) {
                to.write_all(&frame).await?;
                continue;
            }
            match shared.fate() {
                Fate::Pass => to.write_all(&frame).await?,
                Fate::Lose => continue,
                Fate::Repeat => to.write_all(&frame.repeat(2)).await?,
                Fate::Swap if held.is_none() => {
                    held = Some(frame);
                    continue;
                }
                Fate::Swap => to.write_all(&frame).await?,
            }
            if let Some(frame) = held.take() {
                to.write_all(&frame).await?;
            }
        }
        let read = from.read_buf(&mut unread);
        let count = if held.is_some() {
            match tokio::time::timeout(SWAP, read).await {
                Ok(count) => count?,
                Err(_) => {
                    to.write_all(&held.take().unwrap_or_default()).await?;
                    continue;
                }
            }
        } else {
            read.await?
        };
        if count == 0 {
            return Ok(());
        }
    }
}

enum Fate {
    Pass,
    Lose,
    Repeat,
    Swap,
}

impl Shared {
    fn fate(&self) -> Fate {
        self.seen.fetch_add(1, Relaxed);
        let PubSubFaults { lose, repeat, swap } = *self.faults.lock();
        let chance = self.chance.lock().f64();
        let (fate, count) = if chance < lose {
            (Fate::Lose, &self.lost)
        } else if chance < lose + repeat {
            (Fate::Repeat, &self.repeated)
        } else if chance < lose + repeat + swap {
            (Fate::Swap, &self.swapped)
        } else {
            return Fate::Pass;
        };
        count.fetch_add(1, Relaxed);
        fate
    }
}
