//! The map of flights and fills. Its rules stand in the page above it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use ahash::RandomState;
use smallvec::SmallVec;

use super::primitives::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, SHARDS, hasher, watch};
use crate::error::Failure;

/// What a flight brings to its callers.
pub(crate) type Outcome<V> = Result<V, Failure>;

/// The flights and fills of one cache.
pub(crate) struct Flights<K, V> {
    shards: [Mutex<Shard<K, V>>; SHARDS],
    hasher: RandomState,
    /// Removals by pattern or tag under way: they hold every key.
    sweeps: AtomicUsize,
    /// Holds of single keys.
    held: AtomicUsize,
    /// There is a shared layer that fills may be writing when something makes them void.
    writes: bool,
}

type Shard<K, V> = HashMap<K, Slot<V>, RandomState>;

/// What a caller with a miss has to do.
pub(crate) enum Join<K, V, H>
where
    K: Hash + Eq,
{
    /// Nothing: the value came meanwhile.
    Hit(H),
    /// Wait for the flight of another.
    Wait(Landing<V>),
    /// Fly.
    Lead(Lead<K, V>, Landing<V>),
}

/// The duty to load. Dropped before it lands, the flight ends as aborted.
pub(crate) struct Lead<K, V>
where
    K: Hash + Eq,
{
    // Declared first: the flight leaves the map before its callers learn that it ended.
    pub(crate) ticket: Ticket<K, V>,
    pub(crate) runway: watch::Sender<Option<Outcome<V>>>,
    /// The number of the last removal when it began.
    pub(crate) began: u64,
    /// False while a removal is under way in the shared layer.
    pub(crate) trusts_shared: bool,
}

/// Where the callers of a flight wait.
pub(crate) struct Landing<V>(watch::Receiver<Option<Outcome<V>>>);

