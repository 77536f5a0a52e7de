//! The state with its lock around it: each method takes it once and wakes nobody while it has it.

use tokio::time::Instant;

use super::primitives::{Arc, Mutex, oneshot};
use super::state::{Limits, Plan, State};
use super::tokens::{Claim, Entry, Handed, Lane, Permit, Place, Sweep, Ticket, Which};
use crate::error::{Cause, PoolError};
use crate::stats::{CloseReason, PoolStats};

/// The counts of one pool.
#[derive(Debug)]
pub(crate) struct Gate(pub(super) Mutex<State>);

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

impl Gate {
    pub(crate) fn new(max_size: usize, limits: Limits) -> Self {
        Self(Mutex::new(State::new(max_size, limits)))
    }

    /// Counts a start, and gives a permit or a place among those who wait for one.
    pub(crate) fn enter(self: &Arc<Self>, lane: Lane) -> (Ticket, Result<Entry, PoolError>) {
        let mut state = self.0.lock();
        state.stats.start();
        let entry = state.enter(self, lane);
        drop(state);
        (Ticket::new(Arc::clone(self)), entry)
    }

    /// A connection for a permit that has none.
    pub(crate) fn want(self: &Arc<Self>, permit: &mut Permit, now: Instant) -> Want {
        // Before the lock: what is dropped takes it.
        let place = permit.place();
        let mut state = self.0.lock();
        if state.closed {
            return Want::Closed;
        }
        if let Some(cause) = state.hopeless(now) {
            return Want::Failed(cause);
        }
        if let Some(place) = place {
            return Want::Wait(place);
        }
        if state.take_idle() {
            permit.claimed();
            return Want::Claimed;
        }
        // What it had was not fit. It came before all who wait now.
        Want::Wait(Place::new(Arc::clone(self), Which::Claim, state.wanting.push_front()))
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

    /// Whether somebody waits for a permit.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_contended(&self) -> bool {
        self.0.lock().is_queued()
    }

    /// Whether a permit is free for whoever comes.
    #[cfg(feature = "postgres")]
    pub(crate) fn has_spare(&self) -> bool {
        let state = self.0.lock();
        state.has_ordinary() && !state.is_queued()
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
        state.recent_failure(now)
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
