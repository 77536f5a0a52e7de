//! The exclusive right to one connection.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bb8::PooledConnection;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::manager::{Keeper, Manager};
use crate::pool::Shared;

/// A connection out of the store, which takes it back on drop if it is fit.
pub(crate) type Stored<M> = PooledConnection<'static, Keeper<M>>;

/// The exclusive right to one connection, given back on drop.
///
/// On return the manager's `has_broken` decides whether the connection is kept.
pub struct Lease<M: Manager> {
    /// `Some` until the drop.
    stored: Option<Stored<M>>,
    /// Released after the connection is back in the store, where the next caller looks for it.
    permit: Option<OwnedSemaphorePermit>,
    fit: bool,
    shared: Arc<Shared<M>>,
}

impl<M: Manager> Lease<M> {
    pub(crate) fn new(
        mut stored: Stored<M>,
        permit: OwnedSemaphorePermit,
        shared: Arc<Shared<M>>,
    ) -> Self {
        // Whatever happens before the drop of the lease, the store does not keep it.
        stored.fit = false;
        Self { stored: Some(stored), permit: Some(permit), fit: true, shared }
    }

    /// Closes the connection instead of giving it back.
    pub fn discard(mut self) {
        self.fit = false;
    }

    /// Says whether the connection may be used again. A task that repairs it starts with `false`,
    /// so that it is closed if the task is aborted.
    #[cfg(feature = "postgres")]
    pub(crate) fn set_fit(&mut self, fit: bool) {
        self.fit = fit;
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn shared(&self) -> &Arc<Shared<M>> {
        &self.shared
    }

    /// Tests the connection; if that fails it will be closed.
    pub(crate) async fn test(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.fit = false;
        self.fit = shared.manager.test(self.stored_mut()).await.is_ok();
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
        if let Some(mut stored) = self.stored.take() {
            let now = Instant::now();
            stored.fit = self.fit && now < stored.expires;
            stored.used = now;
        }
        self.permit.take();
        self.shared.returned();
    }
}

impl<M: Manager> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("fit", &self.fit).finish_non_exhaustive()
    }
}
