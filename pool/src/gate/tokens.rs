//! The rights that the gate gives out. Each goes back when it is dropped, wherever that happens.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::lock::Gate;
use super::primitives::{Arc, oneshot};
use super::state::Failure;
use crate::error::Cause;
use crate::meter::Outcome;

/// Which permits a caller may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Ordinary,
    /// An ordinary one if it is free, else one of those kept for health checks and administration.
    Reserved,
}

/// What a caller gets at the gate.
#[derive(Debug)]
pub(crate) enum Entry {
    Permit(Permit),
    Queued(Place<Permit>),
}

/// The queue that a place is in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Ordinary,
    Reserved,
    Claim,
}

/// The right to hold one connection.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    lane: Lane,
    /// The right to take one connection out of the store came with it, and was not used yet.
    claim: bool,
    /// Else, at first, the place of its holder among those who want a connection.
    wants: Option<Box<Place<Result<Claim, Cause>>>>,
    leased: bool,
    released: bool,
}

impl Permit {
    pub(super) fn new(
        gate: Arc<Gate>,
        lane: Lane,
        wants: Option<Place<Result<Claim, Cause>>>,
    ) -> Self {
        let claim = wants.is_none();
        Self { gate, lane, claim, wants: wants.map(Box::new), leased: false, released: false }
    }

    pub(crate) fn has_claim(&self) -> bool {
        self.claim
    }

    /// The connection was taken out of the store.
    pub(crate) fn use_claim(&mut self) {
        self.claim = false;
    }

    pub(super) fn claimed(&mut self) {
        self.claim = true;
    }

    pub(super) fn place(&mut self) -> Option<Place<Result<Claim, Cause>>> {
        self.wants.take().map(|place| *place)
    }

    pub(crate) fn add(&mut self, claim: Claim) {
        claim.forget();
        self.claim = true;
    }

    /// Gives back a lease: its connection lies in the store again if it was `kept`. Returns whether
    /// something is left to do about the connections.
    pub(crate) fn give_back(mut self, kept: bool, held: Duration) -> bool {
        self.claim |= kept;
        self.release(held)
    }

    fn release(&mut self, held: Duration) -> bool {
        self.released = true;
        let held = self.leased.then_some(held);
        let mut state = self.gate.0.lock();
        let handed = state.release(&self.gate, self.lane, self.claim, held);
        let unsettled = state.is_unsettled();
        drop(state);
        handed.send();
        unsettled
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.released {
            // A lease whose return was cut short by a panic: how long it was held is not known.
            self.release(Duration::ZERO);
        }
    }
}

/// The right to take one connection out of the store.
#[derive(Debug)]
#[must_use]
pub(crate) struct Claim {
    gate: Arc<Gate>,
    forgotten: bool,
}

impl Claim {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, forgotten: false }
    }

    /// The connection was taken out of the store, or the claim went to a permit.
    pub(crate) fn forget(mut self) {
        self.forgotten = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.forgotten {
            self.gate.put();
        }
    }
}

/// Claims on all connections that were idle, for a look at each.
#[derive(Debug)]
#[must_use]
pub(crate) struct Sweep {
    gate: Arc<Gate>,
    claims: usize,
}

impl Sweep {
    pub(super) fn new(gate: Arc<Gate>, claims: usize) -> Self {
        Self { gate, claims }
    }

    /// How many may still be taken out of the store.
    pub(crate) fn claims(&self) -> usize {
        self.claims
    }

    /// One was taken out.
    pub(crate) fn used(&mut self) {
        self.claims -= 1;
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        for _ in 0..self.claims {
            self.gate.put();
        }
        self.gate.swept();
    }
}

/// A place in one of the queues, given up on drop.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place<T> {
    gate: Arc<Gate>,
    which: Which,
    id: u64,
    /// What was sent and never received is dropped with it, and so goes to the next.
    receiver: oneshot::Receiver<T>,
    ended: bool,
}

impl<T> Place<T> {
    pub(super) fn new(gate: Arc<Gate>, which: Which, seat: (u64, oneshot::Receiver<T>)) -> Self {
        Self { gate, which, id: seat.0, receiver: seat.1, ended: false }
    }
}

impl<T> Future for Place<T> {
    /// `None` if the pool was closed.
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let received = ready!(Pin::new(&mut self.receiver).poll(cx));
        self.ended = true;
        Poll::Ready(received.ok())
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        if !self.ended {
            let left = self.gate.0.lock().leave(self.which, self.id);
            // It wakes whoever polled this place last.
            drop(left);
        }
    }
}

/// One acquire under way. Dropped without an outcome, it was cancelled.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    settled: bool,
}

impl Ticket {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, settled: false }
    }

    /// The permit becomes a lease after this wait.
    pub(crate) fn acquired(mut self, permit: &mut Permit, waited: Duration) {
        self.settled = true;
        permit.leased = true;
        self.gate.0.lock().lease(waited);
    }

    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.settled = true;
        self.gate.count(|stats| stats.settle(outcome));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.gate.count(|stats| stats.settle(Outcome::Cancelled));
        }
    }
}

/// One connect under way. Dropped without a result, it was stopped with the runtime.
#[derive(Debug)]
#[must_use]
pub(crate) struct Connecting {
    gate: Arc<Gate>,
    ended: bool,
}

impl Connecting {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, ended: false }
    }

    /// There is one connection more. Who holds it must say when it is closed.
    pub(crate) fn made(mut self, took: Duration) {
        self.ended = true;
        self.gate.0.lock().connected(took);
    }

    /// Tells those who wait, and returns when the next connect may begin.
    pub(crate) fn failed(mut self, failure: Failure<'_>) -> Instant {
        self.ended = true;
        let (until, told) = self.gate.0.lock().connect_failed(failure);
        for caller in told {
            // Who left does not want to know.
            drop(caller.send(Err(Cause::clone(failure.cause))));
        }
        until
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if !self.ended {
            let turned_away = self.gate.0.lock().connect_stopped();
            drop(turned_away);
        }
    }
}

/// What goes to those who waited longest, to be sent outside the lock since it wakes them.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Handed {
    pub(super) permit: Option<(oneshot::Sender<Permit>, Permit)>,
    pub(super) claim: Option<(oneshot::Sender<Result<Claim, Cause>>, Claim)>,
    pub(super) drained: Vec<oneshot::Sender<()>>,
}

impl Handed {
    pub(super) fn send(self) {
        // A receiver that is gone gives the right back to us, and we to the next: in a loop, since
        // ten thousand may leave at once and a drop within a drop would go as deep.
        let mut handed = Some(self);
        while let Some(Self { permit, claim, drained }) = handed.take() {
            for waiter in drained {
                // Who asked for it may have lost patience.
                let _gone = waiter.send(());
            }
            if let Some((caller, permit)) = permit
                && let Err(mut permit) = caller.send(permit)
            {
                permit.released = true;
                let gate = &permit.gate;
                handed = Some(gate.0.lock().release(gate, permit.lane, permit.claim, None));
            }
            if let Some((caller, claim)) = claim
                && let Err(Ok(mut claim)) = caller.send(Ok(claim))
            {
                claim.forgotten = true;
                let next = claim.gate.0.lock().put(&claim.gate);
                match &mut handed {
                    // It cannot have a claim yet that goes to a caller: `put` was asked first.
                    Some(handed) if handed.claim.is_none() => handed.claim = next.claim,
                    Some(_) => next.send(),
                    None => handed = Some(next),
                }
            }
        }
    }
}
