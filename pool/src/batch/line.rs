//! Who waits for the next batch: a pure state machine, without clock, lock or task.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Items in the order of their arrival, each with those who wait for it.
#[derive(Debug)]
pub(super) struct Line<T, W, I> {
    /// By the ticket of the one who brought the item.
    entries: BTreeMap<u64, Entry<T, W>>,
    index: I,
    next_ticket: u64,
    waiting: usize,
}

#[derive(Debug)]
struct Entry<T, W> {
    item: T,
    waiters: Waiters<W>,
}

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
    pub(super) waiters: Vec<Vec<W>>,
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
    /// Removes the items of a batch.
    fn take(&mut self, items: &[T]) -> Self::Routes;
}

impl<T, W, I: Index<T>> Line<T, W, I> {
    /// Those who wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Joins the one who waits for an equal item, or goes to the end.
    pub(super) fn enter(&mut self, item: T, waiter: W) -> Place {
        let ticket = self.next_ticket;
        let found = self.index.find(&item);
        let entry = match found.and_then(|entry| Some((entry, self.entries.get_mut(&entry)?))) {
            Some((at, entry)) => {
                entry.waiters.push(ticket, waiter);
                at
            }
            None => {
                self.index.insert(&item, ticket);
                let waiters = Waiters::new(ticket, waiter);
                self.entries.insert(ticket, Entry { item, waiters });
                ticket
            }
        };
        self.next_ticket += 1;
        self.waiting += 1;
        Place { entry, ticket }
    }

    /// Gives a place up. The last one takes the item along. Nothing happens if it has been taken.
    pub(super) fn leave(&mut self, place: Place) -> Option<Left<W, T>> {
        let entry = self.entries.get_mut(&place.entry)?;
        let waiter = entry.waiters.remove(place.ticket)?;
        self.waiting -= 1;
        if entry.waiters.alive > 0 {
            return Some((waiter, None));
        }
        let item = self.entries.remove(&place.entry).map(|entry| {
            let kept = self.index.remove(&entry.item);
            (entry.item, kept)
        });
        Some((waiter, item))
    }

    /// Takes the first items out, at most so many. `None` when nobody waits.
    pub(super) fn take(&mut self, most: usize) -> Option<Batch<T, W, I::Routes>> {
        let count = self.entries.len().min(most);
        let mut items = Vec::with_capacity(count);
        let mut waiters = Vec::with_capacity(count);
        while items.len() < count
            && let Some((_, entry)) = self.entries.pop_first()
        {
            self.waiting -= entry.waiters.alive;
            items.push(entry.item);
            waiters.push(entry.waiters.into_vec());
        }
        if items.is_empty() {
            return None;
        }
        let routes = self.index.take(&items);
        Some(Batch { items, waiters, routes })
    }
}

impl<T, W, I: Index<T>> Default for Line<T, W, I> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), index: I::default(), next_ticket: 0, waiting: 0 }
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

impl<K: Clone + Eq + Hash + Send> Index<K> for Equal<K> {
    type Routes = HashMap<K, usize>;

    fn find(&self, key: &K) -> Option<u64> {
        self.0.get(key).copied()
    }

    fn insert(&mut self, key: &K, entry: u64) {
        self.0.insert(key.clone(), entry);
    }

    fn remove(&mut self, key: &K) -> Option<K> {
        self.0.remove_entry(key).map(|(key, _)| key)
    }

    fn take(&mut self, keys: &[K]) -> HashMap<K, usize> {
        let keys = keys.iter().enumerate();
        keys.filter_map(|(at, key)| Some((self.0.remove_entry(key)?.0, at))).collect()
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

    fn take(&mut self, _items: &[T]) {}
}

/// Those who wait for one item, in the order of their tickets. Whoever leaves makes a gap, which
/// costs less than to move all others up when thousands leave one popular key.
#[derive(Debug)]
struct Waiters<W> {
    slots: Vec<(u64, Option<W>)>,
    alive: usize,
}

impl<W> Waiters<W> {
    fn new(ticket: u64, waiter: W) -> Self {
        Self { slots: vec![(ticket, Some(waiter))], alive: 1 }
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

    fn into_vec(self) -> Vec<W> {
        self.slots.into_iter().filter_map(|slot| slot.1).collect()
    }
}

#[cfg(test)]
mod tests;
