//! What the clones of a pool, its leases and its upkeep share: the way of a caller to a connection,
//! and of a connection back.

use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::acquire::Acquire;
use crate::config::PoolConfig;
use crate::error::{Cause, PoolError};
use crate::event::{self, PoolEvent};
use crate::gate::{Entry, Gate, Permit, Place, Ticket, Want};
use crate::leaks::Leaks;
use crate::lease::{Lease, Stored};
use crate::manager::{Books, Bounded, Keeper, Manager, Slot};
use crate::meter::Outcome;
use crate::stats::{CloseReason, PoolSnapshot, PoolStats};

pub(crate) struct Shared<M: Manager> {
    pub(crate) store: bb8::Pool<Keeper<M>>,
    pub(crate) manager: Arc<Bounded<M>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) books: Arc<Books>,
    pub(crate) leaks: Option<Arc<Leaks>>,
    pub(crate) config: PoolConfig,
    /// A lease may be dropped outside the runtime, and leave work to do.
    pub(crate) runtime: Handle,
    /// Dropped with the pool, which ends the upkeep.
    pub(crate) _alive: tokio::sync::oneshot::Sender<()>,
}

/// An acquire that has passed the gate, or was turned away there.
pub(crate) struct Admitted {
    pub(crate) ticket: Ticket,
    pub(crate) permit: Result<Permit, PoolError>,
    pub(crate) began: Instant,
    /// When the permit came.
    pub(crate) now: Instant,
    pub(crate) deadline: Instant,
    pub(crate) place: &'static Location<'static>,
}

/// What a caller with a permit finds without waiting.
pub(crate) enum AtHand<M: Manager> {
    Fit(Stored<M>),
    /// To be tested.
    Unsure(Stored<M>),
    Nothing,
}

/// Whether a connection may be handed on.
pub(crate) enum Fitness {
    Fit,
    /// It was idle for too long to be sure.
    Test,
    Unfit(CloseReason),
}

/// A connection in hand, and since when.
type Found<M> = (Stored<M>, Permit, Instant);

/// How far an acquire is.
pub(crate) enum Progress<M: Manager> {
    Ended(Result<Lease<M>, PoolError>),
    Waits(Rest<M>),
}

/// What is left of an acquire that has to wait for its connection.
pub(crate) type Rest<M> = Pin<Box<dyn Future<Output = Result<Lease<M>, PoolError>> + Send>>;

impl<M: Manager> Shared<M> {
    pub(crate) async fn acquire(
        this: &Arc<Self>,
        acquire: Acquire,
        place: &'static Location<'static>,
    ) -> Result<Lease<M>, PoolError> {
        let began = Instant::now();
        let (ticket, entry) = this.gate.enter(acquire.lane());
        let deadline = acquire.ends(began, this.config.acquire_timeout);
        let (permit, now) = match entry {
            Ok(Entry::Permit(permit)) => (Ok(permit), began),
            Ok(Entry::Queued(queued)) => {
                let permit = this.permit(queued, began, deadline).await;
                (permit, Instant::now())
            }
            Err(error) => (Err(error), began),
        };
        match Self::admit(this, Admitted { ticket, permit, began, now, deadline, place }) {
            Progress::Ended(result) => result,
            Progress::Waits(rest) => rest.await,
        }
    }

    /// Serves who need not wait any more, which is the usual case. What is left to wait for comes
    /// in a box: with it inside, all futures around would be two kilobytes that are copied about
    /// even when there is nothing to wait for.
    #[inline]
    pub(crate) fn admit(this: &Arc<Self>, admitted: Admitted) -> Progress<M> {
        let Admitted { ticket, permit, began, now, deadline, place } = admitted;
        let mut permit = match permit {
            Ok(permit) => permit,
            Err(error) => return Progress::Ended(Err(this.refuse(ticket, began, place, error))),
        };
        let stored = match this.at_hand(&mut permit, now, deadline) {
            AtHand::Fit(stored) => {
                let found = (stored, permit, now);
                let lease = Self::conclude(this, ticket, found, began, place);
                return Progress::Ended(Ok(lease));
            }
            AtHand::Unsure(stored) => Some(stored),
            AtHand::Nothing => None,
        };
        let this = Arc::clone(this);
        Progress::Waits(Box::pin(async move {
            match this.find(permit, stored, began, deadline).await {
                Ok(found) => Ok(Self::conclude(&this, ticket, found, began, place)),
                Err(error) => Err(this.refuse(ticket, began, place, error)),
            }
        }))
    }

