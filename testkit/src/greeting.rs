//! The first words of each protocol: a server is ready when it says them, not after a while.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Says whether the server behind an address answers as it should.
pub(crate) type Greeting = fn(SocketAddr) -> io::Result<bool>;

/// How long one attempt may hang; the next attempt follows at once.
const ATTEMPT: Duration = Duration::from_millis(500);

/// PostgreSQL: the answer to a startup message is `R` (authentication). While a server starts
/// or recovers it is `E` (SQLSTATE 57P03).
pub(crate) fn postgres(addr: SocketAddr) -> io::Result<bool> {
    const PARAMETERS: &[u8] = b"user\0postgres\0database\0postgres\0\0";
    const PROTOCOL_3_0: u32 = 196_608;
    let length = u32::try_from(8 + PARAMETERS.len()).expect("a few bytes");
    let mut message = Vec::with_capacity(8 + PARAMETERS.len());
    message.extend(length.to_be_bytes());
    message.extend(PROTOCOL_3_0.to_be_bytes());
    message.extend(PARAMETERS);
    let mut stream = connect(addr)?;
    stream.write_all(&message)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let ready = kind == *b"R";
    if ready {
        // Terminate: without it the server's log shows a lost connection.
        stream.write_all(b"X\0\0\0\x04")?;
    }
    Ok(ready)
}

/// Redis: `+PONG` to `PING`, or `-NOAUTH` where a password is asked for. While it loads its file
/// it answers `-LOADING`.
pub(crate) fn redis(addr: SocketAddr) -> io::Result<bool> {
    let mut stream = connect(addr)?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(&answer == b"+PONG\r\n" || &answer == b"-NOAUTH")
}

/// NATS: the server speaks first, one `INFO` line.
pub(crate) fn nats(addr: SocketAddr) -> io::Result<bool> {
    let mut answer = [0; 5];
    connect(addr)?.read_exact(&mut answer)?;
    Ok(&answer == b"INFO ")
}

/// The path that answers 204 whatever else the server is configured to do.
pub(crate) const NGINX_PATH: &str = "/testkit-greeting";

/// nginx: the master listens before it has a worker, so a worker has to answer.
pub(crate) fn nginx(addr: SocketAddr) -> io::Result<bool> {
    Ok(http_status(addr, NGINX_PATH)? == 204)
}

/// Patroni: it says that it lives, whatever its PostgreSQL does.
pub(crate) fn patroni(addr: SocketAddr) -> io::Result<bool> {
    Ok(http_status(addr, "/liveness")? == 200)
}

/// etcd: it is healthy once it has a leader, which takes a moment also when it is alone.
pub(crate) fn etcd(addr: SocketAddr) -> io::Result<bool> {
    Ok(http_status(addr, "/health")? == 200)
}

/// The status of the answer to a `GET`.
pub(crate) fn http_status(addr: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = connect(addr)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").as_bytes())?;
    // "HTTP/1.1 200"
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    let status = std::str::from_utf8(&answer[9..]).ok().and_then(|digits| digits.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// AMQP 0-9-1: the answer to the protocol header is the method frame `connection.start`
/// (type 1, channel 0, class 10, method 10).
pub(crate) fn amqp(addr: SocketAddr) -> io::Result<bool> {
    let mut stream = connect(addr)?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut frame = [0; 11];
    stream.read_exact(&mut frame)?;
    Ok(frame[0] == 1 && frame[7..] == [0, 10, 0, 10])
}

/// Erlang's port mapper: it accepts connections; its protocol has no greeting.
pub(crate) fn epmd(addr: SocketAddr) -> io::Result<bool> {
    connect(addr).map(|_| true)
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, ATTEMPT)?;
    stream.set_read_timeout(Some(ATTEMPT))?;
    stream.set_write_timeout(Some(ATTEMPT))?;
    Ok(stream)
}
