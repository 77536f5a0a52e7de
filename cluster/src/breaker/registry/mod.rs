//! A circuit for every key: host, tenant, route. Bounded, and those nobody uses are forgotten.

mod config;
mod key;
mod keyed;
mod part;
mod stats;

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Display, Write as _};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use tokio::time::Instant;

pub use self::config::{KeyOverflow, RegistryConfig};
#[cfg(feature = "axum")]
pub use self::key::{ExtensionKey, HashedKey, HeaderKey, HostKey, RouteKey};
pub use self::key::{KeyFn, KeyOf, key_fn};
pub use self::keyed::Keyed;
use self::part::{Look, Part};
pub use self::stats::RegistryStats;
use super::shard::Shards;
use super::{Breaker, BreakerConfig, BreakerStats, Open, Permit, primitives, shard};
use crate::ConfigError;

/// A power of two: a writer, which makes or forgets a circuit, stops one of so many parts.
const PARTS: usize = 16;

/// Circuits looked at in passing when one is made: two would do to forget as fast as others come.
const PASSING: usize = 4;

/// Circuits looked at to find room for one, a bound on what a flood of new keys costs each call.
const SEARCH: usize = 32;

/// How long nobody looks for room where there was none.
const PAUSE: Duration = Duration::from_millis(1);

/// Lines that the circuits of a registry count on, all together. A circuit for each of 20 routes has
/// as many as one of its own would, one for each of 10,000 tenants has one.
const ALL_CELLS: usize = 4_096;

/// When a closed circuit has been quiet, if it has no window of time: as long as the default one.
const QUIET: Duration = Duration::from_secs(10);

/// Bytes of a key that names and labels show. Keys may come from clients.
const LABEL_BYTES: usize = 128;

/// A circuit for every key. A cheap handle: clones, and every layer and service made from them,
/// share the circuits.
///
/// [`BreakerLayer::keyed`] puts it around a tower service; [`admit`](Self::admit) and
/// [`breaker`](Self::breaker) are for code that is none.
///
/// # Example
/// ```
/// use escala_cluster::{BreakerRegistry, RegistryConfig};
///
/// let hosts = BreakerRegistry::<String>::new("hosts", RegistryConfig::default())?;
/// hosts.admit("a.example")?.failed();
/// hosts.admit("b.example")?.succeeded();
/// assert_eq!(hosts.breaker("a.example").stats().failed_total, 1);
/// assert_eq!(hosts.stats().keys, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`BreakerLayer::keyed`]: crate::BreakerLayer::keyed
///
/// # Limits
/// At most [`max_keys`](RegistryConfig::max_keys) circuits. One is forgotten when it has not been
/// used for [`idle_after`](RegistryConfig::idle_after); when room is needed, earlier, if it is
/// closed and holds nothing against its backend (no failures in a row and none in the window) or
/// had no call for the length of its window. Never forgotten are circuits whose open time is not
/// over, circuits moved by hand, and those with a call under way or a handle outside; one that is
/// being tried stays until it is idle. So a flood of new keys pushes out no circuit that matters:
/// a key for which no room is found meets the [`overflow`](RegistryConfig::overflow).
///
/// There is no background task: each new key looks at a few circuits in turn.
/// [`evict_idle`](Self::evict_idle) looks at all.
///
/// # Cost
/// A call whose circuit is kept: one hash, one lock that other readers do not touch, one look into
/// a table, and what a [`Breaker`] costs; no allocation. A new key makes a circuit, and stops one
/// sixteenth of the keys for a moment.
pub struct BreakerRegistry<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    name: Arc<str>,
    config: RegistryConfig,
    overrides: Option<Overrides<K>>,
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
    overflow: Breaker,
    keyless: Breaker,
    invalid_overrides: AtomicU64,
}

type Overrides<K> = Box<dyn Fn(&K) -> Option<BreakerConfig> + Send + Sync>;

