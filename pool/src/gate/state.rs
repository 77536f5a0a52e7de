//! The state behind the lock. No clock, no chance and no I/O: they come in as arguments, and what is
//! to be done goes out.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::primitives::{Arc, Mutex, oneshot};
use super::tokens::{Claim, Connecting, Entry, Handed, Lane, Permit, Place, Sweep, Ticket, Which};
use crate::backoff::Backoff;
use crate::error::{Cause, PoolError};
use crate::meter::Outcome;
use crate::stats::{CloseReason, PoolStats};

/// A failure older than this says nothing about a timeout of now.
const RECENT: Duration = Duration::from_secs(30);

/// A caller waits for the end of a backoff that is no longer than this: together with a connect that
/// is refused it stays under the 50 ms in which a failure is to be told, and a server that dropped
/// one connect fails nobody else.
const BRIEF: Duration = Duration::from_millis(25);

/// The counts of one pool.
#[derive(Debug)]
pub(crate) struct Gate(pub(super) Mutex<State>);

/// What does not change while a pool lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) reserved: usize,
    pub(crate) max_waiters: usize,
    pub(crate) max_connecting: usize,
    pub(crate) min_idle: usize,
    pub(crate) max_backoff: Duration,
}

/// What a caller with a permit gets who wants a connection.
#[derive(Debug)]
pub(crate) enum Want {
    /// The permit has a claim now.
    Claimed,
    /// A claim will come, or the failure that leaves the pool without any connection.
    Wait(Place<Result<Claim, Cause>>),
    /// The pool has no connection, and the server is being left alone after this failure.
    Failed(Cause),
    Closed,
}

/// What is to be done about connections that are wanted.
#[derive(Debug)]
pub(crate) enum Plan {
    Nothing,
    /// Connect, and ask again.
    Connect(Connecting),
    /// Ask again then. Said once for each such time.
    At(Instant),
}

/// Callers in the order they came.
#[derive(Debug)]
pub(super) struct Queue<T> {
    next_id: u64,
    waiting: VecDeque<(u64, oneshot::Sender<T>)>,
}

#[derive(Debug)]
pub(super) struct State {
    limits: Limits,
    max_size: usize,
    paused: bool,
    closed: bool,
    /// The idle connections are out of the store for a moment, to be looked at.
    sweeping: bool,
    /// Somebody will ask for the plan again when the backoff ends.
    pacing: bool,
    /// Permits out.
    ordinary: usize,
    reserved: usize,
    /// Permits out that became leases.
    leased: usize,
    /// Connections that exist, wherever they are.
    size: usize,
    /// Connections in the store that nobody has a claim on.
    idle: usize,
    connecting: usize,
    /// Connections beyond `max_size` that were opened for the reserved lane.
    extra: usize,
    queue: Queue<Permit>,
    reserved_queue: Queue<Permit>,
    wanting: Queue<Result<Claim, Cause>>,
    backoff: Backoff,
    last_failure: Option<(Instant, Cause)>,
    /// Those who wait for the last permit of a closed pool.
    draining: Vec<oneshot::Sender<()>>,
    /// The totals, and `waiting`. The other gauges are filled in by a snapshot.
    pub(super) stats: PoolStats,
}

impl Gate {
    pub(crate) fn new(max_size: usize, limits: Limits) -> Self {
        Self(Mutex::new(State {
            limits,
            max_size,
            paused: false,
            closed: false,
            sweeping: false,
            pacing: false,
            ordinary: 0,
            reserved: 0,
            leased: 0,
            size: 0,
            idle: 0,
            connecting: 0,
            extra: 0,
            queue: Queue::new(),
            reserved_queue: Queue::new(),
            wanting: Queue::new(),
            backoff: Backoff::new(limits.max_backoff),
            last_failure: None,
            draining: Vec::new(),
            stats: PoolStats::default(),
        }))
    }

    /// Counts a start, and gives a permit or a place among those who wait for one.
    pub(crate) fn enter(self: &Arc<Self>, lane: Lane) -> (Ticket, Result<Entry, PoolError>) {
        let mut state = self.0.lock();
        state.stats.start();
        let entry = state.enter(self, lane);
        drop(state);
        (Ticket::new(Arc::clone(self)), entry)
    }

