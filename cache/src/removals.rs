//! What was taken away by tag, or by another process, and which entries in memory that concerns.
//!
//! A removal by key of this process takes the entry out of memory. For a tag, or for a key of
//! which another process told only the text, that would mean a search; instead the removal is
//! written down here with a number, in one step, and an entry is judged when it is next read: it
//! knows at which number its load began. Nothing is looked up while nothing new was written down
//! since the entry was last judged.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::clock::{self, Tick};

/// Keys and tags remembered. Past it, and if none of them is too old to matter, everything loaded
/// so far counts as removed: a cold start for entries with tags rather than growth without end.
const MAX_MARKS: usize = 65_536;

/// The log of removals of one cache.
pub(crate) struct Removals {
    /// The number of the last removal. Entries judged at it need no second look.
    last: AtomicU64,
    /// No entry lives longer in memory, in nanoseconds; an older mark concerns nobody.
    longest_life: AtomicU64,
    log: RwLock<Log>,
}

struct Log {
    marks: HashMap<u64, Mark, ahash::RandomState>,
    /// What was loaded before this removal is void.
    floor: u64,
    /// What was not confirmed since this removal must be compared with the shared layer.
    suspect: u64,
    /// Nothing is heard of other processes, and what they may have removed is not to be served.
    deaf: bool,
}

#[derive(Clone, Copy)]
struct Mark {
    removed: u64,
    expired: u64,
    at: Tick,
}

/// What an entry knows about itself, to be judged by.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The last removal before its load began.
    loaded: u64,
    /// The last removal at which it was found to be unconcerned.
    judged: AtomicU64,
    /// Hashes of its key and its tags.
    names: SmallVec<[u64; 2]>,
}

/// What the log says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Current,
    Doubtful(Doubt),
    Removed,
}

/// Why an entry is not simply current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// Messages of other processes were missed: it may have been removed.
    pub(crate) suspect: bool,
    /// Since this moment it may be served only if the source fails.
    pub(crate) expired: Option<Tick>,
}

impl Verdict {
    pub(crate) fn is_suspect(self) -> bool {
        matches!(self, Self::Doubtful(doubt) if doubt.suspect)
    }
}

impl Removals {
    pub(crate) fn new(longest_life: Duration) -> Self {
        let log = Log { marks: HashMap::default(), floor: 0, suspect: 0, deaf: false };
        // From one on: zero means never judged.
        let longest_life = AtomicU64::new(nanos(longest_life));
        Self { last: AtomicU64::new(1), longest_life, log: RwLock::new(log) }
    }

    /// An entry is about to live so long in memory.
    pub(crate) fn lives(&self, life: Duration) {
        let life = nanos(life);
        if life > self.longest_life.load(Ordering::Relaxed) {
            self.longest_life.fetch_max(life, Ordering::Relaxed);
        }
    }

    /// The number to give to a load that begins now.
    pub(crate) fn now(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Entries that bear `name` and whose load has begun are void from here on.
    pub(crate) fn remove(&self, name: u64, now: Tick) {
        self.mark(name, now, |mark, number| mark.removed = number);
    }

    /// Entries that bear `name` and whose load has begun are no longer fresh from here on.
    pub(crate) fn expire(&self, name: u64, now: Tick) {
        self.mark(name, now, |mark, number| mark.expired = number);
    }

    /// Every entry must be confirmed by the shared layer before it is served again.
    pub(crate) fn suspect_all(&self) {
        let mut log = self.log.write();
        log.suspect = self.last.load(Ordering::Relaxed) + 1;
        self.last.store(log.suspect, Ordering::Release);
    }

    /// While `deaf`, no entry is current: the shared layer must confirm each.
    pub(crate) fn set_deaf(&self, deaf: bool) {
        let mut log = self.log.write();
        if log.deaf != deaf {
            log.deaf = deaf;
            self.last.fetch_add(1, Ordering::Release);
        }
    }

    /// Judges an entry, and remembers that it is current if it is.
    #[inline]
    pub(crate) fn judge(&self, guard: &Guard) -> Verdict {
        if guard.judged.load(Ordering::Relaxed) == self.now() {
            return Verdict::Current;
        }
        self.look_up(guard)
    }

    /// Removals that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.log.read().marks.len()
    }

    fn look_up(&self, guard: &Guard) -> Verdict {
        let log = self.log.read();
        // Under the lock, so that no removal comes between the number and the look.
        let now = self.now();
        if log.floor > guard.loaded {
            return Verdict::Removed;
        }
        let mut expired = None;
        for mark in guard.names.iter().filter_map(|name| log.marks.get(name)) {
            if mark.removed > guard.loaded {
                return Verdict::Removed;
            }
            if mark.expired > guard.loaded {
                expired = Some(expired.map_or(mark.at, |first: Tick| first.min(mark.at)));
            }
        }
        let suspect = log.deaf || log.suspect > guard.loaded;
        if suspect || expired.is_some() {
            return Verdict::Doubtful(Doubt { suspect, expired });
        }
        guard.judged.store(now, Ordering::Relaxed);
        Verdict::Current
    }

    fn mark(&self, name: u64, now: Tick, set: impl FnOnce(&mut Mark, u64)) {
        let mut log = self.log.write();
        let number = self.last.load(Ordering::Relaxed) + 1;
        let longest = Duration::from_nanos(self.longest_life.load(Ordering::Relaxed));
        log.make_room(now, number, longest);
        let mark = log.marks.entry(name).or_insert(Mark { removed: 0, expired: 0, at: now });
        mark.at = now;
        set(mark, number);
        // After the mark: who reads the number finds it.
        self.last.store(number, Ordering::Release);
    }
}

