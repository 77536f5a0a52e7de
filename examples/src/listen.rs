//! Sockets and runtimes of a server with one of both for each thread.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use anyhow::Context;
use tokio::net::TcpSocket;

use crate::turn;

/// Connections that may wait to be accepted by one thread.
const BACKLOG: u32 = 1_024;

/// Listens; the address is the one that was found if any port will do.
pub(crate) fn listen(
    option: &str,
    address: SocketAddr,
) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("{option}: {address} cannot be listened on"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// One socket a thread, among which the kernel spreads the connections: of threads that share a
/// socket, one takes a whole burst before another has woken.
///
/// # Panics
/// Outside of a runtime.
pub(crate) fn listen_often(
    option: &str,
    address: SocketAddr,
    times: Option<NonZeroUsize>,
) -> anyhow::Result<(Vec<TcpListener>, SocketAddr)> {
    // Finds the port, and that nobody has it: sockets that share one would not mind.
    let (alone, address) = listen(option, address)?;
    let times = times.map_or(1, NonZeroUsize::get);
    if times == 1 {
        return Ok((vec![alone], address));
    }
    drop(alone);
    let shared = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    let listeners: std::io::Result<Vec<TcpListener>> = (0..times).map(|_| shared()).collect();
    let listeners =
        listeners.with_context(|| format!("{option}: {address} cannot be listened on"))?;
    Ok((listeners, address))
}

/// A runtime for one thread, which takes turns with others on its core.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    turn::taken(builder.enable_all()).build().context("runtime")
}
