//! One part of a registry's map, and which of its circuits may be forgotten. Pure but for the
//! circuits' own figures: the time is an argument.
//!
//! Nothing is written when a circuit is used, so that a circuit many threads use stays in all
//! their caches. Whether it was used is found out when the hand comes by: its calls are more than
//! they were the last time.

use std::borrow::Borrow;
use std::time::Duration;

use hashbrown::HashTable;
use tokio::time::Instant;

use super::stats::Totals;
use crate::breaker::{Breaker, State};

#[derive(Debug)]
pub(super) struct Part<K> {
    /// Places in `entries`.
    table: HashTable<usize>,
    entries: Vec<Entry<K>>,
    /// Where the next look begins.
    hand: usize,
    /// What the circuits taken out had counted: beside those that are left, so that who reads both
    /// at once sees every call once.
    forgotten: Totals,
    evicted: u64,
}

#[derive(Debug)]
struct Entry<K> {
    hash: u64,
    key: K,
    breaker: Breaker,
    /// Whether its configuration is not that of the registry.
    own: bool,
    /// Calls, let in or rejected, as of the last look.
    calls: u64,
    /// The last look that found it in use, or that it had been: not before its last call.
    used: Instant,
}

/// Whether a circuit may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Needed,
    /// Nothing has happened for so long that nobody will miss it, or a new one would behave the
    /// same.
    Spare,
    /// The latter, but it was used not long ago.
    SpareSoon,
}

/// What a look has to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) now: Instant,
    pub(super) idle_after: Duration,
    pub(super) need: Need,
}

/// How much room is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Idle circuits go.
    None,
    /// Those go, too, that are closed and hold nothing against their backends any more.
    Room,
    /// And those whose backend may be tried, which nobody does.
    Last,
}

/// When nobody asks any more for a circuit that may be tried, if it has no window of time: as long
/// as the default one.
const QUIET: Duration = Duration::from_secs(10);

impl<K> Default for Part<K> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            entries: Vec::new(),
            hand: 0,
            forgotten: Totals::default(),
            evicted: 0,
        }
    }
}

impl<K> Part<K> {
    pub(super) fn find<Q>(&self, hash: u64, key: &Q) -> Option<&Breaker>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let same = |place: &usize| self.entries[*place].key.borrow() == key;
        self.table.find(hash, same).map(|place| &self.entries[*place].breaker)
    }

    /// Adds a circuit that is about to take its first call. Its key must not be there.
    pub(super) fn insert(&mut self, hash: u64, key: K, breaker: Breaker, own: bool, now: Instant) {
        let place = self.entries.len();
        self.entries.push(Entry { hash, key, breaker, own, calls: 1, used: now });
        let entries = &self.entries;
        self.table.insert_unique(hash, place, |place| entries[*place].hash);
    }

    /// What the circuits taken out had counted, and how many they were.
    pub(super) fn forgotten(&self) -> (&Totals, u64) {
        (&self.forgotten, self.evicted)
    }

    /// Each circuit, and whether its configuration is its own.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Breaker, bool)> {
        self.entries.iter().map(|entry| (&entry.breaker, entry.own))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes out one circuit that may go, looking at no more than `steps` of them, which it
    /// counts down. One that was used since the last look is spared this time, unless it is the
    /// last step and there was none better.
    pub(super) fn take(&mut self, steps: &mut usize, look: Look) -> Option<Breaker> {
        let mut second_best = None;
        for _ in 0..self.entries.len().min(*steps) {
            *steps -= 1;
            let place = self.hand % self.entries.len();
            let entry = &mut self.entries[place];
            match entry.look(look) {
                Use::Spare => {
                    // The hand stays: another entry comes to this place.
                    self.hand = place;
                    return Some(self.remove(place));
                }
                Use::SpareSoon => second_best = Some(place),
                Use::Needed => {}
            }
            self.hand = place + 1;
        }
        let place = second_best.filter(|_| *steps == 0)?;
        Some(self.remove(place))
    }

    fn remove(&mut self, place: usize) -> Breaker {
        let last = self.entries.len() - 1;
        let entry = self.entries.swap_remove(place);
        if let Ok(found) = self.table.find_entry(entry.hash, |at| *at == place) {
            found.remove();
        }
        if place != last {
            // The last entry has come to this place.
            let moved = self.entries[place].hash;
            if let Some(at) = self.table.find_mut(moved, |at| *at == last) {
                *at = place;
            }
        }
        self.forgotten.add(entry.breaker.core());
        self.evicted += 1;
        entry.breaker
    }
}

impl<K> Entry<K> {
    fn look(&mut self, look: Look) -> Use {
        // First: whoever holds a handle or a permit would go on with a circuit that nobody else
        // sees, and without them it does not move.
        let in_use = self.breaker.is_held();
        let rest = self.breaker.core().rest();
        let calls = rest.sums.calls();
        let used = in_use || calls != self.calls;
        if used {
            self.calls = calls;
            self.used = look.now;
        }
        if in_use || rest.by_hand || rest.ramping || rest.state == State::Open {
            return Use::Needed;
        }
        let unused = look.now.saturating_duration_since(self.used);
        if unused >= look.idle_after {
            // An open circuit whose time is over, too: all it knows is how often it has opened.
            return Use::Spare;
        }
        let window = || self.breaker.core().config().window;
        let goes = match (look.need, rest.state) {
            (Need::None, _) => false,
            // Failures that no window of time forgets count as long as the circuit is kept.
            (_, State::Closed) => rest.blank || unused >= window().unwrap_or(look.idle_after),
            (Need::Last, _) => unused.min(rest.open_over) >= window().unwrap_or(QUIET),
            (Need::Room, _) => false,
        };
        match goes {
            true if used => Use::SpareSoon,
            true => Use::Spare,
            false => Use::Needed,
        }
    }
}
