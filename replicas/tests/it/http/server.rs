//! A server that answers as it was told last, and counts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What becomes of a request.
#[derive(Clone)]
pub(crate) enum Answer {
    Status(u16),
    /// The connection is closed without an answer.
    Close,
    /// The same, after a permit.
    CloseAfter(Arc<Semaphore>),
    /// As `Close`, then a 200 for all others.
    CloseOnce,
    /// A 200 with a stream of events, which does not end after the first.
    Events,
    /// The answer waits for a permit.
    Wait(Arc<Semaphore>),
}

/// Listens until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    name: &'static str,
    answer: Mutex<Answer>,
    requests: AtomicU64,
    connections: AtomicU64,
    bodies: Mutex<Vec<Bytes>>,
}

impl Server {
    /// Answers with its name until it is told otherwise.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            name,
            answer: Mutex::new(Answer::Status(200)),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            bodies: Mutex::default(),
        });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.connections.fetch_add(1, Relaxed);
                connections.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { address, state, task }
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.state.answer.lock() = answer;
    }

    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Relaxed)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Relaxed)
    }

    pub(crate) fn bodies(&self) -> Vec<Bytes> {
        self.state.bodies.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let respond = service_fn(move |request| respond(request, Arc::clone(&state)));
    // An error is a client that left, or the close that was asked for.
    let _ended = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), respond)
        .await;
}

#[derive(Debug, thiserror::Error)]
#[error("closed as told")]
struct Closed;

async fn respond(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Closed> {
    let body = request.into_body().collect().await.map_err(|_| Closed)?;
    state.requests.fetch_add(1, Relaxed);
    state.bodies.lock().push(body.to_bytes());
    let answer = {
        let mut next = state.answer.lock();
        let answer = next.clone();
        if let Answer::CloseOnce = answer {
            *next = Answer::Status(200);
        }
        answer
    };
    let events = matches!(answer, Answer::Events);
    let status = match answer {
        Answer::Close | Answer::CloseOnce => return Err(Closed),
        Answer::CloseAfter(permits) => {
            permits.acquire().await.unwrap().forget();
            return Err(Closed);
        }
        Answer::Events => StatusCode::OK,
        Answer::Status(status) => StatusCode::from_u16(status).unwrap(),
        Answer::Wait(permits) => {
            permits.acquire().await.unwrap().forget();
            StatusCode::OK
        }
    };
    let mut response = Response::new(Full::from(state.name).boxed_unsync());
    *response.status_mut() = status;
    if events {
        let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"data: 1\n\n"))) });
        *response.body_mut() = StreamBody::new(first.chain(stream::pending())).boxed_unsync();
        let kind = http::HeaderValue::from_static("text/event-stream; charset=utf-8");
        response.headers_mut().insert("content-type", kind);
    }
    Ok(response)
}
