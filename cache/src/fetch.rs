//! How a caller comes by what memory does not simply have: it joins a load, begins one, lets
//! something old stand in, or reads the shared layer.

use std::borrow::Borrow;
use std::collections::HashMap;
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
use crate::shared::{Found, Looked, View};

/// How often a caller may find that what it joined was removed before it asked. Flights of one
/// key follow each other, so the second one it joins began after it asked.
const ATTEMPTS: usize = 8;

/// What a first look into the shared layer finds.
enum First<V> {
    Found(Option<V>),
    Nothing(Seen),
}

/// What a caller knows of the shared layer when it begins a flight.
pub(crate) enum Seen {
    /// The flight asks.
    NotAsked,
    /// Nothing stood there; with what a load must know to write there.
    Nothing(View),
    /// It could not be asked, and need not be asked once more.
    Unreachable,
}

/// A key of several, under which memory has nothing that could be served.
pub(crate) struct Missing<K> {
    pub(crate) key: K,
    /// Memory has something under it.
    pub(crate) held: bool,
    /// That may stand in, or is to be confirmed: a matter for a flight.
    pub(crate) stands_in: bool,
    /// Whether memory takes in what the shared layer has.
    pub(crate) admitted: bool,
    pub(crate) seen: Seen,
}

impl<K> Missing<K> {
    pub(crate) fn new(key: K, held: bool, stands_in: bool) -> Self {
        Self { key, held, stands_in, admitted: true, seen: Seen::NotAsked }
    }
}

/// What a reader is given of the shared layer.
pub(crate) struct Promoted<V> {
    /// `None`: the source says that there is nothing.
    pub(crate) content: Option<V>,
    /// If not, it may only stand in.
    pub(crate) fresh: bool,
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

