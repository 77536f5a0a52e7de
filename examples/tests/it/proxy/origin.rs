//! An origin that answers each path with what a test has written, byte for byte.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::client::joined;

/// Listens until it is dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
    seen: Mutex<Vec<Seen>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Number of its connection.
    pub(crate) connection: usize,
}

impl Seen {
    /// All values of a field, joined as a list is.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        joined(&self.headers, name)
    }
}

/// One response, step by step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    steps: Vec<Step>,
    close: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Wait(Arc<Semaphore>),
    /// Silence, for as long as the other side bears it.
    Silence,
}

impl Reply {
    /// A head with a `Date` of now and, with [`body`](Self::body), a length.
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Exactly these bytes.
    pub(crate) fn raw(bytes: &str) -> Self {
        Self::default().bytes(bytes)
    }

    /// An empty value takes the field away (for `Date`).
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(self, body: &str) -> Self {
        let length = body.len().to_string();
        self.header("Content-Length", &length).bytes(body)
    }

    /// Part of the body, or of everything.
    pub(crate) fn bytes(mut self, bytes: &str) -> Self {
        self.steps.push(Step::Bytes(bytes.as_bytes().to_vec()));
        self
    }

    /// Until the test adds a permit.
    pub(crate) fn wait(mut self, signal: &Arc<Semaphore>) -> Self {
        self.steps.push(Step::Wait(Arc::clone(signal)));
        self
    }

    pub(crate) fn silence(mut self) -> Self {
        self.steps.push(Step::Silence);
        self
    }

    /// Closes the connection after the last step.
    pub(crate) fn close(mut self) -> Self {
        self.close = true;
        self
    }

    fn head(&self) -> Vec<u8> {
        if self.status == 0 {
            return Vec::new();
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        if joined(&self.headers, "date").is_none() {
            head.push_str(&format!("Date: {}\r\n", httpdate::fmt_http_date(SystemTime::now())));
        }
        for (name, value) in self.headers.iter().filter(|(_, value)| !value.is_empty()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        // One byte a character, so that a test can send any byte.
        head.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect()
    }
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let state = Arc::<State>::default();
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.expect("accept");
                stream.set_nodelay(true).expect("nodelay");
                connections.spawn(serve(stream, number, Arc::clone(&serving)));
            }
        });
        Self { address, state, task }
    }

    /// What the next requests for a path get, one after another. Further ones get a 599.
    pub(crate) fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state.scripts.lock().entry(path.to_owned()).or_default().extend(replies);
    }

    /// The requests for a path so far.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = self.state.seen.lock();
        seen.iter().filter(|seen| seen.target == path).cloned().collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with the connection, in whatever way that goes.
async fn serve(mut stream: TcpStream, connection: usize, state: Arc<State>) {
    let mut received = BytesMut::new();
    while let Some(seen) = request(&mut stream, &mut received, connection).await {
        let next = state.scripts.lock().get_mut(&seen.target).and_then(VecDeque::pop_front);
        let unscripted = || Reply::new(599).body("the script is over");
        let reply = next.unwrap_or_else(unscripted);
        let to_head = seen.method == "HEAD";
        state.seen.lock().push(seen);
        if play(&reply, &mut stream, to_head).await.is_none() || reply.close {
            return;
        }
    }
}

async fn play(reply: &Reply, stream: &mut TcpStream, to_head: bool) -> Option<()> {
    stream.write_all(&reply.head()).await.ok()?;
    for step in &reply.steps {
        match step {
            Step::Bytes(_) if to_head && reply.status != 0 => {}
            Step::Bytes(bytes) => stream.write_all(bytes).await.ok()?,
            Step::Wait(signal) => signal.acquire().await.ok()?.forget(),
            Step::Silence => drop(stream.read(&mut [0; 1]).await),
        }
    }
    Some(())
}

/// The next request, `None` at the end of the connection.
async fn request(
    stream: &mut TcpStream,
    received: &mut BytesMut,
    connection: usize,
) -> Option<Seen> {
    let (length, mut seen) = loop {
        if let Some(found) = parse(received, connection) {
            break found;
        }
        receive(stream, received).await?;
    };
    drop(received.split_to(length));
    if seen.header("transfer-encoding").is_some() {
        let end = loop {
            match received.windows(5).position(|bytes| bytes == b"0\r\n\r\n") {
                Some(end) => break end + 5,
                None => receive(stream, received).await?,
            }
        };
        // The chunks as they came.
        seen.body = received.split_to(end).to_vec();
    } else if let Some(length) = seen.header("content-length") {
        let length = length.parse().expect("one length");
        while received.len() < length {
            receive(stream, received).await?;
        }
        seen.body = received.split_to(length).to_vec();
    }
    Some(seen)
}

fn parse(received: &[u8], connection: usize) -> Option<(usize, Seen)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(received).expect("HTTP") else {
        return None;
    };
    let latin1 = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect();
    let seen = Seen {
        method: request.method.expect("method").to_owned(),
        target: request.path.expect("target").to_owned(),
        headers: request.headers.iter().map(|h| (h.name.to_owned(), latin1(h.value))).collect(),
        body: Vec::new(),
        connection,
    };
    Some((length, seen))
}

async fn receive(stream: &mut TcpStream, received: &mut BytesMut) -> Option<()> {
    matches!(stream.read_buf(received).await, Ok(1..)).then_some(())
}
