//! The layer in memory: typed values, bounded in number or weight, each with its own end.

mod doorkeeper;
mod engine;

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ahash::RandomState;

use self::doorkeeper::Doorkeeper;
use self::engine::{Departures, Entries, Weigh};
use crate::clock::{self, Tick};
use crate::config::{Memory, Unit};
use crate::counters::Counter;
use crate::freshness::{EarlyRefresh, Moments, Use};
use crate::glob::Pattern;
use crate::key::CacheKey;
use crate::removals::{Doubt, Guard, Removals, Verdict};
use crate::stats::LayerStats;

/// Weighs a value with its key, in bytes.
pub(crate) type Weigher<K, V> = Arc<dyn Fn(&K, &V) -> u32 + Send + Sync>;

/// The engine decides what stays; the end of an entry's life is ours.
///
/// The engine's own clock cannot be paused by a test and its expiry costs twice our check, so an
/// expired entry is a miss here and leaves the engine when it is replaced or no longer worth its
/// room.
pub(crate) struct MemoryLayer<K, V> {
    entries: Entries<K, Slot<V>>,
    /// Goes up with each [`clear`](Self::clear): what bears an older one is gone. moka's own
    /// clearing goes by the times of its entries, and an insertion renews the time of the entry it
    /// is about to replace, which can then be read once more.
    generation: AtomicU32,
    capacity: u64,
    unit: Unit,
    hits: Counter,
    misses: Counter,
    /// Finds in the shared layer that did not come in.
    declined: Counter,
    doorkeeper: Doorkeeper,
    /// Of the doorkeeper; the engine keeps its own to itself.
    hasher: RandomState,
    departures: Arc<Departures>,
    early: EarlyRefresh,
}

/// An entry as it lies in memory: small, since each hit clones it.
pub(crate) struct Slot<V> {
    /// `None`: the source says that there is nothing.
    pub(crate) content: Option<V>,
    /// Until here a hit asks no more than this.
    quiet_until: Tick,
    fresh_until: Tick,
    /// How long its load took, in microseconds, as far as that fits.
    load_us: u32,
    /// Of the layer, when it was put there.
    generation: u32,
    /// `None` for an entry that has no stale time, no tags and no copies elsewhere.
    pub(crate) extra: Option<Arc<Extra>>,
}

/// What is looked at when an entry is no longer simply fresh.
#[derive(Debug, Clone)]
pub(crate) struct Extra {
    pub(crate) revalidate_until: Tick,
    pub(crate) stale_until: Tick,
    /// Milliseconds since 1970 when its load began.
    pub(crate) created_ms: u64,
    pub(crate) validator: Option<Box<str>>,
    pub(crate) guard: Guard,
}

/// What a read finds.
pub(crate) enum Read<V> {
    /// Serve it.
    Hit(Option<V>),
    /// Serve it, and load in the background.
    Renew(Option<V>),
    /// Load; this may stand in if that fails or is slow.
    StandIn(Slot<V>),
    /// The shared layer must confirm it.
    Suspect(Slot<V>),
    /// What was removed, or is too old for any use, still lies there.
    Remains,
    Miss,
}

impl<V> Read<V> {
    /// Whether something lies under the key, fit for use or not.
    pub(crate) fn is_held(&self) -> bool {
        !matches!(self, Self::Miss)
    }
}