impl<K> BreakerRegistry<K>
where
    K: Hash + Eq + Display,
{
    /// An empty registry. The name is what logs and statistics call it; a circuit is called
    /// `name/key`.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    pub fn new(name: impl Into<Arc<str>>, config: RegistryConfig) -> Result<Self, ConfigError> {
        Self::build(name.into(), config, None)
    }

    /// An empty registry some of whose keys have a configuration of their own: the closure says
    /// which, when their circuit is made, and `None` for the others. A configuration that is not
    /// valid counts as none and in [`RegistryStats::invalid_overrides_total`].
    ///
    /// # Errors
    /// The first field of the shared configuration that breaks its rule.
    pub fn with_overrides(
        name: impl Into<Arc<str>>,
        config: RegistryConfig,
        overrides: impl Fn(&K) -> Option<BreakerConfig> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        Self::build(name.into(), config, Some(Box::new(overrides)))
    }

    fn build(
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
        let parts = (0..PARTS).map(|_| ShardedLock::new(Part::default())).collect();
        let cells = cells(config.max_keys);
        let shared = Shared {
            name,
            config,
            overrides,
            hasher: RandomState::new(),
            parts,
            taken: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            searched: AtomicU64::new(0),
            origin: Instant::now(),
            cells,
            overflow,
            keyless,
            invalid_overrides: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The right to one call for this key, whose circuit is made if it is not there.
    ///
    /// # Errors
    /// [`Open`] while its circuit is open, or half-open with all its permits handed out.
    pub fn admit<Q>(&self, key: &Q) -> Result<Permit, Open>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut permit = self.admit_young(Some(Cow::Borrowed(key)))?;
        permit.start_age();
        Ok(permit)
    }

    /// The circuit of this key, which is made if it is not there. While the handle lives, the
    /// circuit is not forgotten.
    ///
    /// For a key that finds no room, the circuit all such keys share; see [`KeyOverflow`].
    pub fn breaker<Q>(&self, key: &Q) -> Breaker
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.shared.hash(key);
        self.get_hashed(hash, key).unwrap_or_else(|| self.shared.make(hash, key.to_owned()))
    }

    /// The circuit of this key if it is there.
    pub fn get<Q>(&self, key: &Q) -> Option<Breaker>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get_hashed(self.shared.hash(key), key)
    }

    fn get_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Breaker>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        read(self.shared.part(hash)).find(hash, key).cloned()
    }

    /// Forgets every circuit that has been idle for long enough, and says how many. A look at each
    /// one: for a timer, where few new keys come but memory matters.
    #[expect(clippy::must_use_candidate, reason = "asked for what it does")]
    pub fn evict_idle(&self) -> usize {
        let mut evicted = 0;
        for part in &self.shared.parts {
            let look = self.shared.look(false);
            let mut steps = self.shared.config.max_keys as usize;
            while let Some(breaker) = write(part).take(&mut steps, look) {
                self.shared.taken.fetch_sub(1, Ordering::AcqRel);
                drop(breaker);
                evicted += 1;
            }
        }
        evicted
    }

    /// The figures of each circuit kept, at most `limit` of them, in no order.
    #[must_use]
    pub fn breakers(&self, limit: usize) -> Vec<BreakerStats> {
        let mut figures = Vec::new();
        for part in &self.shared.parts {
            let left = limit - figures.len();
            let handles: Vec<_> = read(part).iter().take(left).cloned().collect();
            figures.extend(handles.iter().map(Breaker::stats));
        }
        figures
    }

    /// The figures as of now: a look at every circuit, one sixteenth of them after the other. So
    /// `keys` may be a few too many while keys come and go; no call is missed or counted twice.
    #[must_use]
    pub fn stats(&self) -> RegistryStats {
        let shared = &self.shared;
        let mut sum = stats::Sum::new(shared.config.named_keys as usize);
        for part in &shared.parts {
            // The handles keep the circuits from being forgotten, so that their figures can be
            // read when nobody waits for the lock.
            let handles: Vec<Breaker> = {
                let kept = read(part);
                sum.add_forgotten(kept.forgotten());
                kept.iter().cloned().collect()
            };
            handles.iter().for_each(|breaker| sum.add(breaker));
        }
        sum.finish(&stats::Beside {
            name: &shared.name,
            overflow: &shared.overflow,
            keyless: &shared.keyless,
            invalid_overrides: shared.invalid_overrides.load(Ordering::Relaxed),
        })
    }

    /// A permit whose age starts when the caller says so. Without a key, one of the circuit that
    /// never opens.
    pub(super) fn admit_young<Q>(&self, key: Option<Cow<'_, Q>>) -> Result<Permit, Open>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let shared = &self.shared;
        let Some(key) = key else { return shared.keyless.admit_young() };
        let hash = shared.hash(&*key);
        // Under the lock, which spares counting another handle, as long as the circuit does not
        // move: whoever listens to that may well ask the registry.
        let kept = {
            let part = read(shared.part(hash));
            match part.find(hash, &*key) {
                None => None,
                Some(breaker) => match breaker.admit_quietly() {
                    Some(answer) => return answer,
                    None => Some(breaker.clone()),
                },
            }
        };
        kept.unwrap_or_else(|| shared.make(hash, key.into_owned())).admit_young()
    }
}

