//! How a caller comes by what memory does not simply have: it joins a load, begins one, lets
//! something old stand in, or reads the shared layer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::Core;
use crate::coherence;
use crate::config::WhileDeaf;
use crate::entry::Entry;
use crate::error::{Failure, LoadError};
use crate::flight::{Join, Landing, Ticket};
use crate::freshness::scaled;
use crate::key::CacheKey;
use crate::load::{self, Landed, Previous};
use crate::memory::{Read, Slot};
use crate::removals::Verdict;
use crate::shared::{Looked, View};

/// How often a caller may find that what it joined was removed before it asked. Flights of one
/// key follow each other, so the second one it joins began after it asked.
const ATTEMPTS: usize = 8;

/// What a first look into the shared layer finds.
enum First<V> {
    Found(Option<V>),
    /// With what a load must know to write there, if the look could tell.
    Nothing(Option<View>),
}

/// What a caller makes of a flight under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joins {
    /// It waits for it, and looks afterwards whether what landed was removed before it asked.
    Any,
    /// It waits only if nothing at all was removed since the flight began.
    Current,
    /// It has a value, and only wants a flight to be under way.
    Refreshing,
}

impl<K, V> Core<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// A lifetime with jitter: never longer than `ttl`, nor than ten years, past which clocks
    /// overflow.
    pub(crate) fn jittered(&self, ttl: Duration) -> Duration {
        scaled(ttl, 1.0 - self.jitter * fastrand::f64()).min(ttl)
    }

    /// The content under a key that memory does not simply have.
    pub(crate) async fn fetch<E, F, Fut>(
        self: Arc<Self>,
        key: K,
        read: Read<V>,
        wants_value: bool,
        load: F,
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Previous<V>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Entry<V>, E>> + Send + 'static,
    {
        coherence::listen(&self).await;
        let mut seen = None;
        if matches!(read, Read::Miss) {
            match self.look_first(&key, wants_value).await {
                First::Found(content) => return Ok(content),
                First::Nothing(view) => seen = view,
            }
        }
        let stand_in = match read {
            Read::Renew(content) if content.is_some() || !wants_value => {
                self.refresh(&key, wants_value, load);
                return Ok(content);
            }
            Read::StandIn(slot) if slot.content.is_some() || !wants_value => Some(slot.content),
            _ => None,
        };
        let mut load = Some(load);
        for _ in 0..ATTEMPTS {
            let landing = match self.join(&key, wants_value, Joins::Any) {
                Join::Hit(content) => return Ok(content),
                Join::Wait(landing) => {
                    self.loads.coalesced.fetch_add(1, Ordering::Relaxed);
                    landing
                }
                Join::Lead(lead, landing) => {
                    let Some(load) = load.take() else { break };
                    let seen = seen.take();
                    load::spawn(load::fly(Arc::clone(&self), lead, wants_value, seen, load));
                    landing
                }
            };
            match self.patience(landing, stand_in.is_some()).await {
                Ok(landed) if load.is_none() || self.is_current(&landed, wants_value) => {
                    return Ok(landed.content);
                }
                // It was removed, by tag or elsewhere, before this caller asked.
                Ok(_) => {}
                Err(failure) => return self.stood_in(stand_in, failure),
            }
        }
        Err(LoadError::Aborted)
    }

    /// Renews an entry in the background, unless somebody does.
    fn refresh<E, F, Fut>(self: &Arc<Self>, key: &K, wants_value: bool, load: F)
    where
        E: Send + Sync + 'static,
        F: FnOnce(Previous<V>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Entry<V>, E>> + Send + 'static,
    {
        if let Join::Lead(lead, _) = self.join(key, wants_value, Joins::Refreshing) {
            self.loads.refreshes.fetch_add(1, Ordering::Relaxed);
            load::spawn(load::fly(Arc::clone(self), lead, wants_value, None, load));
        }
    }

    /// Joins or leads the flight for a key; a hit if the value came meanwhile.
    pub(crate) fn join(
        &self,
        key: &K,
        wants_value: bool,
        joins: Joins,
    ) -> Join<K, Landed<V>, Option<V>> {
        let now = self.removals.now();
        let oldest = if joins == Joins::Current { now } else { 0 };
        self.flights.join(key, now, oldest, || {
            if joins == Joins::Refreshing {
                return None;
            }
            match self.memory.look(key, &self.removals) {
                Read::Hit(content) | Read::Renew(content) => {
                    (content.is_some() || !wants_value).then_some(content)
                }
                Read::StandIn(_) | Read::Suspect(_) | Read::Miss => None,
            }
        })
    }

    /// Waits as long as the caller may be made to wait.
    pub(crate) async fn patience(
        &self,
        landing: Landing<Landed<V>>,
        can_stand_in: bool,
    ) -> Result<Landed<V>, Failure> {
        let limit = if can_stand_in { self.soft_timeout } else { self.hard_timeout };
        match limit {
            None => landing.wait().await,
            Some(limit) => {
                tokio::time::timeout(limit, landing.wait()).await.unwrap_or(Err(Failure::TimedOut))
            }
        }
    }

    fn is_current(&self, landed: &Landed<V>, wants_value: bool) -> bool {
        let judged = landed.extra.as_ref().map(|extra| self.removals.judge(&extra.guard));
        !matches!(judged, Some(Verdict::Removed | Verdict::Expired(_)))
            && (landed.content.is_some() || !wants_value)
    }

    /// Whether nothing that concerns the entry was removed since its load began.
    pub(crate) fn is_served(&self, slot: &Slot<V>) -> bool {
        let judged = slot.extra.as_ref().map(|extra| self.removals.judge(&extra.guard));
        judged != Some(Verdict::Removed)
    }

    fn stood_in<E: Send + Sync + 'static>(
        &self,
        stand_in: Option<Option<V>>,
        failure: Failure,
    ) -> Result<Option<V>, LoadError<E>> {
        let Some(content) = stand_in else { return Err(failure.into()) };
        self.loads.stood_in.fetch_add(1, Ordering::Relaxed);
        Ok(content)
    }

    /// Looks into the shared layer without a task of its own, if nobody else does: what is there
    /// needs no flight.
    async fn look_first(&self, key: &K, wants_value: bool) -> First<V> {
        let Some(shared) = &self.shared else { return First::Nothing(None) };
        let Some(ticket) = self.flights.promote_alone(key) else { return First::Nothing(None) };
        let loaded = self.removals.now();
        let text = key.text();
        let Ok(Looked { found, view }) = shared.look(&text).await else {
            return First::Nothing(None);
        };
        match found {
            None => First::Nothing(Some(view)),
            // A flight knows what to do with what may only stand in.
            Some(found) if found.fresh_left.is_zero() => First::Nothing(None),
            Some(found) if found.content.is_none() && wants_value => First::Nothing(None),
            Some(found) => {
                let slot = self.slot_of(found, loaded, &text);
                self.fill_memory(&ticket, key, &slot);
                First::Found(slot.content)
            }
        }
    }

    /// Puts what the shared layer had into memory, unless something newer came.
    fn fill_memory(&self, ticket: &Ticket<K, Landed<V>>, key: &K, slot: &Slot<V>) {
        let stored = ticket.publish(false, || {
            // A load that ended meanwhile brought something newer.
            if !self.memory.has_hit(key, &self.removals) {
                self.memory.insert(key.clone(), slot.clone());
            }
        });
        if !stored {
            self.loads.discarded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads the shared layer and fills memory from it.
    pub(crate) async fn promote(self: &Arc<Self>, key: K) -> Option<Slot<V>> {
        coherence::listen(self).await;
        let ticket = self.flights.promote(&key)?;
        let loaded = self.removals.now();
        let text = key.text();
        let found = match self.shared.as_ref()?.look(&text).await {
            Ok(looked) => looked.found?,
            Err(_) => return self.unconfirmed(&key),
        };
        let slot = self.slot_of(found, loaded, &text);
        self.fill_memory(&ticket, &key, &slot);
        Some(slot)
    }

    /// What memory has although the shared layer cannot confirm it, if that is the policy.
    fn unconfirmed(&self, key: &K) -> Option<Slot<V>> {
        let (slot, verdict) = self.memory.previous(key, &self.removals)?;
        let keeps = verdict == Verdict::Suspect && self.while_deaf == WhileDeaf::Keep;
        keeps.then_some(slot)
    }
}
