//! The exclusive right to one connection.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;

use bb8::PooledConnection;
use tokio::time::Instant;

use crate::event::PoolEvent;
use crate::gate::Permit;
use crate::leaks::Watched;
use crate::manager::{Keeper, Manager};
use crate::shared::Shared;
use crate::stats::CloseReason;

/// A connection out of the store, which takes it back on drop if it is fit.
pub(crate) type Stored<M> = PooledConnection<'static, Keeper<M>>;

/// The exclusive right to one connection, given back on drop.
///
/// On return the manager's `has_broken` decides whether the connection is kept.
pub struct Lease<M: Manager> {
    /// `Some` until the drop.
    stored: Option<Stored<M>>,
    /// Released after the connection is back in the store, where the next caller looks for it.
    permit: Option<Permit>,
    /// Why it is to be closed on return.
    doom: Option<CloseReason>,
    taken: Instant,
    place: &'static Location<'static>,
    /// Until the lease is back its age is watched.
    watched: Option<Watched>,
    shared: Arc<Shared<M>>,
}

impl<M: Manager> Lease<M> {
    pub(crate) fn new(
        stored: Stored<M>,
        permit: Permit,
        shared: Arc<Shared<M>>,
        taken: Instant,
        place: &'static Location<'static>,
    ) -> Self {
        let watched = shared.leaks.as_ref().map(|leaks| leaks.watch(taken, place));
        let (stored, permit) = (Some(stored), Some(permit));
        Self { stored, permit, doom: None, taken, place, watched, shared }
    }

    /// Closes the connection instead of giving it back.
    pub fn discard(mut self) {
        self.doom = Some(CloseReason::Discarded);
    }

    /// Has the connection closed on return, for this reason. A task that repairs it begins with
    /// this, so that it is closed if the task is aborted.
    #[cfg(feature = "postgres")]
    pub(crate) fn doom(&mut self, reason: CloseReason) {
        self.doom = Some(reason);
    }

    /// Takes [`doom`](Self::doom) back.
    #[cfg(feature = "postgres")]
    pub(crate) fn spare(&mut self) {
        self.doom = None;
    }

    /// It is meant to be held for long.
    #[cfg(feature = "postgres")]
    pub(crate) fn unwatch(&mut self) {
        self.watched = None;
    }

    /// When the connection has reached its lifetime.
    #[cfg(feature = "postgres")]
    pub(crate) fn expires(&self) -> Instant {
        self.stored().expires
    }

    /// Held for long by intention, so that nobody calls it lost.
    #[cfg(feature = "postgres")]
    pub(crate) fn unwatched(mut self) -> Self {
        self.watched = None;
        self
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn shared(&self) -> &Arc<Shared<M>> {
        &self.shared
    }

    fn stored(&self) -> &Stored<M> {
        self.stored.as_ref().expect("the connection is there until the drop")
    }

    fn stored_mut(&mut self) -> &mut Stored<M> {
        self.stored.as_mut().expect("the connection is there until the drop")
    }
}

impl<M: Manager> Deref for Lease<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        &self.stored().conn
    }
}

impl<M: Manager> DerefMut for Lease<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.stored_mut().conn
    }
}

impl<M: Manager> Drop for Lease<M> {
    fn drop(&mut self) {
        let now = Instant::now();
        let held = now.saturating_duration_since(self.taken);
        let kept = match self.stored.take() {
            Some(stored) => self.shared.store_again(stored, self.doom, now),
            None => false,
        };
        if let Some(permit) = self.permit.take()
            && permit.give_back(kept, held)
        {
            self.shared.settle();
        }
        let place = self.place;
        if let Some(watched) = self.watched.take()
            && watched.was_reported()
        {
            self.shared.tell(&PoolEvent::LeakReturned { held, place });
        }
        self.shared.tell(&PoolEvent::Returned { held, place });
    }
}

impl<M: Manager> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("doom", &self.doom).finish_non_exhaustive()
    }
}
