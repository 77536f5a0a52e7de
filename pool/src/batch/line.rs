//! Who waits for the next batch: a pure state machine, without clock, lock or task.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::mem;

use smallvec::{SmallVec, smallvec};

/// Items in the order of their arrival, each with those who wait for it.
#[derive(Debug)]
pub(super) struct Line<T, W, I> {
    /// In the order of their tickets. An item whose last waiter left makes a gap, as it does among
    /// the waiters of one item.
    entries: VecDeque<Entry<T, W>>,
    /// Entries that are no gaps.
    alive: usize,
    index: I,
    next_ticket: u64,
    waiting: usize,
}

#[derive(Debug)]
struct Entry<T, W> {
    /// Of the one who brought the item.
    ticket: u64,
    /// `None` for a gap.
    kept: Option<(T, Waiters<W>)>,
}

/// Those who wait for one item: mostly one.
pub(super) type Together<W> = SmallVec<[W; 1]>;

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    entry: u64,
    ticket: u64,
}

impl Place {
    /// Whether another had brought the item before.
    pub(super) fn joined(self) -> bool {
        self.entry != self.ticket
    }
}

/// What leaves the line together.
#[derive(Debug)]
pub(super) struct Batch<T, W, R> {
    pub(super) items: Vec<T>,
    /// For each item, those who wait for it.
    pub(super) waiters: Vec<Together<W>>,
    /// Where each item stands.
    pub(super) routes: R,
}

/// Who left, and with the last one the item and what the index kept of it.
pub(super) type Left<W, T> = (W, Option<(T, Option<T>)>);

/// Which items are equal and share an entry.
pub(super) trait Index<T>: Default {
    /// Where an item stands in its batch.
    type Routes: Send;
    fn find(&self, item: &T) -> Option<u64>;
    fn insert(&mut self, item: &T, entry: u64);
    /// Returns what it kept of the item: the caller's, to be dropped outside the lock.
    fn remove(&mut self, item: &T) -> Option<T>;
    /// Removes the items of a batch, of which `entries` tells where they stood; `all` if no other
    /// is left.
    fn take(&mut self, items: &[T], entries: Vec<u64>, all: bool) -> Self::Routes;
}

impl<T, W, I: Index<T>> Line<T, W, I> {
    /// Those who wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alive == 0
    }

    fn position(&self, entry: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&entry, |entry| entry.ticket).ok()
    }

    /// Joins the one who waits for an equal item, or goes to the end.
    pub(super) fn enter(&mut self, item: T, waiter: W) -> Place {
        let ticket = self.next_ticket;
        let found = self.index.find(&item).and_then(|at| Some((at, self.position(at)?)));
        let joined = found.and_then(|(entry, at)| Some((entry, self.entries[at].kept.as_mut()?)));
        let entry = match joined {
            Some((entry, (_, waiters))) => {
                waiters.push(ticket, waiter);
                entry
            }
            None => {
                self.index.insert(&item, ticket);
                let kept = Some((item, Waiters::new(ticket, waiter)));
                self.entries.push_back(Entry { ticket, kept });
                self.alive += 1;
                ticket
            }
        };
        self.next_ticket += 1;
        self.waiting += 1;
        Place { entry, ticket }
    }

    /// Gives a place up. The last one takes the item along. Nothing happens if it has been taken.
    pub(super) fn leave(&mut self, place: Place) -> Option<Left<W, T>> {
        let at = self.position(place.entry)?;
        let (_, waiters) = self.entries[at].kept.as_mut()?;
        let waiter = waiters.remove(place.ticket)?;
        self.waiting -= 1;
        if waiters.alive > 0 {
            return Some((waiter, None));
        }
        let item = self.entries[at].kept.take().map(|(item, _)| {
            let kept = self.index.remove(&item);
            (item, kept)
        });
        self.alive -= 1;
        self.compact();
        Some((waiter, item))
    }

    /// Gaps are never more than what is left.
    fn compact(&mut self) {
        if self.alive * 2 < self.entries.len() {
            self.entries.retain(|entry| entry.kept.is_some());
        }
    }

    /// Takes the first items out, at most so many. `None` when nobody waits.
    pub(super) fn take(&mut self, most: usize) -> Option<Batch<T, W, I::Routes>> {
        let count = self.alive.min(most);
        if count == 0 {
            return None;
        }
        let (mut items, mut waiters, mut entries) =
            (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
        while items.len() < count
            && let Some(Entry { ticket, kept }) = self.entries.pop_front()
        {
            let Some((item, together)) = kept else { continue };
            self.waiting -= together.alive;
            items.push(item);
            waiters.push(together.into_all());
            entries.push(ticket);
        }
        self.alive -= items.len();
        self.compact();
        let routes = self.index.take(&items, entries, self.alive == 0);
        Some(Batch { items, waiters, routes })
    }
}

