//! What all handles of one registry share: the circuits in their parts, and how room is made.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use arc_swap::ArcSwap;
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::name::name_of;
use super::part::{Look, Need, Part};
use super::{KeyOverflow, RegistryConfig};
use crate::ConfigError;
use crate::breaker::{Breaker, BreakerConfig, Transition, shard};

/// A power of two: a writer, which makes or forgets a circuit, stops one of so many parts.
const PARTS: usize = 16;

/// Circuits looked at in passing when one is made, all of which may go: one would do to forget as
/// fast as others come, if as many came to each part as there are in it.
const PASSING: usize = 4;

/// Circuits looked at to find room for one, a bound on what a flood of new keys costs each call.
const SEARCH: usize = 32;

/// Circuits that may well be made at once: so many places are taken beyond the bound at most, while
/// as many are being given back.
const AT_ONCE: usize = 64;

/// How long nobody looks for room where there was none.
const PAUSE: Duration = Duration::from_millis(1);

/// Lines that the circuits of a registry count on, all together. A circuit for each of 20 routes has
/// as many as one of its own would, one for each of 10,000 tenants has one.
const ALL_CELLS: usize = 4_096;

pub(super) type Overrides<K> = Box<dyn Fn(&K) -> Option<BreakerConfig> + Send + Sync>;

type Listener = dyn Fn(&Transition) + Send + Sync;

pub(super) struct Shared<K> {
    pub(super) name: Arc<str>,
    config: ArcSwap<RegistryConfig>,
    overrides: Option<Overrides<K>>,
    listener: Mutex<Option<Arc<Listener>>>,
    hasher: RandomState,
    parts: Box<[ShardedLock<Part<K>>]>,
    /// Circuits kept and places taken for those being made.
    taken: AtomicUsize,
    /// The part that is asked next for room.
    hand: AtomicUsize,
    /// When nothing was found the last time, in nanoseconds since `origin`; zero for never.
    searched: AtomicU64,
    origin: Instant,
    /// Of each circuit.
    cells: usize,
    pub(super) overflow: Breaker,
    pub(super) keyless: Breaker,
    pub(super) invalid_overrides: AtomicU64,
}

impl<K> Shared<K> {
    pub(super) fn new(
        name: Arc<str>,
        config: RegistryConfig,
        overrides: Option<Overrides<K>>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let overflow = Breaker::new(format!("{name} (overflow)"), config.breaker.clone())?;
        if config.overflow == KeyOverflow::Unguarded {
            overflow.force_close();
        }
        let keyless = Breaker::new(format!("{name} (no key)"), config.breaker.clone())?;
        keyless.force_close();
        Ok(Self {
            name,
            cells: cells(config.max_keys),
            config: ArcSwap::from_pointee(config),
            overrides,
            listener: Mutex::new(None),
            hasher: RandomState::new(),
            parts: (0..PARTS).map(|_| ShardedLock::new(Part::default())).collect(),
            taken: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            searched: AtomicU64::new(0),
            origin: Instant::now(),
            overflow,
            keyless,
            invalid_overrides: AtomicU64::new(0),
        })
    }

