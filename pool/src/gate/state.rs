//! The state behind the lock. No clock, no chance and no I/O: they come in as arguments, and what is
//! to be done goes out.

use std::time::Duration;

use tokio::time::Instant;

use super::lock::Gate;
use super::primitives::{Arc, oneshot};
use super::queue::Queue;
use super::tokens::{Claim, Connecting, Entry, Handed, Lane, Permit, Place, Which};
use crate::backoff::Backoff;
use crate::error::{Cause, PoolError};
use crate::meter::Outcome;
use crate::stats::{CloseReason, PoolStats};

/// A failure older than this says nothing about a timeout of now.
const RECENT: Duration = Duration::from_secs(30);

/// A caller waits for the end of a backoff that is no longer than this, so that a server that dropped
/// one connect fails nobody else. Together with a connect that is refused it stays under the 50 ms
/// in which a failure is to be told; who waits beside others may sit out several in a row.
const BRIEF: Duration = Duration::from_millis(25);

/// What does not change while a pool lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) reserved: usize,
    pub(crate) max_waiters: usize,
    pub(crate) max_connecting: usize,
    pub(crate) min_idle: usize,
    pub(crate) max_backoff: Duration,
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

#[derive(Debug)]
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) max_size: usize,
    pub(super) paused: bool,
    pub(super) closed: bool,
    /// The idle connections are out of the store for a moment, to be looked at.
    pub(super) sweeping: bool,
    /// Somebody will ask for the plan again when the backoff ends.
    pub(super) pacing: bool,
    /// Permits out.
    pub(super) ordinary: usize,
    pub(super) reserved: usize,
    /// Permits out that became leases.
    pub(super) leased: usize,
    /// Connections that exist, wherever they are.
    pub(super) size: usize,
    /// Connections in the store that nobody has a claim on.
    pub(super) idle: usize,
    pub(super) connecting: usize,
    /// Connections beyond `max_size` that were opened for the reserved lane.
    pub(super) extra: usize,
    pub(super) queue: Queue<Permit>,
    pub(super) reserved_queue: Queue<Permit>,
    pub(super) wanting: Queue<Result<Claim, Cause>>,
    pub(super) backoff: Backoff,
    pub(super) last_failure: Option<(Instant, Cause)>,
    /// Those who wait for the last permit of a closed pool.
    pub(super) draining: Vec<oneshot::Sender<()>>,
    /// The totals, and `waiting`. The other gauges are filled in by a snapshot.
    pub(super) stats: PoolStats,
}

impl State {
    pub(super) fn new(max_size: usize, limits: Limits) -> Self {
        Self {
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
        }
    }

    pub(super) fn enter(&mut self, gate: &Arc<Gate>, lane: Lane) -> Result<Entry, PoolError> {
        if self.closed {
            return Err(PoolError::Closed);
        }
        // Who waits already comes first, also in the moment before a resumed or larger pool serves.
        if self.has_ordinary() && !self.is_queued() {
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

    pub(super) fn is_queued(&self) -> bool {
        !self.queue.is_empty() || !self.reserved_queue.is_empty()
    }

    pub(super) fn has_ordinary(&self) -> bool {
        !self.paused && self.ordinary < self.max_size
    }

    /// A permit that is free, with a claim if there is an idle connection. If there is none, its
    /// holder wants one from now on, not only when it runs next: a later caller could pass it.
    pub(super) fn permit(&mut self, gate: &Arc<Gate>, lane: Lane) -> Permit {
        match lane {
            Lane::Ordinary => self.ordinary += 1,
            Lane::Reserved => {
                self.reserved += 1;
                self.stats.reserved_total += 1;
            }
        }
        if self.take_idle() {
            return Permit::new(Arc::clone(gate), lane, None);
        }
        let place = Place::new(Arc::clone(gate), Which::Claim, self.wanting.push());
        Permit::new(Arc::clone(gate), lane, Some(place))
    }

    pub(super) fn take_idle(&mut self) -> bool {
        let idle = self.idle > 0;
        self.idle -= usize::from(idle);
        idle
    }

    /// The next permit to hand out, with its receiver.
    pub(super) fn pump(&mut self, gate: &Arc<Gate>) -> Option<(oneshot::Sender<Permit>, Permit)> {
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

    /// The last failure, if there is no connection and the server is being left alone for a while.
    pub(super) fn hopeless(&self, now: Instant) -> Option<Cause> {
        let (_, cause) = self.last_failure.as_ref()?;
        let until = self.backoff.waits_until(now)?;
        let nothing = self.size == 0 && self.connecting == 0;
        (nothing && until - now > BRIEF).then(|| Arc::clone(cause))
    }

    pub(super) fn recent_failure(&self, now: Instant) -> Option<Cause> {
        let (at, cause) = self.last_failure.as_ref()?;
        (now.saturating_duration_since(*at) < RECENT).then(|| Arc::clone(cause))
    }

    /// One connect more is due if more are `wanted` than are under way. While the server fails only
    /// one asks it at a time, after the backoff.
    pub(super) fn plan(&mut self, gate: &Arc<Gate>, now: Instant, wanted: usize) -> Plan {
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

    /// A connect whose task was stopped, which only the end of the pool's runtime does. No other
    /// would come further, so whoever wants a connection is to be turned away: by the drop of what
    /// this returns, outside the lock.
    #[must_use]
    pub(super) fn connect_stopped(&mut self) -> Vec<oneshot::Sender<Result<Claim, Cause>>> {
        self.connecting -= 1;
        self.stats.connect_failures_total += 1;
        self.wanting.take()
    }

    /// Gives a place up.
    #[must_use]
    pub(super) fn leave(&mut self, which: Which, id: u64) -> Left {
        match which {
            Which::Ordinary => Left::Permit(self.queue.remove(id)),
            Which::Reserved => Left::Permit(self.reserved_queue.remove(id)),
            Which::Claim => Left::Claim(self.wanting.remove(id)),
        }
    }

    pub(super) fn surplus(&self) -> Option<CloseReason> {
        if self.closed {
            return Some(CloseReason::PoolClosed);
        }
        (self.size > self.max_size + self.extra).then_some(CloseReason::Surplus)
    }

    /// Somebody wants a connection, or an idle one is too many.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.wanting.is_empty() || self.idle > 0 && self.surplus().is_some()
    }

    pub(super) fn lacks(&self) -> bool {
        self.size + self.connecting < self.limits.min_idle.min(self.max_size)
    }

    pub(super) fn permits_out(&self) -> usize {
        self.ordinary + self.reserved
    }
}

/// The other end of a place that was given up, to be dropped outside the lock.
#[derive(Debug)]
pub(super) enum Left {
    Permit(#[expect(dead_code, reason = "it is only dropped")] Option<oneshot::Sender<Permit>>),
    Claim(
        #[expect(dead_code, reason = "it is only dropped")]
        Option<oneshot::Sender<Result<Claim, Cause>>>,
    ),
}

/// A connect that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub(crate) began: Instant,
    pub(crate) now: Instant,
    pub(crate) chance: f64,
    pub(crate) cause: &'a Cause,
}
