//! One connection from accept to its end: HTTP, its timer, and the server's mode.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep};

use super::application::Application;
use super::conn::{Activity, Conn, ConnectionEnd};
use super::http::{self, Http};
use super::io::Io;
use super::request::RequestService;
use super::server::{Mode, Place, Server};
use super::stats::count_start;
use super::watch::{Due, Watch};

/// While a place is wanted: so many sweeps without a request are enough for one that is idle, and for
/// one that has begun a head: the better part of a second, in which a packet is sent again. Else
/// whoever sends a byte now and then would hold every place for the time of a head.
const SWEEPS_IDLE: u32 = 2;
const SWEEPS_HEAD: u32 = 4;

pin_project! {
    /// Runs as a task of its own. It relies on that: the waits below are set up once and not at
    /// each poll, which is sound only while the task's waker stays the same.
    pub(super) struct Connection<A: Application> {
        #[pin]
        http: Http<A>,
        conn: Arc<Conn>,
        watch: Watch,
        #[pin]
        timer: Sleep,
        // The server's next move; set anew after each.
        #[pin]
        moved: OwnedNotified,
        // The number of calls when `moved` was set up, `None` before the first poll.
        seen: Option<u64>,
        // What it was doing at the last sweep, and for how many sweeps.
        swept: (Activity, u64, u32),
        // Whether hyper knows that this connection ends.
        told: bool,
        // Freed last: nobody goes on before the requests of this connection have ended.
        _place: Place,
    }
}

impl<A: Application> Connection<A> {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        application: A,
        server: &Arc<Server>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let conn = Conn::accepted(server);
        let place = Arc::new(place);
        let io = Io::new(stream, Arc::clone(&conn), Arc::clone(&place));
        let service = RequestService { application, peer, conn: Arc::clone(&conn) };
        let http = http::start(io, service, &place);
        Self {
            http,
            conn,
            watch: Watch::Head(0),
            timer: sleep(server.config().header_read_timeout),
            moved: server.moved(),
            seen: None,
            swept: (Activity::Fresh, 0, 0),
            told: false,
            _place: place,
        }
    }

    /// Has hyper end the connection: at once between requests, else after the response, which says
    /// so if its head is not out yet. HTTP/2: by GOAWAY.
    fn tell(self: Pin<&mut Self>) {
        let mut this = self.project();
        *this.told = true;
        this.conn.told();
        this.http.as_mut().graceful_shutdown();
        *this.watch = Watch::Idle(this.conn.moves());
        this.timer.as_mut().reset(Instant::now() + this.conn.server().config().idle_timeout);
    }

    /// Has the task woken at the server's next call; true if there was one since this was last asked.
    fn called(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let mut this = self.project();
        let server = this.conn.server();
        if *this.seen == Some(server.calls()) {
            return false;
        }
        loop {
            if this.moved.as_mut().poll(cx).is_pending() {
                return this.seen.replace(server.calls()).is_some();
            }
            this.moved.set(server.moved());
        }
    }

    /// Whether it has had no request for some sweeps, and is to make room for another one.
    fn makes_room(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        let (activity, moves) = (this.conn.activity(), this.conn.moves());
        let (before, then, sweeps) = *this.swept;
        let sweeps = if (before, then) == (activity, moves) { sweeps + 1 } else { 1 };
        *this.swept = (activity, moves, sweeps);
        let enough = match activity {
            Activity::Fresh | Activity::Idle => SWEEPS_IDLE,
            Activity::Head => SWEEPS_HEAD,
            Activity::Busy => return false,
        };
        !*this.told && sweeps >= enough && this.conn.server().is_surplus()
    }

    /// What the timer asks for, once it fires; before, it is set for what the connection does.
    fn due(self: Pin<&mut Self>, cx: &mut Context<'_>, mode: Mode) -> Poll<Due> {
        let mut this = self.project();
        let (activity, moves) = (this.conn.activity(), this.conn.moves());
        let config = this.conn.server().config();
        let closing = mode == Mode::Closing;
        // HTTP/2 closes by itself once its client has all and has seen that it should.
        let silent = activity == Activity::Idle && !this.conn.is_stalled();
        let leaves = *this.told && this.conn.is_h2() && silent;
        let parts = matches!(this.watch, Watch::Part(..));
        let mut watch = if this.conn.is_parting() || leaves {
            (!parts).then(|| Watch::parts(this.conn.traffic()))
        } else if parts {
            // A stream has come after all.
            Some(Watch::Write(this.conn.stall()))
        } else {
            // A connection that is told to end only has the rest of its response to write.
            this.watch.instead(activity, moves, closing).filter(|_| !*this.told)
        };
        loop {
            if let Some(next) = watch {
                *this.watch = next;
                this.timer.as_mut().reset(Instant::now() + next.time(config));
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            #[cfg(feature = "http2")]
            if this.conn.streams().has_stalled_for(config.write_timeout) {
                return Poll::Ready(Due::TimeOut);
            }
            match this.watch.due(activity, moves, this.conn.stall(), this.conn.traffic()) {
                Due::Set(next) => watch = Some(next),
                due => return Poll::Ready(due),
            }
        }
    }
}

impl<A: Application> Future for Connection<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (mut looked, mut room) = (false, false);
        loop {
            // An error is the client's doing (gone, or not speaking HTTP) and ends it all the same.
            if self.as_mut().project().http.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            room |= self.as_mut().called(cx) && self.as_mut().makes_room();
            let mode = self.conn.server().mode();
            if mode == Mode::Cutting {
                if !self.conn.is_parting() {
                    self.conn.ends_as(ConnectionEnd::Cut);
                }
                return Poll::Ready(());
            }
            // An idle client of HTTP/2 can be told as well, and repeats what was not seen.
            let can_be_told = self.conn.is_h2() || self.conn.activity() == Activity::Busy;
            if mode == Mode::Closing && !self.told && can_be_told {
                self.as_mut().tell();
                continue;
            }
            let due = match self.conn.activity() {
                Activity::Idle | Activity::Fresh if room && !self.told => Due::Close,
                Activity::Head if room && !looked => Due::TimeOut,
                _ => ready!(self.as_mut().due(cx, mode)),
            };
            match due {
                // A request may have arrived by now, of which the runtime does not know.
                Due::Close if !self.told && !looked => {
                    looked = true;
                    self.conn.look();
                }
                Due::Close if !self.told => {
                    if room {
                        count_start(&self.conn.server().counters().connections_evicted);
                    }
                    self.as_mut().tell();
                }
                // Told to end before, and its client still does not read the last response.
                Due::Close | Due::TimeOut => {
                    self.conn.ends_as(ConnectionEnd::TimedOut);
                    return Poll::Ready(());
                }
                Due::End => return Poll::Ready(()),
                Due::Set(_) => {}
            }
        }
    }
}
