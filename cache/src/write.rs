//! The handle: how a cache is written, and how things are taken away from it.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::change::{Change, Message, tag_hash};
use crate::clock;
use crate::coherence;
use crate::entry::Entry;
use crate::error::StoreError;
use crate::flight::{Hold, Predecessors, Ticket};
use crate::glob::Pattern;
use crate::key::CacheKey;
use crate::load::{self, Landed};
use crate::prepare::Origin;
use crate::shared::{Filled, View, wall_ms};

/// How far a removal went.
///
/// A removal never fails: memory is always cleared, and before anything else. Ignore this value
/// unless other processes matter at once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Removal {
    /// Every layer is clear, and the other processes have been told.
    Complete,
    /// The shared layer could not be reached. This process no longer reads from it until the
    /// removal, which is repeated in the background, has reached it; other processes may.
    MemoryOnly(StoreError),
}

impl Removal {
    /// Whether every layer is clear.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }
}

/// The right to fill one key with what is now read from the source; made by [`Cache::fence`].
///
/// It is void as soon as the key, a tag of the entry, or everything is removed, here or in
/// another process.
pub struct Fence<K, V>
where
    K: std::hash::Hash + Eq,
{
    ticket: Ticket<K, Landed<V>>,
    origin: Origin,
    /// `None` if the shared layer could not tell what it has.
    view: Option<View>,
    /// Whether the shared layer is to be filled: not if the key was being changed there, or anything
    /// removed.
    trusts_shared: bool,
    begun: clock::Tick,
}

impl<K: std::hash::Hash + Eq, V> Fence<K, V> {
    /// The same right as of when `earlier` was made, for a key that was not known then. Removals
    /// between the two by tag make it void; those of its key do not.
    #[cfg(feature = "http")]
    pub(crate) fn backdated(self, earlier: &Self) -> Self {
        let view = self
            .view
            .zip(earlier.view.as_ref())
            .map(|(view, earlier)| view.with_control_of(earlier));
        Self { origin: earlier.origin, begun: earlier.begun, view, ..self }
    }
}

impl<K: std::hash::Hash + Eq, V> std::fmt::Debug for Fence<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence").finish_non_exhaustive()
    }
}