impl<K, V> MemoryLayer<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(config: Memory, early: EarlyRefresh, weigher: Option<Weigher<K, V>>) -> Self {
        let departures = Arc::new(Departures::default());
        let weigh = weigher.map(|weigh| -> Weigh<K, Slot<V>> {
            Arc::new(move |key, slot| {
                let value = slot.content.as_ref().map_or(0, |value| weigh(key, value));
                value.saturating_add(OVERHEAD)
            })
        });
        Self {
            entries: Entries::new(config, weigh, &departures),
            generation: AtomicU32::new(0),
            capacity: config.capacity,
            unit: config.unit,
            hits: Counter::default(),
            misses: Counter::default(),
            declined: Counter::default(),
            doorkeeper: Doorkeeper::default(),
            hasher: RandomState::new(),
            departures,
            early,
        }
    }

    /// Reads and counts. On a plain hit: one hash, one coarse clock read, one clone.
    #[inline]
    pub(crate) fn read<Q>(&self, key: &Q, removals: &Removals) -> Read<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Some(slot) = self.get(key) else {
            self.misses.add_one();
            return Read::Miss;
        };
        let now = clock::now();
        if now < slot.quiet_until && slot.is_current(removals) {
            self.hits.add_one();
            return Read::Hit(slot.content);
        }
        self.consider(slot, now, removals)
    }

    /// As [`read`](Self::read), without counting: the second look of a caller that has counted.
    pub(crate) fn look<Q>(&self, key: &Q, removals: &Removals) -> Read<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Some(slot) = self.get(key) else { return Read::Miss };
        self.judge(slot, clock::now(), removals)
    }

    /// Whether what the shared layer has under `key` is to come in: always while there is room,
    /// or something in whose place it comes (`held`). A memory that is full takes in what was
    /// asked for of late, so that a walk through the shared layer does not push out what is in
    /// use.
    pub(crate) fn admits<Q>(&self, key: &Q, held: bool) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        held || !self.entries.is_full(self.capacity)
            || self.doorkeeper.knows(self.hasher.hash_one(key), || self.entries.size().0)
    }

    /// Counts a find that was not admitted.
    pub(crate) fn decline(&self) {
        self.declined.add_one();
    }

    /// Whether [`look`](Self::look) would find a hit. Cheap where nothing is, and does not count
    /// as a use.
    pub(crate) fn has_hit<Q>(&self, key: &Q, removals: &Removals) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.contains(key) && matches!(self.look(key, removals), Read::Hit(_))
    }

    /// What lies under `key` however old, unless it was removed, and what the log says of it.
    pub(crate) fn previous<Q>(&self, key: &Q, removals: &Removals) -> Option<(Slot<V>, Verdict)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.get(key)?;
        let verdict =
            slot.extra.as_ref().map_or(Verdict::Current, |extra| removals.judge(&extra.guard));
        match verdict {
            Verdict::Removed => None,
            Verdict::Doubtful(Doubt { expired: Some(at), .. }) => {
                Some((slot.with(slot.moments().expired(at)), verdict))
            }
            Verdict::Current | Verdict::Doubtful(_) => Some((slot, verdict)),
        }
    }

    pub(crate) fn is_fresh<Q>(&self, key: &Q, removals: &Removals) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.previous(key, removals).is_some_and(|(slot, _)| slot.is_fresh())
    }

    pub(crate) fn insert(&self, key: K, slot: Slot<V>) {
        let generation = self.generation.load(Ordering::Acquire);
        self.entries.insert(key, Slot { generation, ..slot });
    }

    /// Makes the entry under `key` stale now, if it is fresh.
    pub(crate) fn expire<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let Some(slot) = self.get(key) else { return };
        let expired = slot.moments().expired(clock::now());
        if expired.stale_until > expired.fresh_until {
            self.insert(key.to_owned(), slot.with(expired));
        } else {
            self.entries.remove(key);
        }
    }

    pub(crate) fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.remove(key);
    }

    /// Walks over all entries.
    pub(crate) fn remove_matching(&self, pattern: &Pattern) {
        let mut text = String::new();
        self.entries.retain(|key| {
            text.clear();
            key.write_text(&mut text);
            !pattern.matches(&text)
        });
    }

    pub(crate) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.entries.clear();
    }

    pub(crate) fn stats(&self) -> LayerStats {
        let (entries, weight) = self.entries.size();
        LayerStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            entries,
            bytes: (self.unit == Unit::Bytes).then_some(weight),
            capacity: self.capacity,
            evictions: self.departures.evicted.load(Ordering::Relaxed),
            declined: self.declined.get(),
            removals: self.departures.removed.load(Ordering::Relaxed),
            replacements: self.departures.replaced.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn get<Q>(&self, key: &Q) -> Option<Slot<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.entries.get(key)?;
        (slot.generation == self.generation.load(Ordering::Acquire)).then_some(slot)
    }

    #[cold]
    fn consider(&self, slot: Slot<V>, now: Tick, removals: &Removals) -> Read<V> {
        let read = self.judge(slot, now, removals);
        let hit = matches!(read, Read::Hit(_) | Read::Renew(_));
        if hit {
            self.hits.add_one();
        } else {
            self.misses.add_one();
        }
        read
    }

    fn judge(&self, slot: Slot<V>, now: Tick, removals: &Removals) -> Read<V> {
        let mut moments = slot.moments();
        let mut suspect = false;
        if let Some(extra) = &slot.extra {
            match removals.judge(&extra.guard) {
                Verdict::Removed => return Read::Remains,
                Verdict::Doubtful(doubt) => {
                    suspect = doubt.suspect;
                    moments = doubt.expired.map_or(moments, |at| moments.expired(at));
                }
                Verdict::Current => {}
            }
        }
        match moments.usage(now) {
            Use::Nothing => Read::Remains,
            _ if suspect => Read::Suspect(slot),
            Use::Serve => Read::Hit(slot.content),
            Use::ServeAndConsider => {
                let left = moments.fresh_until.since(now);
                if self.early.is_due(left, slot.load(), fastrand::f64()) {
                    Read::Renew(slot.content)
                } else {
                    Read::Hit(slot.content)
                }
            }
            Use::ServeAndLoad => Read::Renew(slot.content),
            Use::StandIn => Read::StandIn(slot),
        }
    }
}