    /// A connection for a permit that found none idle.
    pub(crate) fn want(self: &Arc<Self>, permit: &mut Permit, now: Instant) -> Want {
        let mut state = self.0.lock();
        if state.closed {
            return Want::Closed;
        }
        if state.take_idle() {
            permit.claimed();
            return Want::Claimed;
        }
        if state.size == 0
            && state.connecting == 0
            && state.backoff.waits_until(now).is_some_and(|until| until - now > BRIEF)
            && let Some((_, cause)) = &state.last_failure
        {
            return Want::Failed(Arc::clone(cause));
        }
        Want::Wait(Place::new(Arc::clone(self), Which::Claim, state.wanting.push()))
    }

    /// Whether a connect is due. To be asked after anything that may change the answer.
    pub(crate) fn plan(self: &Arc<Self>, now: Instant) -> Plan {
        let mut state = self.0.lock();
        let wanted = state.wanting.len();
        state.plan(self, now, wanted)
    }

    /// As [`plan`](Self::plan), for a pool that has fewer connections than it shall keep.
    pub(crate) fn plan_upkeep(self: &Arc<Self>, now: Instant) -> Plan {
        let mut state = self.0.lock();
        let wanted = usize::from(!state.paused && state.lacks() && state.connecting == 0);
        state.plan(self, now, wanted)
    }

    /// The time that [`Plan::At`] named has come.
    pub(crate) fn paced(&self) {
        self.0.lock().pacing = false;
    }

    /// One connection more lies in the store, for whoever waits longest.
    pub(crate) fn put(self: &Arc<Self>) {
        let handed = self.0.lock().put(self);
        handed.send();
    }

    /// A claim on an idle connection that is one too many, and why it is.
    pub(crate) fn claim_surplus(self: &Arc<Self>) -> Option<(Claim, CloseReason)> {
        let mut state = self.0.lock();
        let reason = state.surplus()?;
        state.take_idle().then(|| (Claim::new(Arc::clone(self)), reason))
    }

    /// Claims every idle connection for a look. Until that ends no connect begins, since the
    /// connections are not gone. `None` while another look is under way.
    pub(crate) fn sweep(self: &Arc<Self>) -> Option<Sweep> {
        let mut state = self.0.lock();
        if state.sweeping {
            return None;
        }
        state.sweeping = true;
        let claims = std::mem::take(&mut state.idle);
        drop(state);
        Some(Sweep::new(Arc::clone(self), claims))
    }

    pub(super) fn swept(&self) {
        self.0.lock().sweeping = false;
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, reason: CloseReason) {
        let mut state = self.0.lock();
        state.size -= 1;
        let beyond = state.size.saturating_sub(state.max_size);
        state.extra = state.extra.min(beyond);
        *state.stats.closed.total(reason) += 1;
    }

    /// Whether a connection is missing, to a caller or to the upkeep, or one is too many.
    pub(crate) fn is_unsettled(&self) -> bool {
        let state = self.0.lock();
        state.is_unsettled() || !state.closed && state.lacks()
    }

    /// Whether the pool has fewer connections than it shall keep.
    pub(crate) fn lacks(&self) -> bool {
        let state = self.0.lock();
        !state.closed && state.lacks()
    }

    /// Changes the number of permits. Leases beyond it are left alone and not given out again.
    pub(crate) fn resize(self: &Arc<Self>, max_size: usize) -> usize {
        let former = {
            let mut state = self.0.lock();
            state.extra = 0;
            std::mem::replace(&mut state.max_size, max_size)
        };
        self.serve();
        former
    }

    /// Gives out no permit of the ordinary lane while `paused`. True if that changed.
    pub(crate) fn pause(self: &Arc<Self>, paused: bool) -> bool {
        let former = std::mem::replace(&mut self.0.lock().paused, paused);
        self.serve();
        former != paused
    }

    /// Turns away everybody who waits, and whoever comes.
    pub(crate) fn close(&self) {
        let turned_away = {
            let mut state = self.0.lock();
            state.closed = true;
            (state.queue.take(), state.reserved_queue.take(), state.wanting.take())
        };
        // Outside the lock: it wakes them.
        drop(turned_away);
    }

    /// Ends when the last permit of a closed pool is back; `None` if it is.
    pub(crate) fn drained(&self) -> Option<oneshot::Receiver<()>> {
        let mut state = self.0.lock();
        (state.permits_out() > 0).then(|| {
            let (sender, receiver) = oneshot::channel();
            state.draining.push(sender);
            receiver
        })
    }

    pub(crate) fn permits_out(&self) -> usize {
        self.0.lock().permits_out()
    }