impl<V: Clone> Landing<V> {
    pub(crate) async fn wait(mut self) -> Outcome<V> {
        match self.0.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone().unwrap_or(Err(Failure::Aborted)),
            Err(_) => Err(Failure::Aborted),
        }
    }
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone,
{
    pub(crate) fn new(writes: bool) -> Self {
        let hasher = hasher();
        let shard = |_| Mutex::new(Shard::with_hasher(hasher.clone()));
        let (sweeps, held) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { shards: std::array::from_fn(shard), hasher, sweeps, held, writes }
    }

    /// Joins a flight for `key` that began at number `oldest` or later, or starts one at number
    /// `now`. `recheck` looks into memory once more, where no flight can land unseen.
    pub(crate) fn join<H>(
        self: &Arc<Self>,
        key: &K,
        now: u64,
        oldest: u64,
        recheck: impl FnOnce() -> Option<H>,
    ) -> Join<K, V, H> {
        let mut shard = self.shard(key).lock();
        let flight = shard.get(key).and_then(|slot| slot.flight.as_ref());
        if let Some(flight) = flight.filter(|flight| flight.began >= oldest) {
            return Join::Wait(Landing(flight.landing.clone()));
        }
        if let Some(value) = recheck() {
            return Join::Hit(value);
        }
        let slot = shard.entry(key.clone()).or_default();
        let ticket = self.register(key, slot, Fills::Both);
        let trusts_shared = slot.holds == 0 && !self.is_sweeping();
        let (runway, landing) = watch::channel(None);
        let fill = Arc::clone(&ticket.fill);
        slot.flight = Some(Flight { fill, began: now, landing: landing.clone() });
        Join::Lead(Lead { ticket, runway, began: now, trusts_shared }, Landing(landing))
    }

    /// Registers a read of the shared layer that wants to promote what it finds, and never writes
    /// there; `None` while the shared layer is not to be trusted for `key`.
    pub(crate) fn promote(self: &Arc<Self>, key: &K) -> Option<Ticket<K, V>> {
        self.begin(key, Fills::Memory, |slot| slot.holds == 0)
    }

    /// As [`promote`](Self::promote), and `None` as well while anything else is under way for the
    /// key, which had better be joined.
    pub(crate) fn promote_alone(self: &Arc<Self>, key: &K) -> Option<Ticket<K, V>> {
        self.begin(key, Fills::Memory, Slot::is_idle)
    }

    /// Whether the shared layer is to be trusted for `key`, for a read that fills nothing. Takes
    /// no lock unless some key is held.
    pub(crate) fn trusts_shared<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let held = self.held.load(Ordering::SeqCst) > 0
            && self.shard(key).lock().get(key).is_some_and(|slot| slot.holds > 0);
        !held && !self.is_sweeping()
    }

    /// Registers a fill of what is now read from the source; and whether the shared layer is to be
    /// trusted for `key`. If not, the fill is for memory alone.
    pub(crate) fn fence(self: &Arc<Self>, key: &K) -> (Ticket<K, V>, bool) {
        let mut shard = self.shard(key).lock();
        let slot = shard.entry(key.clone()).or_default();
        let trusts_shared = slot.holds == 0 && !self.is_sweeping();
        (self.register(key, slot, Fills::Both), trusts_shared)
    }

    fn begin(
        self: &Arc<Self>,
        key: &K,
        fills: Fills,
        admits: impl FnOnce(&Slot<V>) -> bool,
    ) -> Option<Ticket<K, V>> {
        let mut shard = self.shard(key).lock();
        if !shard.get(key).is_none_or(admits) || self.is_sweeping() {
            return None;
        }
        Some(self.register(key, shard.entry(key.clone()).or_default(), fills))
    }

    /// Makes everything under way for `key` void and runs `apply`, both in one step.
    pub(crate) fn void<Q>(&self, key: &Q, apply: impl FnOnce()) -> Predecessors
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key).lock();
        let mut before = Predecessors::default();
        if let Some(slot) = shard.get_mut(key) {
            slot.void(&mut before);
            if slot.is_idle() {
                shard.remove(key);
            }
        }
        apply();
        before
    }

    /// Like [`void`](Self::void), and registers the caller as the fill that now writes `key`.
    pub(crate) fn replace(
        self: &Arc<Self>,
        key: &K,
        apply: impl FnOnce(),
    ) -> (Predecessors, Ticket<K, V>) {
        let mut shard = self.shard(key).lock();
        let mut before = Predecessors::default();
        let slot = shard.entry(key.clone()).or_default();
        slot.void(&mut before);
        let ticket = self.register(key, slot, Fills::Both);
        ticket.fill.writing.store(true, Ordering::Relaxed);
        apply();
        (before, ticket)
    }

    /// Holds `key` while it is being removed from the shared layer. Take it before
    /// [`void`](Self::void).
    pub(crate) fn hold(self: &Arc<Self>, key: K) -> Hold<K, V> {
        self.shard(&key).lock().entry(key.clone()).or_default().holds += 1;
        self.held.fetch_add(1, Ordering::SeqCst);
        Hold { flights: Arc::clone(self), key: Some(key) }
    }

    /// Holds every key.
    pub(crate) fn hold_all(self: &Arc<Self>) -> Hold<K, V> {
        self.sweeps.fetch_add(1, Ordering::SeqCst);
        Hold { flights: Arc::clone(self), key: None }
    }

    /// Holds every key and makes everything under way void.
    pub(crate) fn sweep(self: &Arc<Self>) -> (Predecessors, Hold<K, V>) {
        // Before the first lock: whoever registers in a shard already swept sees it.
        let hold = self.hold_all();
        let mut before = Predecessors::default();
        for shard in &self.shards {
            shard.lock().retain(|_, slot| {
                slot.void(&mut before);
                !slot.is_idle()
            });
        }
        (before, hold)
    }

    /// Keys with something under way.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn is_sweeping(&self) -> bool {
        self.sweeps.load(Ordering::SeqCst) > 0
    }

    fn register(self: &Arc<Self>, key: &K, slot: &mut Slot<V>, fills: Fills) -> Ticket<K, V> {
        // Only who may write the shared layer is ever waited for.
        let end = (self.writes && fills == Fills::Both).then(|| watch::channel(()));
        let (running, done) = end.unzip();
        let fill = Arc::new(Fill { void: AtomicBool::new(false), writing: false.into(), done });
        slot.fills.push(Arc::clone(&fill));
        Ticket { flights: Arc::clone(self), key: key.clone(), fill, _running: running }
    }
}

impl<K: Hash + Eq, V> Flights<K, V> {
    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> &Mutex<Shard<K, V>> {
        // The top bits: the map inside the shard uses the low ones.
        let at = (self.hasher.hash_one(key) >> 32) as usize % SHARDS;
        &self.shards[at]
    }