impl<K, V> Cache<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Stores a value for the cache's own lifetime. It replaces whatever is there, in every
    /// layer and process, and wins over a load under way.
    pub async fn insert(&self, key: K, value: V) {
        self.insert_with(key, Entry::new(value)).await;
    }

    /// As [`insert`](Self::insert), with lifetimes, tags or that there is nothing. A lifetime of
    /// zero removes the key.
    pub async fn insert_with(&self, key: K, entry: Entry<V>) {
        coherence::listen(&self.core).await;
        let core = &self.core;
        let origin = Origin { loaded: core.removals.now(), created_ms: wall_ms() };
        let text = core.text_of(&key);
        let prepared = core.prepare(&text, entry, origin, Duration::ZERO, None);
        let Some(prepared) = prepared.filter(|prepared| prepared.store) else {
            // Whether other processes were reached does not matter to who inserts.
            let _ = self.remove(&key).await;
            return;
        };
        let slot = prepared.slot.clone();
        let store = || core.memory.insert(key.clone(), slot);
        let Some(shared) = core.shared.clone() else {
            core.flights.void(&key, store);
            return;
        };
        // Until the write has ended, what stands in the shared layer is older than this.
        let hold = core.flights.hold(key.clone());
        let (before, ticket) = core.flights.replace(&key, store);
        let source = core.source;
        let write = async move {
            let _hold = hold;
            before.wait().await;
            if ticket.is_void() {
                // By a later change of this key, or by a pattern that may not even match it: what
                // it should have replaced must not stand there either way.
                drop(shared.change(source, Change::RemoveKey(text)).await);
                return;
            }
            match shared.replace(&text, &prepared.outgoing()).await {
                Filled::Stored => {
                    let change = Change::RemoveKey(text);
                    let told = shared.tell(Message { source, change: change.clone() }).await;
                    if told.is_err() {
                        shared.repeat(source, change);
                    }
                }
                // What it should have replaced may stand there still.
                _ => drop(shared.change(source, Change::RemoveKey(text)).await),
            }
        };
        // The task is dropped only with its runtime, and then nobody reads what it left.
        load::spawn(write).await.ok();
    }

    /// Takes the right to fill `key` with what is read from the source from now on.
    ///
    /// For callers whose loads are no plain futures (a response that is streamed, say); others
    /// use [`get_or_load`](Self::get_or_load). Dropped unused, it does nothing. Taken while the key is
    /// being changed in the shared layer, or anything removed there, it fills memory alone.
    ///
    /// # Cost
    /// With a shared layer one look there.
    pub async fn fence(&self, key: &K) -> Fence<K, V> {
        coherence::listen(&self.core).await;
        let origin = Origin { loaded: self.core.removals.now(), created_ms: wall_ms() };
        let (ticket, trusts_shared) = self.core.flights.fence(key);
        let view = match &self.core.shared {
            Some(shared) => shared.look(&key.text()).await.ok().map(|looked| looked.view()),
            None => None,
        };
        Fence { ticket, origin, view, trusts_shared, begun: clock::now() }
    }

    /// Stores what was read since the fence was made, unless it is void; says whether it stored
    /// it. The shared layer is filled in the background.
    pub fn insert_fenced(&self, fence: Fence<K, V>, entry: Entry<V>) -> bool {
        let Fence { ticket, origin, view, trusts_shared, begun } = fence;
        let core = Arc::clone(&self.core);
        let (text, load) = (core.text_of(ticket.key()), clock::now().since(begun));
        let prepared = core.prepare(&text, entry, origin, load, None);
        let Some(prepared) = prepared.filter(|prepared| prepared.store) else { return false };
        let view = view.filter(|_| trusts_shared && !prepared.shared_fresh.is_zero());
        let stored = load::publish(&core, &ticket, view.is_some(), prepared.slot.clone())
            && core.is_served(&prepared.slot);
        if let (true, Some(shared), Some(view)) = (stored, core.shared.clone(), view) {
            load::spawn(async move {
                if shared.fill(&text, &view, &prepared.outgoing()).await == Filled::Refused {
                    core.forget(&ticket);
                }
            });
        }
        stored
    }

    /// Removes one key from every layer and process. It is never served again.
    pub async fn remove<Q>(&self, key: &Q) -> Removal
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let core = &self.core;
        let hold = core.shared.as_ref().map(|_| core.flights.hold(key.to_owned()));
        let before = core.flights.void(key, || core.memory.remove(key));
        self.take_away(before, hold, || Change::RemoveKey(key.text())).await
    }

    /// Ends the lifetime of one key in every layer and process. The value may still stand in, as
    /// far as [`stale`](crate::CacheConfig::stale) allows, for a load that fails or is slow.
    pub async fn expire<Q>(&self, key: &Q) -> Removal
    where
        K: Borrow<Q>,
        Q: CacheKey + ToOwned<Owned = K> + ?Sized,
    {
        let core = &self.core;
        let hold = core.shared.as_ref().map(|_| core.flights.hold(key.to_owned()));
        let before = core.flights.void(key, || core.memory.expire(key));
        self.take_away(before, hold, || Change::ExpireKey(key.text())).await
    }

    /// Removes every entry that bears `tag`, from every layer and process.
    ///
    /// # Cost
    /// The same for one entry as for a million: nothing is searched. With a shared layer, three
    /// round trips there, during which this process loads instead of reading it.
    pub async fn remove_tag(&self, tag: &str) -> Removal {
        let hash = tag_hash(tag);
        let hold = self.core.shared.as_ref().map(|_| self.core.flights.hold_all());
        self.core.removals.remove(hash, clock::now());
        self.take_away(Predecessors::default(), hold, || Change::RemoveTag(hash)).await
    }

    /// As [`expire`](Self::expire), for every entry that bears `tag`.
    ///
    /// # Cost
    /// As [`remove_tag`](Self::remove_tag).
    pub async fn expire_tag(&self, tag: &str) -> Removal {
        let hash = tag_hash(tag);
        let hold = self.core.shared.as_ref().map(|_| self.core.flights.hold_all());
        self.core.removals.expire(hash, clock::now());
        self.take_away(Predecessors::default(), hold, || Change::ExpireTag(hash)).await
    }

    /// Removes every key whose text matches `pattern`, from every layer and process; see
    /// [`Pattern`] for what it may hold, and [`Pattern::escape`] for parts that come from
    /// outside.
    ///
    /// No load under way anywhere in this cache is stored after it.
    ///
    /// # Cost
    /// Looks at every entry in memory, without waiting, and at every key in the shared store, in
    /// steps. Not for a hot path; see [`remove_tag`](Self::remove_tag).
    pub async fn remove_matching(&self, pattern: &str) -> Removal {
        self.sweep(Pattern::new(pattern)).await
    }

    /// Removes every key whose first component, of several, is `tenant`, and no other.
    ///
    /// # Cost
    /// As [`remove_matching`](Self::remove_matching).
    pub async fn remove_tenant(&self, tenant: &(impl CacheKey + ?Sized)) -> Removal {
        let pattern = Pattern::tenant(tenant);
        self.sweep(pattern).await
    }

    /// Removes everything, from every layer and process.
    ///
    /// # Cost
    /// The same however much there is: what stands in the shared store is not believed any more
    /// and goes with its lifetime.
    pub async fn clear(&self) -> Removal {
        let (before, hold) = self.core.flights.sweep();
        self.core.memory.clear();
        self.take_away(before, Some(hold), || Change::Clear).await
    }

    async fn sweep(&self, pattern: Pattern) -> Removal {
        let (before, hold) = self.core.flights.sweep();
        self.core.memory.remove_matching(&pattern);
        self.take_away(before, Some(hold), || Change::RemoveMatching(pattern)).await
    }

    /// Carries a change out in the shared layer after memory. `hold` keeps loads from reading
    /// there until then.
    async fn take_away(
        &self,
        before: Predecessors,
        hold: Option<Hold<K, Landed<V>>>,
        change: impl FnOnce() -> Change,
    ) -> Removal {
        let Some(shared) = self.core.shared.clone() else { return Removal::Complete };
        let (source, change) = (self.core.source, change());
        let carry_out = async move {
            before.wait().await;
            let outcome = shared.change(source, change).await;
            drop(hold);
            outcome
        };
        match load::spawn(carry_out).await {
            Ok(Ok(())) => Removal::Complete,
            Ok(Err(error)) => Removal::MemoryOnly(error),
            Err(error) => Removal::MemoryOnly(StoreError::failed(error)),
        }
    }
}
