//! Single reads of many callers on few connections, each with many statements under way.
//!
//! A round trip leaves a connection idle most of the time, and a checkout for each makes one backend
//! after the other run a little. Pipelined, a backend finds its next statement there already.
//!
//! Only reads are run so, in a session that refuses writes: whatever holds one up, it can be run
//! again elsewhere and nothing has happened twice. A write would also gain little, since those on
//! one connection would commit one after the other; and it could wait for a lock that is held by
//! somebody whose next statement waits behind it.

mod schedule;
mod shared;
mod text;
mod watch;

use std::future::{Future, poll_fn};
use std::hash::RandomState;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use self::schedule::{Limits, Schedule, Seat};
use self::shared::SharedConnection;
use self::text::{Class, TextId, Texts};
use super::connection::Params;
use super::manager::PgManager;
use crate::acquire::Acquire;
use crate::config::Statements;
use crate::error::{PoolError, lost_server};
use crate::pool::Pool;
use crate::stats::PoolStats;

/// Statements under way on one pipeline. A deeper one gains nothing: the socket never runs dry at
/// a tenth of it, and what is on board must get off when it stands still.
const DEPTH: usize = 64;
/// A pipeline more is opened when each has so many statements under way.
const GROW_AT: usize = 8;
/// A lookup takes a twentieth of it. Shorter, and a busy machine looks like a slow statement.
const STALL: Duration = Duration::from_millis(5);
/// The same for a text that was fast a hundred times. On a machine with too much to do a backend
/// waits so long for its turn.
const PROVEN_STALL: Duration = Duration::from_millis(25);
/// A statement that takes longer gives its pipeline up and begins anew elsewhere.
const PATIENCE: Duration = Duration::from_millis(100);
/// Where an answer takes longer than this, a round trip is the smaller part of it.
const HEAVY: Duration = Duration::from_micros(500);
/// A pipeline without work keeps its connection for so long.
const IDLE: Duration = Duration::from_secs(1);

/// The pipelines of one pool.
pub(super) struct Pipelines {
    pool: Pool<PgManager>,
    state: Mutex<State>,
    /// Statements that may be under way in all. It serves its callers in order.
    slots: Semaphore,
    hasher: RandomState,
}

struct State {
    schedule: Schedule<Arc<SharedConnection>>,
    texts: Texts,
    counts: Counts,
    watched: bool,
}

/// Outcomes, as [`PoolStats`] counts them.
#[derive(Debug, Default)]
struct Counts {
    waiting: u64,
    turns: u64,
    timed_out: u64,
    rejected: u64,
    cancelled: u64,
    failed: u64,
    boarded: u64,
    moved: u64,
}

/// How a read ended here.
pub(super) enum Ride<'a> {
    Answered(Result<Vec<Row>, PoolError>),
    /// Nothing has happened: it is to be run on a connection of its own.
    Elsewhere(Outside<'a>),
}

impl Pipelines {
    /// `None` if the configuration wants none.
    pub(super) fn new(pool: &Pool<PgManager>) -> Option<Arc<Self>> {
        let config = pool.config();
        // A pooler gives each statement whichever session is free, so none is read-only for long.
        if config.pipelines == 0 || config.statements == Statements::Unnamed {
            return None;
        }
        let pipelines = config.pipelines.min(config.max_size / 2);
        let slots = DEPTH * pipelines.max(1);
        let limits = Limits {
            pipelines,
            // One may stand for all while the others are being opened.
            depth: slots,
            grow_at: GROW_AT,
            stall: STALL,
            proven_stall: PROVEN_STALL,
            heavy: HEAVY,
            patience: PATIENCE,
            idle: IDLE,
        };
        let texts = Texts::new();
        Some(Arc::new(Self {
            pool: pool.clone(),
            hasher: texts.hasher(),
            state: Mutex::new(State {
                schedule: Schedule::new(limits),
                texts,
                counts: Counts::default(),
                watched: false,
            }),
            slots: Semaphore::new(slots),
        }))
    }