    fn at_hand(&self, permit: &mut Permit, now: Instant, deadline: Instant) -> AtHand<M> {
        if !permit.has_claim() {
            return AtHand::Nothing;
        }
        let Some(mut stored) = self.take_for(permit) else { return AtHand::Nothing };
        match self.fitness_until(&mut stored, now, deadline) {
            Fitness::Fit => AtHand::Fit(stored),
            Fitness::Test => AtHand::Unsure(stored),
            Fitness::Unfit(reason) => {
                self.retire(stored, reason);
                AtHand::Nothing
            }
        }
    }

    #[cold]
    fn refuse(
        &self,
        ticket: Ticket,
        began: Instant,
        place: &'static Location<'static>,
        error: PoolError,
    ) -> PoolError {
        ticket.settle(Outcome::of(&error));
        let waited = began.elapsed();
        self.tell(&PoolEvent::AcquireFailed { waited, place, error: &error });
        error
    }

    fn conclude(
        this: &Arc<Self>,
        ticket: Ticket,
        (stored, mut permit, now): Found<M>,
        began: Instant,
        place: &'static Location<'static>,
    ) -> Lease<M> {
        let waited = now.saturating_duration_since(began);
        ticket.acquired(&mut permit, waited);
        let lease = Lease::new(stored, permit, Arc::clone(this), now, place);
        this.tell(&PoolEvent::Acquired { waited, place });
        lease
    }

    /// The right to one connection, in turn.
    pub(crate) async fn permit(
        &self,
        queued: Place<Permit>,
        began: Instant,
        deadline: Instant,
    ) -> Result<Permit, PoolError> {
        match timeout_at(deadline, queued).await {
            Ok(permit) => permit.ok_or(PoolError::Closed),
            Err(_elapsed) => Err(self.saturated(began)),
        }
    }

    /// A connection that works, idle or new.
    async fn find(
        self: &Arc<Self>,
        mut permit: Permit,
        mut in_hand: Option<Stored<M>>,
        began: Instant,
        deadline: Instant,
    ) -> Result<Found<M>, PoolError> {
        let entered = Instant::now();
        let mut cause = None;
        loop {
            let found = match in_hand.take() {
                Some(stored) => Some(stored),
                None => self.obtain(&mut permit, deadline).await?,
            };
            let Some(mut stored) = found else {
                return Err(self.too_late(began, entered, cause));
            };
            let now = Instant::now();
            match self.fitness_until(&mut stored, now, deadline) {
                Fitness::Fit => return Ok((stored, permit, now)),
                Fitness::Unfit(reason) => self.retire(stored, reason),
                Fitness::Test => match timeout_at(deadline, self.test(&mut stored)).await {
                    Ok(Ok(())) => return Ok((stored, permit, Instant::now())),
                    Ok(Err(failure)) => {
                        cause = Some(failure);
                        self.retire(stored, CloseReason::Invalid);
                    }
                    Err(_elapsed) => {
                        self.retire(stored, CloseReason::Invalid);
                        return Err(self.too_late(began, entered, cause));
                    }
                },
            }
        }
    }

    /// Takes what is idle, or waits for what is made or comes back. `None` at the deadline.
    async fn obtain(
        self: &Arc<Self>,
        permit: &mut Permit,
        deadline: Instant,
    ) -> Result<Option<Stored<M>>, PoolError> {
        loop {
            if permit.has_claim()
                && let Some(stored) = self.take_for(permit)
            {
                return Ok(Some(stored));
            }
            let place = match self.gate.want(permit, Instant::now()) {
                Want::Claimed => continue,
                Want::Closed => return Err(PoolError::Closed),
                Want::Failed(cause) => return Err(PoolError::Connect(cause)),
                Want::Wait(place) => place,
            };
            self.connect_if_due();
            match timeout_at(deadline, place).await {
                Ok(Some(Ok(claim))) => permit.add(claim),
                Ok(Some(Err(cause))) => return Err(PoolError::Connect(cause)),
                Ok(None) => return Err(PoolError::Closed),
                Err(_elapsed) => return Ok(None),
            }
        }
    }

    /// Whether a connection that was idle may be handed on now.
    pub(crate) fn fitness(&self, stored: &mut Stored<M>, now: Instant) -> Fitness {
        if self.manager.is_broken(&mut stored.conn) {
            Fitness::Unfit(CloseReason::Broken)
        } else if now >= stored.expires {
            Fitness::Unfit(CloseReason::Lifetime)
        } else if now < stored.alive + self.config.validate_after {
            Fitness::Fit
        } else {
            Fitness::Test
        }
    }

    /// As [`fitness`](Self::fitness), but who has no time left for a test gets it untested: a test
    /// that is broken off would cost the pool a connection that most likely works.
    fn fitness_until(&self, stored: &mut Stored<M>, now: Instant, deadline: Instant) -> Fitness {
        match self.fitness(stored, now) {
            Fitness::Test if now >= deadline => Fitness::Fit,
            fitness => fitness,
        }
    }