impl<K> Shared<K>
where
    K: Hash + Eq + Display,
{
    fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }

    /// By bits that the tables within the parts do not use much.
    fn part(&self, hash: u64) -> &ShardedLock<Part<K>> {
        &self.parts[(hash >> 48) as usize % PARTS]
    }

    fn look(&self, pressed: bool) -> Look {
        let quiet_after = self.config.breaker.window.unwrap_or(QUIET);
        Look { now: Instant::now(), idle_after: self.config.idle_after, quiet_after, pressed }
    }

    /// The circuit of a key that was not there a moment ago.
    #[cold]
    fn make(&self, hash: u64, key: K) -> Breaker {
        if !self.take_place(hash) {
            return self.overflow.clone();
        }
        let breaker = self.new_breaker(&key);
        let mut part = write(self.part(hash));
        if let Some(first) = part.find(hash, &key) {
            // Somebody else was faster.
            let first = first.clone();
            drop(part);
            self.taken.fetch_sub(1, Ordering::AcqRel);
            return first;
        }
        part.insert(hash, key, breaker.clone(), Instant::now());
        breaker
    }

    /// Takes a place for one more circuit; false if there is none and none can be made.
    fn take_place(&self, hash: u64) -> bool {
        if self.taken.fetch_add(1, Ordering::AcqRel) < self.config.max_keys as usize {
            // Forgets as fast as others come, long before the bound.
            let mut steps = PASSING;
            self.forget(self.part(hash), &mut steps, self.look(false));
            return true;
        }
        let found = self.find_place();
        if !found {
            self.taken.fetch_sub(1, Ordering::AcqRel);
        }
        found
    }

    /// Forgets a circuit to make room. For a moment after nothing was found nobody looks again: a
    /// flood of keys would look all the time.
    fn find_place(&self) -> bool {
        let look = self.look(true);
        let nanos = look.now.saturating_duration_since(self.origin).as_nanos() as u64;
        let searched = self.searched.load(Ordering::Relaxed);
        if nanos.saturating_sub(searched) < PAUSE.as_nanos() as u64 && searched > 0 {
            return false;
        }
        let (mut steps, mut asked) = (SEARCH, 0);
        // Twice around, if they are few: what was spared the first time is not the second.
        while steps > 0 && asked < 2 * PARTS {
            let part = self.hand.fetch_add(1, Ordering::Relaxed) % PARTS;
            if self.forget(&self.parts[part], &mut steps, look) {
                return true;
            }
            asked += 1;
        }
        self.searched.store(nanos.max(1), Ordering::Relaxed);
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

    fn new_breaker(&self, key: &K) -> Breaker {
        let own = self.overrides.as_ref().and_then(|overrides| overrides(key));
        let valid = own.filter(|own| {
            let valid = own.validate().is_ok();
            self.invalid_overrides.fetch_add(u64::from(!valid), Ordering::Relaxed);
            valid
        });
        let config = valid.unwrap_or_else(|| self.config.breaker.clone());
        let shards = Shards::new(named(&self.name, key), config, self.cells);
        Breaker { shards: primitives::Arc::new(shards) }
    }
}

/// How many lines the threads count on: few where there are many circuits, since each line is a
/// quarter of a kilobyte.
fn cells(max_keys: u32) -> usize {
    let most = ALL_CELLS / max_keys.next_power_of_two() as usize;
    most.clamp(1, shard::usual())
}

/// `registry/key`, the key cut where it is too long.
fn named(registry: &str, key: &dyn Display) -> Arc<str> {
    struct Cut(String, usize);
    impl fmt::Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                if self.0.len() + character.len_utf8() > self.1 {
                    return Err(fmt::Error);
                }
                self.0.push(character);
            }
            Ok(())
        }
    }
    let mut name = Cut(format!("{registry}/"), registry.len() + 1 + LABEL_BYTES);
    if write!(name, "{key}").is_err() {
        name.0.push('…');
    }
    name.0.into()
}

fn read<K>(part: &ShardedLock<Part<K>>) -> ShardedLockReadGuard<'_, Part<K>> {
    // A key whose `Eq` panics leaves a part as it was.
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<K>(part: &ShardedLock<Part<K>>) -> ShardedLockWriteGuard<'_, Part<K>> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}

impl<K> Clone for BreakerRegistry<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> fmt::Debug for BreakerRegistry<K> {
    /// Without the keys, which may be many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerRegistry")
            .field("name", &self.shared.name)
            .field("keys", &self.shared.taken.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