    /// The value under a key that memory does not simply have.
    pub(crate) async fn load<Q, E, F, Fut>(
        self: &Arc<Self>,
        key: &Q,
        read: Read<V>,
        load: F,
    ) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let load = move |_: Previous<V>| async move { load().await.map(Entry::new) };
        self.fetch(key, read, true, load).await?.ok_or(LoadError::Aborted)
    }

    /// The content under a key that memory does not simply have.
    pub(crate) async fn fetch<Q, E, F, Fut>(
        self: &Arc<Self>,
        key: &Q,
        read: Read<V>,
        wants_value: bool,
        load: F,
    ) -> Result<Option<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Previous<V>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Entry<V>, E>> + Send + 'static,
    {
        coherence::listen(self).await;
        let mut seen = Seen::NotAsked;
        if matches!(read, Read::Remains | Read::Miss) {
            match self.look_first(key, read.is_held(), wants_value).await {
                First::Found(content) => return Ok(content),
                First::Nothing(saw) => seen = saw,
            }
        }
        let mut seen = Some(seen);
        let key = key.to_owned();
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
                    let seen = seen.take().unwrap_or(Seen::NotAsked);
                    load::spawn(load::fly(Arc::clone(self), lead, wants_value, seen, load));
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
            load::spawn(load::fly(Arc::clone(self), lead, wants_value, Seen::NotAsked, load));
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
                Read::StandIn(_) | Read::Suspect(_) | Read::Remains | Read::Miss => None,
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
        let over = match judged {
            Some(Verdict::Removed) => true,
            Some(Verdict::Doubtful(doubt)) => doubt.expired.is_some(),
            Some(Verdict::Current) | None => false,
        };
        !over && (landed.content.is_some() || !wants_value)
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
    async fn look_first<Q>(&self, key: &Q, held: bool, wants_value: bool) -> First<V>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let Some(shared) = &self.shared else { return First::Nothing(Seen::NotAsked) };
        let admitted = self.memory.admits(key, held);
        // Before the ticket: of a removal by tag that begins in between, nothing stands in the shared
        // layer yet, and what is found there must not count as loaded after it.
        let loaded = self.removals.now();
        let Some(ticket) = self.may_look(key, admitted) else {
            return First::Nothing(Seen::NotAsked);
        };
        match shared.look_key(key).await {
            Ok(looked) => self.serves_first(ticket.as_ref(), looked, loaded, wants_value),
            Err(_) => First::Nothing(Seen::Unreachable),
        }
    }

    /// As [`look_first`](Self::look_first), for all of `missing` in one round trip: adds what is there
    /// to `found`, and returns the rest. Only if a look may be had at each of them: whoever has to join
    /// a flight joins it at once, and all that fly share one round trip.
    pub(crate) async fn look_first_for_all(
        &self,
        missing: Vec<Missing<K>>,
        found: &mut HashMap<K, V>,
    ) -> Vec<Missing<K>> {
        let Some(shared) = self.shared.as_ref().filter(|_| !missing.is_empty()) else {
            return missing;
        };
        let admitted = |missing: Missing<K>| {
            let admitted = self.memory.admits(&missing.key, missing.held);
            Missing { admitted, ..missing }
        };
        let missing: Vec<_> = missing.into_iter().map(admitted).collect();
        // Before the tickets, as in `look_first`.
        let loaded = self.removals.now();
        let ticket = |missing: &Missing<K>| {
            let fit = !missing.stands_in;
            fit.then(|| self.may_look(&missing.key, missing.admitted)).flatten()
        };
        let Some(tickets) = missing.iter().map(ticket).collect::<Option<Vec<_>>>() else {
            return missing;
        };
        let Ok(looked) = shared.look_keys(missing.iter().map(|missing| &missing.key)).await else {
            let unreachable = |missing| Missing { seen: Seen::Unreachable, ..missing };
            return missing.into_iter().map(unreachable).collect();
        };
        let mut rest = Vec::new();
        for ((missing, ticket), looked) in missing.into_iter().zip(tickets).zip(looked) {
            match self.serves_first(ticket.as_ref(), looked, loaded, false) {
                First::Found(content) => found.extend(content.map(|value| (missing.key, value))),
                First::Nothing(seen) => rest.push(Missing { seen, ..missing }),
            }
        }
        rest
    }

    /// Whether a first look may be had, and the ticket with which its find comes into memory, if that
    /// admits it.
    fn may_look<Q>(&self, key: &Q, admitted: bool) -> Option<Option<Ticket<K, Landed<V>>>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        match admitted {
            true => self.flights.promote_alone(&key.to_owned()).map(Some),
            // Whoever flies for it has asked for it, so the doorkeeper would know it, mostly.
            false => self.flights.trusts_shared(key).then_some(None),
        }
    }

    /// Whether what was looked at can be served without a flight.
    fn serves_first(
        &self,
        ticket: Option<&Ticket<K, Landed<V>>>,
        looked: Looked<V>,
        loaded: u64,
        wants_value: bool,
    ) -> First<V> {
        match looked.found {
            None => First::Nothing(Seen::Nothing(looked.view())),
            // A flight knows what to do with what may only stand in.
            Some(found) if found.fresh_left.is_zero() => First::Nothing(Seen::NotAsked),
            Some(found) if found.content.is_none() && wants_value => First::Nothing(Seen::NotAsked),
            Some(found) => First::Found(self.settle(ticket, found, loaded).content),
        }
    }

    /// The value under a key in the shared layer, which fills memory if that admits it. `held`:
    /// memory has something under the key.
    pub(crate) async fn promote<Q>(self: &Arc<Self>, key: &Q, held: bool) -> Option<Promoted<V>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        coherence::listen(self).await;
        // Before the ticket, as in `look_first`.
        let loaded = self.removals.now();
        let ticket = match self.memory.admits(key, held) {
            true => Some(self.flights.promote(&key.to_owned())?),
            false if self.flights.trusts_shared(key) => None,
            false => return None,
        };
        match self.shared.as_ref()?.look_key(key).await {
            Ok(looked) => Some(self.settle(ticket.as_ref(), looked.found?, loaded)),
            Err(_) => self.unconfirmed(key),
        }
    }

    /// Makes a find of the shared layer ready for its reader, and puts it into memory with the
    /// ticket for that.
    fn settle(
        &self,
        ticket: Option<&Ticket<K, Landed<V>>>,
        found: Found<V>,
        loaded: u64,
    ) -> Promoted<V> {
        let fresh = !found.fresh_left.is_zero();
        let Some(ticket) = ticket else {
            self.memory.decline();
            return Promoted { content: found.content, fresh };
        };
        let slot = self.slot_of(found, loaded, &ticket.key().text());
        let content = slot.content.clone();
        self.fill_memory(ticket, slot);
        Promoted { content, fresh }
    }

    /// Puts what the shared layer had into memory, unless something newer came.
    fn fill_memory(&self, ticket: &Ticket<K, Landed<V>>, slot: Slot<V>) {
        let key = ticket.key();
        let stored = ticket.publish(false, || {
            // A load that ended meanwhile brought something newer.
            if !self.memory.has_hit(key, &self.removals) {
                self.memory.insert(key.clone(), slot);
            }
        });
        if !stored {
            self.loads.discarded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What memory has although the shared layer cannot confirm it, if that is the policy.
    fn unconfirmed<Q>(&self, key: &Q) -> Option<Promoted<V>>
    where
        K: Borrow<Q>,
        Q: CacheKey + ?Sized,
    {
        let (slot, verdict) = self.memory.previous(key, &self.removals)?;
        let keeps = verdict.is_suspect() && self.while_deaf == WhileDeaf::Keep;
        keeps.then(|| Promoted { fresh: slot.is_fresh(), content: slot.content })
    }
}