    pub(super) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The part of a hash, by bits that the tables within the parts do not use much.
    pub(super) fn read(&self, hash: u64) -> ShardedLockReadGuard<'_, Part<K>> {
        read(self.part(hash))
    }

    /// Each part in its turn.
    pub(super) fn each(&self) -> impl Iterator<Item = ShardedLockReadGuard<'_, Part<K>>> {
        self.parts.iter().map(read)
    }

    pub(super) fn config(&self) -> Arc<RegistryConfig> {
        self.config.load_full()
    }

    /// Circuits kept, or about to be.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn set_listener(&self, listener: Arc<Listener>) {
        let before = self.listener.lock().replace(listener);
        drop(before);
        self.for_each(|breaker, _own| self.keep_told(breaker, None));
        self.keep_told(&self.overflow, None);
    }

    pub(super) fn reconfigure(&self, config: RegistryConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let before = self.config.swap(Arc::new(config));
        self.for_each(|breaker, own| {
            if !own {
                self.keep_obeying(breaker, None);
            }
        });
        self.keep_obeying(&self.overflow, None);
        self.set_overflow(before.overflow);
        self.shrink();
        Ok(())
    }

    /// Gives a circuit the configuration of the registry, unless that is the one it `obeys`. Whoever
    /// has given it one looks again: another may have come, and been given it, in between.
    fn keep_obeying(&self, breaker: &Breaker, mut obeys: Option<Arc<RegistryConfig>>) {
        loop {
            let config = self.config();
            if obeys.is_some_and(|obeys| Arc::ptr_eq(&obeys, &config)) {
                return;
            }
            breaker.core().reconfigure(config.breaker.clone());
            obeys = Some(config);
        }
    }

    /// Gives a circuit the listener of the registry in the same way.
    fn keep_told(&self, breaker: &Breaker, mut tells: Option<Arc<Listener>>) {
        loop {
            let listener = self.listener.lock().clone();
            let Some(listener) = listener else { return };
            if tells.is_some_and(|tells| Arc::ptr_eq(&tells, &listener)) {
                return;
            }
            breaker.core().hook().set(Arc::clone(&listener));
            tells = Some(listener);
        }
    }

    /// Guards the keys without room, or no longer, if that is not as it was.
    fn set_overflow(&self, mut before: KeyOverflow) {
        loop {
            let overflow = self.config.load().overflow;
            if overflow == before {
                return;
            }
            match overflow {
                KeyOverflow::Unguarded => self.overflow.force_close(),
                KeyOverflow::Shared => self.overflow.reset(),
            }
            before = overflow;
        }
    }

    /// Forgets as many circuits as there are too many, as far as they may go.
    fn shrink(&self) {
        // Those that were used are spared the first time, and not the second.
        for need in [Need::Room, Need::Room, Need::Last] {
            let look = self.look(need);
            for part in &self.parts {
                let mut steps = read(part).len();
                while self.taken() > self.max_keys() && self.forget(part, &mut steps, look) {}
            }
        }
    }

    fn max_keys(&self) -> usize {
        self.config.load().max_keys as usize
    }

    /// Visits each circuit, outside of the locks: its moves may be told.
    fn for_each(&self, mut visit: impl FnMut(&Breaker, bool)) {
        for part in &self.parts {
            let kept: Vec<_> =
                read(part).iter().map(|(breaker, own)| (breaker.clone(), own)).collect();
            kept.iter().for_each(|(breaker, own)| visit(breaker, *own));
        }
    }

    pub(super) fn evict_idle(&self) -> usize {
        let look = self.look(Need::None);
        let mut evicted = 0;
        for part in &self.parts {
            let mut steps = read(part).len();
            while self.forget(part, &mut steps, look) {
                evicted += 1;
            }
        }
        evicted
    }

    fn part(&self, hash: u64) -> &ShardedLock<Part<K>> {
        &self.parts[(hash >> 48) as usize % PARTS]
    }

    fn look(&self, need: Need) -> Look {
        Look { now: Instant::now(), idle_after: self.config.load().idle_after, need }
    }

    /// Forgets a circuit to make room. For a moment after nothing was found nobody looks again: a
    /// flood of keys would look all the time.
    fn find_place(&self) -> bool {
        let look = self.look(Need::Room);
        let nanos = look.now.saturating_duration_since(self.origin).as_nanos() as u64;
        let searched = self.searched.load(Ordering::Relaxed);
        if searched > 0 && nanos.saturating_sub(searched) < PAUSE.as_nanos() as u64 {
            return false;
        }
        let found = self.search(look) || self.search(Look { need: Need::Last, ..look });
        if !found {
            self.searched.store(nanos.max(1), Ordering::Relaxed);
        }
        found
    }

    fn search(&self, look: Look) -> bool {
        let (mut steps, mut asked) = (SEARCH, 0);
        // Twice around, if they are few: what was spared the first time is not the second.
        while steps > 0 && asked < 2 * PARTS {
            let part = self.hand.fetch_add(1, Ordering::Relaxed) % PARTS;
            if self.forget(&self.parts[part], &mut steps, look) {
                return true;
            }
            asked += 1;
        }
        false
    }

    /// Forgets one circuit if one may go. Its memory is given back outside of the lock.
    fn forget(&self, part: &ShardedLock<Part<K>>, steps: &mut usize, look: Look) -> bool {
        let forgotten = write(part).take(steps, look);
        if forgotten.is_some() {
            self.taken.fetch_sub(1, Ordering::AcqRel);
        }
        forgotten.is_some()
    }
}