impl<V> Slot<V> {
    pub(crate) fn new(
        content: Option<V>,
        moments: Moments,
        load: Duration,
        extra: Option<Arc<Extra>>,
    ) -> Self {
        let Moments { fresh_until, quiet_until, .. } = moments;
        let load_us = u32::try_from(load.as_micros()).unwrap_or(u32::MAX);
        Self { content, quiet_until, fresh_until, load_us, generation: 0, extra }
    }

    pub(crate) fn moments(&self) -> Moments {
        let Self { fresh_until, quiet_until, .. } = *self;
        let (revalidate_until, stale_until) = self
            .extra
            .as_ref()
            .map_or((fresh_until, fresh_until), |e| (e.revalidate_until, e.stale_until));
        Moments { fresh_until, quiet_until, revalidate_until, stale_until }
    }

    pub(crate) fn load(&self) -> Duration {
        Duration::from_micros(self.load_us.into())
    }

    pub(crate) fn is_fresh(&self) -> bool {
        clock::now() < self.fresh_until
    }

    pub(crate) fn may_stand_in(&self, now: Tick) -> bool {
        now < self.moments().stale_until
    }

    /// The same entry with other moments.
    pub(crate) fn with(&self, moments: Moments) -> Self
    where
        V: Clone,
    {
        self.renewed(moments, |guard| guard.clone())
    }

    /// As [`with`](Self::with), and what befell it before `loaded` is in these moments.
    pub(crate) fn settled(&self, moments: Moments, loaded: u64) -> Self
    where
        V: Clone,
    {
        self.renewed(moments, |guard| guard.since(loaded))
    }

    fn renewed(&self, moments: Moments, guard: impl FnOnce(&Guard) -> Guard) -> Self
    where
        V: Clone,
    {
        let Moments { revalidate_until, stale_until, .. } = moments;
        let extra = self.extra.as_ref().map(|extra| {
            let Extra { created_ms, validator, .. } = &**extra;
            let (created_ms, validator) = (*created_ms, validator.clone());
            let guard = guard(&extra.guard);
            Arc::new(Extra { revalidate_until, stale_until, created_ms, validator, guard })
        });
        Self::new(self.content.clone(), moments, self.load(), extra)
    }

    #[inline]
    fn is_current(&self, removals: &Removals) -> bool {
        self.extra.as_ref().is_none_or(|extra| removals.judge(&extra.guard) == Verdict::Current)
    }
}

impl<V: Clone> Clone for Slot<V> {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            content: self.content.clone(),
            quiet_until: self.quiet_until,
            fresh_until: self.fresh_until,
            load_us: self.load_us,
            generation: self.generation,
            extra: self.extra.clone(),
        }
    }
}

/// What an entry takes beside its key and value: our slot and the engine's bookkeeping, roughly.
const OVERHEAD: u32 = 128;
