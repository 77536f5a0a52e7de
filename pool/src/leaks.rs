//! Notices leases that are held for too long, and where they were acquired.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A lease that is out for longer than the threshold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suspect {
    pub(crate) held: Duration,
    pub(crate) place: &'static Location<'static>,
}

/// The leases out that are not suspected yet, in the order they were acquired.
#[derive(Debug)]
pub(crate) struct Leaks {
    threshold: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    fresh: BTreeMap<u64, (Instant, &'static Location<'static>)>,
    /// Suspects that are still out, and all there ever were.
    leaked: usize,
    leaked_total: u64,
}

impl Leaks {
    pub(crate) fn new(threshold: Duration) -> Arc<Self> {
        Arc::new(Self { threshold, state: Mutex::default() })
    }

    /// Watches a lease until the token is dropped.
    pub(crate) fn watch(
        self: &Arc<Self>,
        since: Instant,
        place: &'static Location<'static>,
    ) -> Watched {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.fresh.insert(id, (since, place));
        Watched { leaks: Arc::clone(self), id }
    }

    /// The leases that have become suspects, and when to look again. A lease that does not exist
    /// yet cannot be one before the threshold, so nothing needs to wake the one who looks.
    pub(crate) fn look(&self, now: Instant) -> (Vec<Suspect>, Instant) {
        let mut state = self.state.lock();
        let mut suspects = Vec::new();
        while let Some(oldest) = state.fresh.first_entry() {
            let (since, place) = *oldest.get();
            if since + self.threshold > now {
                return (suspects, since + self.threshold);
            }
            oldest.remove();
            state.leaked += 1;
            state.leaked_total += 1;
            suspects.push(Suspect { held: now - since, place });
        }
        (suspects, now + self.threshold)
    }

    /// Suspects that are out now, and those of all time.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.leaked, state.leaked_total)
    }
}

/// A lease that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    leaks: Arc<Leaks>,
    id: u64,
}

impl Watched {
    /// Whether the lease was reported. It is to be dropped then.
    pub(crate) fn was_reported(&self) -> bool {
        !self.leaks.state.lock().fresh.contains_key(&self.id)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.leaks.state.lock();
        if state.fresh.remove(&self.id).is_none() {
            state.leaked -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lease_is_reported_once_when_it_is_due() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let leaks = Leaks::new(10 * second);
        let here = Location::caller();
        assert_eq!(leaks.look(start).1, start + 10 * second);
        let first = leaks.watch(start, here);
        let quick = leaks.watch(start + second, here);
        let last = leaks.watch(start + 2 * second, here);
        drop(quick);
        let (suspects, next) = leaks.look(start + 10 * second);
        assert_eq!((suspects.len(), next), (1, start + 12 * second));
        assert_eq!((suspects[0].held, leaks.counts()), (10 * second, (1, 1)));
        assert!(first.was_reported() && !last.was_reported());
        assert!(leaks.look(start + 11 * second).0.is_empty());
        drop(first);
        assert_eq!(leaks.counts(), (0, 1));
        assert_eq!(leaks.look(start + 12 * second).0.len(), 1);
        drop(last);
        assert_eq!(leaks.counts(), (0, 2));
    }
}