impl<K: Hash + Eq + Display> Shared<K> {
    /// The circuit of a key that was not there a moment ago.
    #[cold]
    pub(super) fn make(&self, hash: u64, key: K) -> Breaker {
        let Some(place) = self.take_place(hash) else { return self.overflow.clone() };
        let config = self.config();
        let (breaker, own) = self.new_breaker(&key, &config);
        let listener = self.listener.lock().clone();
        if let Some(listener) = &listener {
            breaker.core().hook().set(Arc::clone(listener));
        }
        let mut part = write(self.part(hash));
        if let Some(first) = part.find(hash, &key) {
            // Somebody else was faster. The place is given back.
            return first.clone();
        }
        part.insert(hash, key, breaker.clone(), own, Instant::now());
        drop(part);
        place.keep();
        // Whatever was set while the circuit was made, and not yet to be found.
        if !own {
            self.keep_obeying(&breaker, Some(config));
        }
        self.keep_told(&breaker, listener);
        breaker
    }

    /// Takes a place for one more circuit; `None` if there is none and none can be made.
    fn take_place(&self, hash: u64) -> Option<Place<'_>> {
        let before = self.taken.fetch_add(1, Ordering::AcqRel);
        let place = Place(&self.taken);
        let max_keys = self.max_keys();
        if before < max_keys {
            // Forgets faster than others come, long before the bound.
            let (mut steps, look) = (PASSING, self.look(Need::None));
            while steps > 0 && self.forget(self.part(hash), &mut steps, look) {}
            return Some(place);
        }
        let found = self.find_place();
        // Beyond the bound, which may have been lowered, two go for one that comes.
        if found && before > max_keys {
            self.find_place();
        }
        // Far beyond it nobody takes the place of who goes.
        (found && before < max_keys + AT_ONCE).then_some(place)
    }

    /// A circuit, and whether its configuration is its own.
    fn new_breaker(&self, key: &K, config: &RegistryConfig) -> (Breaker, bool) {
        let own = self.overrides.as_ref().and_then(|overrides| overrides(key));
        let own = own.filter(|own| {
            let valid = own.validate().is_ok();
            self.invalid_overrides.fetch_add(u64::from(!valid), Ordering::Relaxed);
            valid
        });
        let is_own = own.is_some();
        let config = own.unwrap_or_else(|| config.breaker.clone());
        (Breaker::unchecked(name_of(&self.name, key), config, self.cells), is_own)
    }
}

/// A place that is given back, unless it is kept.
struct Place<'a>(&'a AtomicUsize);

impl Place<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How many lines the threads count on: few where there are many circuits, since each line is a
/// quarter of a kilobyte.
fn cells(max_keys: u32) -> usize {
    let most = ALL_CELLS / max_keys.next_power_of_two() as usize;
    most.clamp(1, shard::usual())
}

fn read<K>(part: &ShardedLock<Part<K>>) -> ShardedLockReadGuard<'_, Part<K>> {
    // A key whose `Eq` panics leaves a part as it was.
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<K>(part: &ShardedLock<Part<K>>) -> ShardedLockWriteGuard<'_, Part<K>> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}