    /// The last failed connect, unless it is an old story or a later one succeeded.
    pub(crate) fn last_failure(&self, now: Instant) -> Option<Cause> {
        let state = self.0.lock();
        let (at, cause) = state.last_failure.as_ref()?;
        (now.saturating_duration_since(*at) < RECENT).then(|| Arc::clone(cause))
    }

    /// All figures, of one moment.
    pub(crate) fn snapshot(&self) -> PoolStats {
        let state = self.0.lock();
        let mut stats = state.stats;
        stats.size = state.size;
        stats.available = state.idle;
        stats.leased = state.leased;
        stats.max_size = state.max_size;
        stats.reserved = state.limits.reserved;
        stats.connecting = state.connecting;
        stats.paused = state.paused;
        stats
    }

    /// Counts something in the totals.
    pub(crate) fn count(&self, count: impl FnOnce(&mut PoolStats)) {
        count(&mut self.0.lock().stats);
    }

    /// Hands out what may be handed out now, one by one, each outside the lock.
    fn serve(self: &Arc<Self>) {
        loop {
            let handed = self.0.lock().pump(self);
            if handed.is_none() {
                return;
            }
            Handed { permit: handed, ..Handed::default() }.send();
        }
    }
}

impl State {
    fn enter(&mut self, gate: &Arc<Gate>, lane: Lane) -> Result<Entry, PoolError> {
        if self.closed {
            return Err(PoolError::Closed);
        }
        // Who waits already comes first; with a free permit nobody does.
        if self.has_ordinary() {
            return Ok(Entry::Permit(self.permit(gate, Lane::Ordinary)));
        }
        let limit = self.limits.max_waiters;
        let (queue, which) = match lane {
            Lane::Reserved if self.reserved < self.limits.reserved => {
                return Ok(Entry::Permit(self.permit(gate, Lane::Reserved)));
            }
            Lane::Reserved => (&mut self.reserved_queue, Which::Reserved),
            Lane::Ordinary => (&mut self.queue, Which::Ordinary),
        };
        if queue.len() >= limit {
            return Err(PoolError::TooManyWaiters { limit });
        }
        Ok(Entry::Queued(Place::new(Arc::clone(gate), which, queue.push())))
    }

    fn has_ordinary(&self) -> bool {
        !self.paused && self.ordinary < self.max_size
    }

    /// A permit that is free, with a claim if there is an idle connection.
    fn permit(&mut self, gate: &Arc<Gate>, lane: Lane) -> Permit {
        match lane {
            Lane::Ordinary => self.ordinary += 1,
            Lane::Reserved => {
                self.reserved += 1;
                self.stats.reserved_total += 1;
            }
        }
        let claim = self.take_idle();
        Permit::new(Arc::clone(gate), lane, claim)
    }

    fn take_idle(&mut self) -> bool {
        let idle = self.idle > 0;
        self.idle -= usize::from(idle);
        idle
    }

    /// The next permit to hand out, with its receiver.
    fn pump(&mut self, gate: &Arc<Gate>) -> Option<(oneshot::Sender<Permit>, Permit)> {
        if self.has_ordinary() {
            // The reserved lane waits for whatever comes first.
            let next = self.queue.pop().or_else(|| self.reserved_queue.pop());
            return next.map(|next| (next, self.permit(gate, Lane::Ordinary)));
        }
        if self.reserved < self.limits.reserved {
            let next = self.reserved_queue.pop()?;
            return Some((next, self.permit(gate, Lane::Reserved)));
        }
        None
    }

    pub(super) fn put(&mut self, gate: &Arc<Gate>) -> Handed {
        match self.wanting.pop() {
            Some(next) => {
                let claim = Some((next, Claim::new(Arc::clone(gate))));
                Handed { claim, ..Handed::default() }
            }
            None => {
                self.idle += 1;
                Handed::default()
            }
        }
    }

    /// Takes a permit back. `put` if a claim comes back with it, and how long it was a lease.
    pub(super) fn release(
        &mut self,
        gate: &Arc<Gate>,
        lane: Lane,
        put: bool,
        held: Option<Duration>,
    ) -> Handed {
        match lane {
            Lane::Ordinary => self.ordinary -= 1,
            Lane::Reserved => self.reserved -= 1,
        }
        if let Some(held) = held {
            self.leased -= 1;
            self.stats.hold_seconds_total += held.as_secs_f64();
        }
        let mut handed = if put { self.put(gate) } else { Handed::default() };
        handed.permit = self.pump(gate);
        if self.closed && self.permits_out() == 0 {
            handed.drained = std::mem::take(&mut self.draining);
        }
        handed
    }

