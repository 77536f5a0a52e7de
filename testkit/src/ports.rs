//! Free loopback ports that stay ours while a killed server is down.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::Error;

/// The lowest port that is handed out: below are many well-known services.
const LOWEST: u32 = 10_240;

/// What Linux uses when nobody has changed it.
const EPHEMERAL_LOW: u32 = 32_768;

/// How often one start is tried when other processes take the port in between.
pub(crate) const ATTEMPTS: usize = 5;

/// The loopback address with this port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Finds a port that nobody listens on, different from the ones handed out before.
///
/// The ports lie below the range from which the kernel serves outgoing connections. Otherwise a
/// client's own connection could take the port of a killed server, and a client that knocks at
/// it could even connect to itself.
pub(crate) fn free() -> Result<u16, Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes start at different places, so they seldom try the same port at the same time.
    let _ = NEXT.compare_exchange(0, fastrand::u32(1..=u32::from(u16::MAX)), Relaxed, Relaxed);
    let span = ephemeral_low().saturating_sub(LOWEST);
    for _ in 0..span {
        let offset = NEXT.fetch_add(1, Relaxed) % span;
        let port = u16::try_from(LOWEST + offset).expect("the range ends below 65536");
        // Marked first: a server that is down may come back to its port at any moment.
        if mark(port) && TcpListener::bind(loopback(port)).is_ok() {
            return Ok(port);
        }
    }
    // No room below the ephemeral range: the kernel's choice is better than none.
    TcpListener::bind(loopback(0))
        .and_then(|listener| listener.local_addr())
        .map(|addr| addr.port())
        .map_err(Error::io("find a free port"))
}

/// Marks a port as ours as long as this process lives, also while the server on it is down: by a
/// UDP socket, which none of the servers needs and which goes with the process. `false` if it is
/// marked already.
fn mark(port: u16) -> bool {
    static MARKS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let mark = UdpSocket::bind(loopback(port));
    mark.map(|mark| MARKS.lock().push(mark)).is_ok()
}

/// Tries a start again while it fails because a port was taken.
pub(crate) fn retry<T>(mut start: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut result = start();
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if error.is_port_taken() => result = start(),
            _ => break,
        }
    }
    result
}

/// The first port of the kernel's range for outgoing connections.
fn ephemeral_low() -> u32 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|low| *low <= u32::from(u16::MAX))
        .unwrap_or(EPHEMERAL_LOW)
}