    fn release(&self, key: &K, release: impl FnOnce(&mut Slot<V>)) {
        let mut shard = self.shard(key).lock();
        if let Some(slot) = shard.get_mut(key) {
            release(slot);
            if slot.is_idle() {
                shard.remove(key);
            }
        }
    }
}

/// The right to fill one key, until something later makes it void.
pub(crate) struct Ticket<K, V>
where
    K: Hash + Eq,
{
    flights: Arc<Flights<K, V>>,
    key: K,
    fill: Arc<Fill>,
    /// Dropped with the ticket, which wakes those who wait for the end of its write.
    _running: Option<watch::Sender<()>>,
}

impl<K: Hash + Eq, V> Ticket<K, V> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Runs `store` unless the fill is void, and says whether it ran. From here on callers find
    /// the value in memory: the flight, if this is one, takes no more of them. With `writing`,
    /// a later removal waits until this ticket is dropped.
    pub(crate) fn publish(&self, writing: bool, store: impl FnOnce()) -> bool {
        let mut shard = self.flights.shard(&self.key).lock();
        if self.is_void() {
            return false;
        }
        self.fill.writing.store(writing, Ordering::Relaxed);
        if let Some(slot) = shard.get_mut(&self.key) {
            slot.land(&self.fill);
        }
        store();
        true
    }

    /// Runs `apply` unless something later made the fill void.
    pub(crate) fn unless_void(&self, apply: impl FnOnce()) {
        let _shard = self.flights.shard(&self.key).lock();
        if !self.is_void() {
            apply();
        }
    }

    /// Whether something later made this fill void.
    pub(crate) fn is_void(&self) -> bool {
        self.fill.void.load(Ordering::Acquire)
    }
}

impl<K: Hash + Eq, V> Drop for Ticket<K, V> {
    fn drop(&mut self) {
        self.flights.release(&self.key, |slot| {
            slot.land(&self.fill);
            slot.fills.retain(|fill| !Arc::ptr_eq(fill, &self.fill));
        });
    }
}

/// While it lives, new flights do not read the shared layer for the key (or for any key).
pub(crate) struct Hold<K, V>
where
    K: Hash + Eq,
{
    flights: Arc<Flights<K, V>>,
    key: Option<K>,
}

impl<K: Hash + Eq, V> Drop for Hold<K, V> {
    fn drop(&mut self) {
        match &self.key {
            Some(key) => {
                self.flights.held.fetch_sub(1, Ordering::SeqCst);
                self.flights.release(key, |slot| slot.holds -= 1);
            }
            None => {
                self.flights.sweeps.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

/// Writes to the shared layer that must end before one's own begins.
#[derive(Default)]
pub(crate) struct Predecessors(pub(super) Vec<watch::Receiver<()>>);

impl Predecessors {
    pub(crate) async fn wait(self) {
        for mut write in self.0 {
            // Nothing is ever sent: it ends when the writer's ticket is dropped.
            while write.changed().await.is_ok() {}
        }
    }
}

struct Slot<V> {
    flight: Option<Flight<V>>,
    /// All fills that are not void, the flight's own among them.
    fills: SmallVec<[Arc<Fill>; 1]>,
    /// Removals of this key under way in the shared layer.
    holds: usize,
}

struct Flight<V> {
    fill: Arc<Fill>,
    began: u64,
    landing: watch::Receiver<Option<Outcome<V>>>,
}

struct Fill {
    void: AtomicBool,
    writing: AtomicBool,
    done: Option<watch::Receiver<()>>,
}

/// Which layers a fill may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fills {
    Memory,
    Both,
}

impl<V> Slot<V> {
    fn void(&mut self, before: &mut Predecessors) {
        self.flight = None;
        for fill in self.fills.drain(..) {
            fill.void.store(true, Ordering::Release);
            if fill.writing.load(Ordering::Relaxed) {
                before.0.extend(fill.done.clone());
            }
        }
    }

    /// Takes the flight of `fill` off, so that nobody joins it any more.
    fn land(&mut self, fill: &Arc<Fill>) {
        if self.flight.as_ref().is_some_and(|flight| Arc::ptr_eq(&flight.fill, fill)) {
            self.flight = None;
        }
    }

    fn is_idle(&self) -> bool {
        self.flight.is_none() && self.fills.is_empty() && self.holds == 0
    }
}

// Not derived: that would ask for `V: Default`.
impl<V> Default for Slot<V> {
    fn default() -> Self {
        Self { flight: None, fills: SmallVec::new(), holds: 0 }
    }
}