    /// Runs a statement next to others, if it is a read and there is a pipeline for it.
    pub(super) async fn query(self: &Arc<Self>, sql: &str, params: Params<'_>) -> Ride<'_> {
        let text = text::identify(&self.hasher, sql);
        let (class, heavy) = self.class(text, sql);
        let proven = match class {
            Class::Alone => return Ride::Elsewhere(Outside::unknown(self, text)),
            Class::Slow => return Ride::Elsewhere(Outside::slow(self, text)),
            Class::Shared { proven } => proven,
        };
        if heavy && self.pool.has_spare() {
            return Ride::Elsewhere(Outside::unknown(self, text));
        }
        let mut acquire = Acquire::new();
        let slot = match self.slots.try_acquire() {
            Ok(slot) => slot,
            Err(_) => {
                let began = Instant::now();
                // Whoever waits here and then elsewhere waits no longer in all.
                let deadline = began + self.pool.config().acquire_timeout;
                acquire = acquire.deadline(deadline);
                match self.slot(began, deadline).await {
                    Ok(slot) => slot,
                    Err(error) => return Ride::Answered(Err(error)),
                }
            }
        };
        let (boarded, grow) = {
            let mut state = self.state.lock();
            let boarded = state.schedule.board(text, proven);
            state.counts.boarded += u64::from(boarded.is_some());
            if boarded.is_none() {
                state.schedule.step_outside();
            }
            (boarded, state.schedule.wants_one())
        };
        if grow {
            shared::open(self);
        }
        let Some((seat, conn)) = boarded else {
            return Ride::Elsewhere(Outside::read(self, text, acquire));
        };
        let seat = Mutex::new(seat);
        let mut flight = Flight { pipelines: self, seat, conn, answered: false, _slot: slot };
        match flight.run(sql, params).await {
            Some(result) => Ride::Answered(result),
            None => {
                drop(flight);
                self.state.lock().schedule.step_outside();
                Ride::Elsewhere(Outside::read(self, text, acquire))
            }
        }
    }

    /// Adds what happened here to the figures of the pool.
    pub(super) fn add_to(&self, stats: &mut PoolStats) {
        let state = self.state.lock();
        let counts = &state.counts;
        stats.waiting += counts.waiting as usize;
        stats.acquired_total += counts.turns;
        stats.timed_out_total += counts.timed_out;
        stats.rejected_total += counts.rejected;
        stats.cancelled_total += counts.cancelled;
        stats.failed_total += counts.failed;
        stats.started_total += counts.waiting
            + counts.turns
            + counts.timed_out
            + counts.rejected
            + counts.cancelled
            + counts.failed;
        stats.pipelines = state.schedule.len();
        stats.pipelined_total = counts.boarded;
        stats.moved_total = counts.moved;
    }

    /// As the pool was resized.
    pub(super) fn resize(&self, max_size: usize) {
        let pipelines = self.pool.config().pipelines.min(max_size / 2);
        let ended = self.state.lock().schedule.resize(pipelines);
        drop(ended);
    }

    /// Takes no further statement for good.
    pub(super) fn close(&self) {
        self.slots.close();
        let ended = self.state.lock().schedule.close();
        drop(ended);
    }

    /// Takes no further statement while `paused`; those under way end as they would.
    pub(super) fn pause(&self, paused: bool) {
        let ended = self.state.lock().schedule.pause(paused);
        // Outside the lock: that gives their connections back.
        drop(ended);
    }

    /// How the text runs, and whether the pipelines have enough to do.
    fn class(&self, text: TextId, sql: &str) -> (Class, bool) {
        {
            let mut state = self.state.lock();
            if let Some(class) = state.texts.class(text) {
                return (class, state.schedule.is_heavy());
            }
        }
        let read = text::is_read(sql);
        self.state.lock().texts.learn(text, read);
        (if read { Class::Shared { proven: false } } else { Class::Alone }, false)
    }

    /// Waits for a turn, as an acquire waits for a connection.
    async fn slot(
        &self,
        began: Instant,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, PoolError> {
        let limit = self.pool.config().max_waiters;
        {
            let mut state = self.state.lock();
            if self.slots.is_closed() {
                state.counts.failed += 1;
                return Err(PoolError::Closed);
            }
            if state.counts.waiting >= limit as u64 {
                state.counts.rejected += 1;
                return Err(PoolError::TooManyWaiters { limit });
            }
            state.counts.waiting += 1;
        }
        let place = Place { pipelines: self, settled: false };
        match timeout_at(deadline, self.slots.acquire()).await {
            Ok(Ok(slot)) => {
                place.settle(|counts| counts.turns += 1);
                Ok(slot)
            }
            Ok(Err(_closed)) => {
                place.settle(|counts| counts.failed += 1);
                Err(PoolError::Closed)
            }
            Err(_elapsed) => {
                place.settle(|counts| counts.timed_out += 1);
                Err(self.pool.shared.saturated(began))
            }
        }
    }
}

/// A place among those who wait for a turn. Dropped before that was settled, it was cancelled.
struct Place<'a> {
    pipelines: &'a Pipelines,
    settled: bool,
}

impl Place<'_> {
    fn settle(mut self, count: impl FnOnce(&mut Counts)) {
        self.settled = true;
        let counts = &mut self.pipelines.state.lock().counts;
        counts.waiting -= 1;
        count(counts);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.settled {
            let counts = &mut self.pipelines.state.lock().counts;
            counts.waiting -= 1;
            counts.cancelled += 1;
        }
    }
}

