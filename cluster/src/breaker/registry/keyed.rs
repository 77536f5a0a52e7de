//! The circuit of a request's key, as that which lets the request in.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use super::{BreakerRegistry, KeyOf};
use crate::breaker::reject::sealed::Sealed;
use crate::breaker::{Guard, Judgement, Open, Permit};

/// A registry and how to find the key of a request; see
/// [`BreakerLayer::keyed`](crate::BreakerLayer::keyed).
pub struct Keyed<K, F> {
    registry: BreakerRegistry<K>,
    key: F,
}

impl<K, F> Keyed<K, F> {
    pub(in crate::breaker) fn new(registry: BreakerRegistry<K>, key: F) -> Self {
        Self { registry, key }
    }

    /// Its circuits.
    pub fn registry(&self) -> &BreakerRegistry<K> {
        &self.registry
    }
}

impl<K, F> Sealed for Keyed<K, F> {}

impl<K, F, Req> Guard<Req> for Keyed<K, F>
where
    K: Borrow<F::Key> + Hash + Eq + fmt::Display,
    F: KeyOf<Req>,
    F::Key: ToOwned<Owned = K> + Hash + Eq,
{
    /// Nothing: that depends on the request.
    fn rejects(&self) -> Option<Open> {
        None
    }

    fn rejects_after_a_look(&self) -> bool {
        false
    }

    fn refuse(&self) -> Open {
        // Never asked for, since nothing is rejected before its request is there.
        Open { retry_after: Duration::ZERO }
    }

    /// Nothing: no request, no key.
    fn unready(&self, _judgement: Judgement) {}

    fn admit_at_once(&self) -> Option<Permit> {
        None
    }

    fn admit_slowly(&self, request: &Req) -> Result<Permit, Open> {
        self.registry.admit_young(self.key.key_of(request))
    }
}

impl<K, F: Clone> Clone for Keyed<K, F> {
    fn clone(&self) -> Self {
        Self { registry: self.registry.clone(), key: self.key.clone() }
    }
}

impl<K, F> fmt::Debug for Keyed<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("registry", &self.registry).finish_non_exhaustive()
    }
}
