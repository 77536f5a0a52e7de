//! A limit in a layer: the limiter, what finds a request's key, what the request costs.

use std::fmt;
use std::sync::Arc;

use super::KeyBy;
use super::core::{Core, Outcome, Taken};
use crate::clock::Moment;

type Cost<Req> = Arc<dyn Fn(&Req) -> u32 + Send + Sync>;

/// A limiter with what it has to know about requests; made by
/// [`RateLimiter::by`](crate::RateLimiter::by), put into a
/// [`RateLimitLayer`](crate::RateLimitLayer).
pub struct Limit<Req> {
    core: Arc<Core>,
    key: KeyBy<Req>,
    cost: Option<Cost<Req>>,
}

impl<Req> Limit<Req> {
    pub(super) fn new(core: Arc<Core>, key: KeyBy<Req>) -> Self {
        Self { core, key, cost: None }
    }

    /// What a request costs, in units; 1 without this. A request that costs 0 is not counted.
    #[must_use]
    pub fn cost<F>(mut self, cost: F) -> Self
    where
        F: Fn(&Req) -> u32 + Send + Sync + 'static,
    {
        self.cost = Some(Arc::new(cost));
        self
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Takes what the request costs.
    #[inline]
    pub(super) fn take(&self, request: &Req, now: &mut Moment) -> Taken {
        let cost = self.price(request);
        if cost == 0 {
            return Taken::Known(Outcome::Uncounted);
        }
        let mut parts = self.core.parts();
        if self.key.find(request, &mut parts) {
            self.core.take(&mut parts, cost, now)
        } else {
            self.core.take_without_key(cost, now)
        }
    }

    /// The same for a caller that will give nothing back: `None` if the request may go on.
    #[inline]
    pub(super) fn take_for_good(&self, request: &Req, now: &mut Moment) -> Option<Taken> {
        let cost = self.price(request);
        if cost == 0 {
            return None;
        }
        let mut parts = self.core.parts();
        if self.key.find(request, &mut parts) {
            self.core.take_for_good(&mut parts, cost, now)
        } else {
            Some(self.core.take_without_key(cost, now))
        }
    }

    fn price(&self, request: &Req) -> u32 {
        self.cost.as_ref().map_or(1, |cost| cost(request))
    }
}

impl<Req> Clone for Limit<Req> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), key: self.key.clone(), cost: self.cost.clone() }
    }
}

impl<Req> fmt::Debug for Limit<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("name", self.core.name()).finish_non_exhaustive()
    }
}