impl<T, W, I: Index<T>> Default for Line<T, W, I> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), alive: 0, index: I::default(), next_ticket: 0, waiting: 0 }
    }
}

/// Equal keys share an entry.
#[derive(Debug)]
pub(super) struct Equal<K>(HashMap<K, u64>);

impl<K> Default for Equal<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// Where each key of a batch stands.
#[derive(Debug)]
pub(super) struct Routes<K> {
    by_key: HashMap<K, u64>,
    /// Sorted.
    entries: Vec<u64>,
}

impl<K: Eq + Hash> Routes<K> {
    pub(super) fn find(&self, key: &K) -> Option<usize> {
        self.entries.binary_search(self.by_key.get(key)?).ok()
    }
}

impl<K: Clone + Eq + Hash + Send> Index<K> for Equal<K> {
    type Routes = Routes<K>;

    fn find(&self, key: &K) -> Option<u64> {
        self.0.get(key).copied()
    }

    fn insert(&mut self, key: &K, entry: u64) {
        self.0.insert(key.clone(), entry);
    }

    fn remove(&mut self, key: &K) -> Option<K> {
        self.0.remove_entry(key).map(|(key, _)| key)
    }

    fn take(&mut self, keys: &[K], entries: Vec<u64>, all: bool) -> Routes<K> {
        // The next batch is mostly as large, and no key is hashed again.
        let mut by_key = HashMap::with_capacity(keys.len());
        if all {
            mem::swap(&mut self.0, &mut by_key);
        } else {
            by_key.extend(keys.iter().filter_map(|key| self.0.remove_entry(key)));
        }
        Routes { by_key, entries }
    }
}

/// Each write is its own, also if another is equal.
#[derive(Debug, Default)]
pub(super) struct Distinct;

impl<T> Index<T> for Distinct {
    type Routes = ();

    fn find(&self, _item: &T) -> Option<u64> {
        None
    }

    fn insert(&mut self, _item: &T, _entry: u64) {}

    fn remove(&mut self, _item: &T) -> Option<T> {
        None
    }

    fn take(&mut self, _items: &[T], _entries: Vec<u64>, _all: bool) {}
}

/// Those who wait for one item, in the order of their tickets. Whoever leaves makes a gap, which
/// costs less than to move all others up when thousands leave one popular key.
#[derive(Debug)]
struct Waiters<W> {
    slots: Together<(u64, Option<W>)>,
    alive: usize,
}

impl<W> Waiters<W> {
    fn new(ticket: u64, waiter: W) -> Self {
        Self { slots: smallvec![(ticket, Some(waiter))], alive: 1 }
    }

    fn push(&mut self, ticket: u64, waiter: W) {
        self.slots.push((ticket, Some(waiter)));
        self.alive += 1;
    }

    fn remove(&mut self, ticket: u64) -> Option<W> {
        let at = self.slots.binary_search_by_key(&ticket, |slot| slot.0).ok()?;
        let waiter = self.slots[at].1.take()?;
        self.alive -= 1;
        // Gaps are never more than those alive, so that a key which comes and goes stays small.
        if self.alive * 2 < self.slots.len() {
            self.slots.retain(|slot| slot.1.is_some());
        }
        Some(waiter)
    }

    fn into_all(self) -> Together<W> {
        self.slots.into_iter().filter_map(|slot| slot.1).collect()
    }
}

#[cfg(test)]
mod tests;