/// A statement under way on a pipeline.
struct Flight<'a> {
    pipelines: &'a Pipelines,
    /// Changes when a statement is sent that had to be prepared first.
    seat: Mutex<Seat>,
    conn: Arc<SharedConnection>,
    answered: bool,
    _slot: SemaphorePermit<'a>,
}

impl Flight<'_> {
    /// `None` if it must be run elsewhere.
    async fn run(&mut self, sql: &str, params: Params<'_>) -> Option<Result<Vec<Row>, PoolError>> {
        let state = &self.pipelines.state;
        // Idle, it may have died since the last look.
        if self.conn.is_broken() {
            state.lock().counts.moved += 1;
            return None;
        }
        let (waited, sent) = (AtomicBool::new(false), AtomicBool::new(false));
        let sends = || {
            sent.store(true, Ordering::Relaxed);
            if waited.load(Ordering::Relaxed) {
                let mut seat = self.seat.lock();
                *seat = state.lock().schedule.renew(*seat);
            }
        };
        let mut call = pin!(self.conn.query_shared(sql, params, sends));
        let ended = poll_fn(|cx| {
            if let Poll::Ready(result) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            waited.store(true, Ordering::Relaxed);
            let seat = *self.seat.lock();
            let mut state = state.lock();
            let sent = sent.load(Ordering::Relaxed);
            if state.schedule.must_leave(seat, sent, cx.waker()) {
                state.counts.moved += 1;
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        let error = match ended? {
            Ok(rows) => {
                self.answered = true;
                return Some(Ok(rows));
            }
            Err(error) => error,
        };
        self.answered = error.code().is_some();
        let seat = *self.seat.lock();
        let mut state = state.lock();
        if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
            let text = text::identify(&self.pipelines.hasher, sql);
            state.texts.writes(text);
        } else if !lost_server(&error) || state.schedule.is_first(seat) {
            // Whoever was in front may be why the backend died: nobody else shall die of it.
            return Some(Err(PoolError::Postgres(error)));
        }
        state.counts.moved += 1;
        None
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.conn.interrupt();
        }
        let ended = self.pipelines.state.lock().schedule.leave(*self.seat.get_mut(), self.answered);
        // Outside the lock: that may give a connection back.
        drop(ended);
    }
}

/// A statement that runs elsewhere. What is learnt of it is told here.
pub(super) struct Outside<'a> {
    pipelines: &'a Pipelines,
    text: TextId,
    /// It is a read that found no pipeline, and so a reason to open one.
    counted: bool,
    /// It was slow; is it still?
    timed: bool,
    acquire: Acquire,
}

impl<'a> Outside<'a> {
    fn unknown(pipelines: &'a Pipelines, text: TextId) -> Self {
        Self { pipelines, text, counted: false, timed: false, acquire: Acquire::new() }
    }

    fn slow(pipelines: &'a Pipelines, text: TextId) -> Self {
        Self { pipelines, text, counted: false, timed: true, acquire: Acquire::new() }
    }

    /// The caller has counted it.
    fn read(pipelines: &'a Pipelines, text: TextId, acquire: Acquire) -> Self {
        Self { pipelines, text, counted: true, timed: false, acquire }
    }

    /// How to get the connection it runs on.
    pub(super) fn acquire(&self) -> Acquire {
        self.acquire
    }

    pub(super) async fn run<T, E>(self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        if !self.timed {
            return call.await;
        }
        let began = Instant::now();
        let result = call.await;
        // Not `STALL`: what runs alone on a busy machine shall have a chance.
        let quick = result.is_ok() && began.elapsed() < PROVEN_STALL;
        self.pipelines.state.lock().texts.ran(self.text, quick);
        result
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.pipelines.state.lock().schedule.step_inside();
        }
    }
}
