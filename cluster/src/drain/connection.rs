//! One connection from accept to its end: HTTP, its timer, and the server's mode.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep};

use super::io::Io;
use super::request::RequestService;
use super::server::{Activity, Conn, ConnectionEnd, Mode, Server};
use super::watch::{Due, Watch};

pin_project! {
    /// Runs as a task of its own. It relies on that: the waits below are set up once and not at
    /// each poll, which is sound only while the task's waker stays the same.
    pub(super) struct Connection {
        #[pin]
        http: UpgradeableConnection<TokioIo<Io>, RequestService>,
        conn: Arc<Conn>,
        watch: Watch,
        #[pin]
        timer: Sleep,
        // The server's next move; set anew after each.
        #[pin]
        moved: OwnedNotified,
        // The mode that `moved` was set up in, `None` before the first poll.
        seen: Option<Mode>,
        // Whether hyper knows that this connection ends.
        told: bool,
    }
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        router: Router,
        server: &Arc<Server>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let conn = Conn::accepted(server);
        let io = TokioIo::new(Io::new(stream, Arc::clone(&conn), place));
        let service = RequestService { router, peer, conn: Arc::clone(&conn) };
        // hyper's own head timeout takes a box and a timer for each request.
        let http =
            Builder::new().header_read_timeout(None).serve_connection(io, service).with_upgrades();
        Self {
            http,
            conn,
            watch: Watch::Head(0),
            timer: sleep(server.config().header_read_timeout),
            moved: server.moved(),
            seen: None,
            told: false,
        }
    }

    /// Has hyper end the connection: at once between requests, else after the response, which says
    /// so if its head is not out yet.
    fn tell(self: Pin<&mut Self>) {
        let mut this = self.project();
        *this.told = true;
        this.http.as_mut().graceful_shutdown();
        *this.watch = Watch::Idle(this.conn.moves());
        this.timer.as_mut().reset(Instant::now() + this.conn.server().config().idle_timeout);
    }

    /// Sees the server's mode, and has the task woken at its next move.
    fn mode(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Mode {
        let mut this = self.project();
        let server = this.conn.server();
        if *this.seen == Some(server.mode()) {
            return server.mode();
        }
        loop {
            if this.moved.as_mut().poll(cx).is_pending() {
                let mode = server.mode();
                *this.seen = Some(mode);
                return mode;
            }
            this.moved.set(server.moved());
        }
    }

    /// What the timer asks for, once it fires; before, it is set for what the connection does.
    fn due(self: Pin<&mut Self>, cx: &mut Context<'_>, mode: Mode) -> Poll<Due> {
        let mut this = self.project();
        let (activity, moves) = (this.conn.activity(), this.conn.moves());
        let config = this.conn.server().config();
        let closing = mode == Mode::Closing;
        // A connection that is told to end only has the rest of its response to write.
        let mut watch = this.watch.instead(activity, moves, closing).filter(|_| !*this.told);
        loop {
            if let Some(next) = watch {
                *this.watch = next;
                this.timer.as_mut().reset(Instant::now() + next.time(config));
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match this.watch.due(activity, moves, this.conn.stall()) {
                Due::Set(next) => watch = Some(next),
                due => return Poll::Ready(due),
            }
        }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // An error is the client's doing (gone, or not speaking HTTP) and ends it all the same.
            if self.as_mut().project().http.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mode = self.as_mut().mode(cx);
            if mode == Mode::Cutting {
                self.conn.ends_as(ConnectionEnd::Cut);
                return Poll::Ready(());
            }
            if mode == Mode::Closing && !self.told && self.conn.activity() == Activity::Busy {
                self.as_mut().tell();
                continue;
            }
            match ready!(self.as_mut().due(cx, mode)) {
                Due::Close if !self.told => self.as_mut().tell(),
                // Told to end before, and its client still does not read the last response.
                Due::Close | Due::TimeOut => {
                    self.conn.ends_as(ConnectionEnd::TimedOut);
                    return Poll::Ready(());
                }
                Due::Set(_) => {}
            }
        }
    }
}