impl Log {
    fn make_room(&mut self, now: Tick, number: u64, longest: Duration) {
        if self.marks.len() < MAX_MARKS {
            return;
        }
        let longest = longest.saturating_add(clock::SLACK);
        self.marks.retain(|_, mark| now.since(mark.at) <= longest);
        if self.marks.len() >= MAX_MARKS {
            self.marks.clear();
            self.floor = number;
        }
    }
}

impl Guard {
    pub(crate) fn new(loaded: u64, names: SmallVec<[u64; 2]>) -> Self {
        Self { loaded, judged: AtomicU64::new(0), names }
    }

    /// The same names, unconcerned by what was removed up to `loaded`.
    pub(crate) fn since(&self, loaded: u64) -> Self {
        Self::new(loaded, self.names.clone())
    }

    /// Its key's and its tags' hashes.
    pub(crate) fn names(&self) -> &[u64] {
        &self.names
    }
}

impl Clone for Guard {
    fn clone(&self) -> Self {
        self.since(self.loaded)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    const SUSPECT: Verdict = Verdict::Doubtful(Doubt { suspect: true, expired: None });

    fn expired(at: Tick, suspect: bool) -> Verdict {
        Verdict::Doubtful(Doubt { suspect, expired: Some(at) })
    }

    fn guard(removals: &Removals, names: &[u64]) -> Guard {
        Guard::new(removals.now(), names.into())
    }

    #[test]
    fn of_several_expiries_the_first_counts_and_hides_no_suspicion() {
        let removals = Removals::new(LIFE);
        let entry = guard(&removals, &[1, 2, 3]);
        let (first, later) = (Tick::PAST.after(LIFE), Tick::PAST.after(2 * LIFE));
        removals.expire(2, first);
        removals.expire(3, later);
        assert_eq!(removals.judge(&entry), expired(first, false));
        removals.suspect_all();
        assert_eq!(removals.judge(&entry), expired(first, true));
        assert_eq!(removals.judge(&entry.since(removals.now())), Verdict::Current);
    }

    #[test]
    fn a_removal_concerns_what_was_loaded_before_it_and_bears_the_name() {
        let removals = Removals::new(LIFE);
        let (before, other) = (guard(&removals, &[1, 2]), guard(&removals, &[3]));
        assert_eq!(removals.judge(&before), Verdict::Current);
        removals.remove(2, Tick::PAST);
        let after = guard(&removals, &[1, 2]);
        assert_eq!(removals.judge(&before), Verdict::Removed);
        assert_eq!(removals.judge(&before), Verdict::Removed, "for good");
        assert_eq!(removals.judge(&other), Verdict::Current);
        assert_eq!(removals.judge(&after), Verdict::Current);
    }

    #[test]
    fn an_expiry_is_weaker_than_a_removal() {
        let removals = Removals::new(LIFE);
        let entry = guard(&removals, &[1, 2]);
        removals.expire(1, Tick::PAST);
        assert_eq!(removals.judge(&entry), expired(Tick::PAST, false));
        removals.remove(2, Tick::PAST);
        assert_eq!(removals.judge(&entry), Verdict::Removed);
    }

    #[test]
    fn suspicion_falls_on_what_was_loaded_before_it() {
        let removals = Removals::new(LIFE);
        let before = guard(&removals, &[1]);
        assert_eq!(removals.judge(&before), Verdict::Current);
        removals.suspect_all();
        assert_eq!(removals.judge(&before), SUSPECT);
        assert_eq!(removals.judge(&guard(&removals, &[1])), Verdict::Current);
        removals.remove(1, Tick::PAST);
        assert_eq!(removals.judge(&before), Verdict::Removed);
    }

    #[test]
    fn while_deaf_nothing_is_current() {
        let removals = Removals::new(LIFE);
        let entry = guard(&removals, &[1]);
        assert_eq!(removals.judge(&entry), Verdict::Current);
        removals.set_deaf(true);
        assert_eq!(removals.judge(&entry), SUSPECT);
        assert_eq!(removals.judge(&guard(&removals, &[1])), SUSPECT);
        removals.set_deaf(false);
        assert_eq!(removals.judge(&entry), Verdict::Current);
    }

    #[test]
    fn an_entry_that_lives_longer_than_usual_keeps_its_marks() {
        let removals = Removals::new(LIFE);
        removals.lives(10 * LIFE);
        let early = guard(&removals, &[0]);
        removals.remove(0, Tick::PAST);
        for name in 1..MAX_MARKS as u64 {
            removals.remove(name, Tick::PAST.after(2 * LIFE));
        }
        removals.remove(1, Tick::PAST.after(3 * LIFE));
        assert_eq!(removals.judge(&early), Verdict::Removed);
    }

    #[test]
    fn old_marks_make_room_and_too_many_young_ones_void_everything() {
        let removals = Removals::new(LIFE);
        let early = guard(&removals, &[u64::MAX]);
        for name in 0..MAX_MARKS as u64 {
            removals.remove(name, Tick::PAST);
        }
        assert_eq!(removals.judge(&early), Verdict::Current);
        let later = Tick::PAST.after(LIFE + Duration::from_secs(1));
        removals.remove(0, later);
        assert_eq!(removals.len(), 1);
        assert_eq!(removals.judge(&early), Verdict::Current);
        for name in 0..MAX_MARKS as u64 + 1 {
            removals.remove(name, later);
        }
        assert!(removals.len() < MAX_MARKS);
        assert_eq!(removals.judge(&early), Verdict::Removed);
        assert_eq!(removals.judge(&guard(&removals, &[u64::MAX])), Verdict::Current);
    }
}