    /// Tests a connection in hand. Whatever interrupts that, the connection is closed.
    pub(crate) async fn test(&self, stored: &mut Stored<M>) -> Result<(), Cause> {
        self.gate.count(|stats| stats.tests_total += 1);
        let result = self.manager.test(&mut stored.conn).await;
        match &result {
            Ok(()) => stored.alive = Instant::now(),
            Err(cause) => event::test_failed(cause),
        }
        result
    }

    fn take_for(&self, permit: &mut Permit) -> Option<Stored<M>> {
        let stored = self.take();
        permit.use_claim();
        stored
    }

    /// Takes out of the store what the caller has a claim on. It lies there, so bb8's future is
    /// ready at its first poll and nobody needs to be woken.
    pub(crate) fn take(&self) -> Option<Stored<M>> {
        let get = pin!(self.store.get_owned());
        match get.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(mut stored)) => {
                // Whatever happens to it from here on, the store does not keep it by itself.
                stored.fit = false;
                stored.member.reason = CloseReason::Invalid;
                Some(stored)
            }
            _ => None,
        }
    }

    /// Puts an idle connection back as it is.
    pub(crate) fn put(&self, stored: Stored<M>) {
        keep(stored);
        self.gate.put();
    }

    /// Puts a connection back after its use, unless it is to be closed. The permit that goes back
    /// next tells the gate that it was kept.
    pub(crate) fn store_again(
        &self,
        mut stored: Stored<M>,
        doom: Option<CloseReason>,
        now: Instant,
    ) -> bool {
        let unfit = if doom.is_some() {
            doom
        } else if self.manager.is_broken(&mut stored.conn) {
            Some(CloseReason::Broken)
        } else {
            (now >= stored.expires).then_some(CloseReason::Lifetime)
        };
        if let Some(reason) = unfit {
            self.retire(stored, reason);
            return false;
        }
        stored.used = now;
        stored.alive = now;
        keep(stored);
        true
    }

    /// Closes a connection in hand.
    pub(crate) fn retire(&self, mut stored: Stored<M>, reason: CloseReason) {
        stored.member.reason = reason;
        drop(stored);
    }

    /// Opens what is missing to callers, and closes what is idle and too many.
    pub(crate) fn settle(self: &Arc<Self>) {
        self.connect_if_due();
        // bb8 makes a timer for each get, also on a thread outside the runtime.
        let _entered = self.runtime.enter();
        while let Some((claim, reason)) = self.gate.claim_surplus() {
            let stored = self.take();
            claim.forget();
            if let Some(stored) = stored {
                self.retire(stored, reason);
            }
        }
    }

    /// A dirty connection was cleaned, or could not be.
    #[cfg(feature = "postgres")]
    pub(crate) fn recovered(&self, fit: bool, took: std::time::Duration) {
        self.gate.count(|stats| {
            if fit {
                stats.recovered_total += 1;
            } else {
                stats.recovery_failures_total += 1;
            }
        });
        self.tell(&PoolEvent::Recovered { fit, took });
    }

    pub(crate) fn tell(&self, event: &PoolEvent<'_>) {
        self.books.observer.tell(event);
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let mut stats = self.gate.snapshot();
        if let Some(leaks) = &self.leaks {
            (stats.leaked, stats.leaked_total) = leaks.counts();
        }
        stats
    }

    /// The deadline passed with a permit in hand. That is the node's fault if a connection was
    /// awaited for long, and saturation's if most of the time went by in the queue.
    fn too_late(&self, began: Instant, entered: Instant, cause: Option<Cause>) -> PoolError {
        let now = Instant::now();
        let cause = cause.or_else(|| self.gate.last_failure(now));
        let enough = self.config.connect_timeout.min(self.config.acquire_timeout / 2);
        if cause.is_none() && now - entered < enough {
            return self.saturated(began);
        }
        let pool = PoolSnapshot::from(&self.gate.snapshot());
        PoolError::ConnectTimeout { waited: now - began, pool, cause }
    }

    pub(crate) fn saturated(&self, began: Instant) -> PoolError {
        let now = Instant::now();
        let pool = PoolSnapshot::from(&self.gate.snapshot());
        let cause = self.gate.last_failure(now);
        PoolError::AcquireTimeout { waited: now - began, pool, cause }
    }
}

/// Leaves a connection to the store.
fn keep<M: Manager>(mut stored: Stored<M>) {
    let slot: &mut Slot<M::Connection> = &mut stored;
    slot.fit = true;
    slot.member.reason = CloseReason::PoolClosed;
}