    pub(super) fn lease(&mut self, waited: Duration) {
        self.leased += 1;
        self.stats.settle(Outcome::Acquired);
        self.stats.waited(waited);
    }

    /// One connect more is due if more are `wanted` than are under way. While the server fails only
    /// one asks it at a time, after the backoff.
    fn plan(&mut self, gate: &Arc<Gate>, now: Instant, wanted: usize) -> Plan {
        let most = if self.backoff.is_failing() { 1 } else { self.limits.max_connecting };
        let room = self.max_size + self.reserved;
        if self.closed
            || self.sweeping
            || self.connecting >= wanted.min(most)
            || self.size + self.connecting >= room
        {
            return Plan::Nothing;
        }
        if let Some(until) = self.backoff.waits_until(now) {
            if std::mem::replace(&mut self.pacing, true) {
                return Plan::Nothing;
            }
            return Plan::At(until);
        }
        self.connecting += 1;
        self.stats.connects_total += 1;
        let beyond = (self.size + self.connecting).saturating_sub(self.max_size);
        self.extra = self.extra.max(beyond);
        Plan::Connect(Connecting::new(Arc::clone(gate)))
    }

    pub(super) fn connected(&mut self, took: Duration) {
        self.connecting -= 1;
        self.size += 1;
        self.backoff.succeeded();
        self.last_failure = None;
        self.stats.connect_seconds_total += took.as_secs_f64();
    }

    /// Notes a failed connect. While the pool has no connection one caller is told, and all of them
    /// once nobody tries any more.
    pub(super) fn connect_failed(
        &mut self,
        failure: Failure<'_>,
    ) -> (Instant, Vec<oneshot::Sender<Result<Claim, Cause>>>) {
        self.connecting -= 1;
        self.stats.connect_failures_total += 1;
        self.stats.connect_seconds_total += (failure.now - failure.began).as_secs_f64();
        self.last_failure = Some((failure.now, Arc::clone(failure.cause)));
        let until = self.backoff.failed(failure.began, failure.now, failure.chance);
        let told = match (self.size, self.connecting) {
            (0, 0) => self.wanting.take(),
            (0, _) => self.wanting.pop().into_iter().collect(),
            _ => Vec::new(),
        };
        (until, told)
    }

    /// A connect whose task was stopped: nobody is left to hear of it.
    pub(super) fn connect_stopped(&mut self) {
        self.connecting -= 1;
        self.stats.connect_failures_total += 1;
    }

    /// Gives a place up.
    pub(super) fn leave(&mut self, which: Which, id: u64) {
        match which {
            Which::Ordinary => self.queue.remove(id),
            Which::Reserved => self.reserved_queue.remove(id),
            Which::Claim => self.wanting.remove(id),
        }
    }

    fn surplus(&self) -> Option<CloseReason> {
        if self.closed {
            return Some(CloseReason::PoolClosed);
        }
        (self.size > self.max_size + self.extra).then_some(CloseReason::Surplus)
    }

    /// Somebody wants a connection, or an idle one is too many.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.wanting.is_empty() || self.idle > 0 && self.surplus().is_some()
    }

    fn lacks(&self) -> bool {
        self.size + self.connecting < self.limits.min_idle.min(self.max_size)
    }

    pub(super) fn permits_out(&self) -> usize {
        self.ordinary + self.reserved
    }
}

/// A connect that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub(crate) began: Instant,
    pub(crate) now: Instant,
    pub(crate) chance: f64,
    pub(crate) cause: &'a Cause,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self { next_id: 0, waiting: VecDeque::new() }
    }

    fn push(&mut self) -> (u64, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.push_back((id, sender));
        (id, receiver)
    }

    fn pop(&mut self) -> Option<oneshot::Sender<T>> {
        self.waiting.pop_front().map(|(_, sender)| sender)
    }

    fn take(&mut self) -> Vec<oneshot::Sender<T>> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, sender)| sender).collect()
    }

    /// The identifiers ascend, so it is found by halving.
    fn remove(&mut self, id: u64) {
        if let Ok(index) = self.waiting.binary_search_by_key(&id, |(id, _)| *id) {
            self.waiting.remove(index);
        }
    }

    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
