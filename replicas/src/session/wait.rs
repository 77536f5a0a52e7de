//! Reads that wait, for a moment, for a replica to come as far as they must see.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Session;
use crate::node::Node;
use crate::shared::Shared;

/// How often, at most, one node's monitor is asked to look again while reads wait. A replica is
/// behind for a millisecond or two as a rule; oftener, its server would feel it.
const KICK_INTERVAL: Duration = Duration::from_millis(2);

/// What a session that needs something can expect of the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// One has come so far.
    There,
    /// One may come so far in time, or be found to be the primary that has it.
    Coming,
    /// None will.
    Hopeless,
}

impl<N> Shared<N> {
    /// Whether a read of the session would have to wait for a replica, and there is one to wait for.
    pub(crate) fn is_worth_waiting(&self, session: &Session) -> bool {
        let wait = self.policy.config.token_wait;
        session.has_needs()
            && !session.is_pinned()
            && !wait.is_zero()
            && self.outlook(session, &[], Instant::now(), wait) == Outlook::Coming
    }

    /// Waits until a replica, other than those with the identities `tried`, has come as far as the
    /// session must see; no longer than `token_wait`, and not at all when none will have by then.
    ///
    /// Nodes are looked at by their monitors, at once and every few milliseconds while somebody waits;
    /// what one of them finds out wakes all who wait.
    pub(crate) async fn catch_up(&self, session: &Session, tried: &[u64]) {
        let wait = self.policy.config.token_wait;
        if !session.has_needs() || session.is_pinned() || wait.is_zero() {
            return;
        }
        let deadline = Instant::now() + wait;
        let mut turn = None;
        loop {
            // Before the look, so that nothing goes unnoticed in between: it need not be polled to
            // hear of what is told to all.
            let observed = self.observed.notified();
            let now = Instant::now();
            let left = deadline.saturating_duration_since(now);
            match self.outlook(session, tried, now, left) {
                Outlook::There => return,
                Outlook::Coming if !left.is_zero() => {}
                Outlook::Coming | Outlook::Hopeless => {
                    self.waits.in_vain.fetch_add(u64::from(turn.is_some()), Relaxed);
                    return;
                }
            }
            if turn.is_none() {
                turn = self.waits.begin(self.policy.config.max_waiters);
                if turn.is_none() {
                    return;
                }
            }
            // In case the look that it asked for told nothing new, it asks again.
            let next = deadline.min(now + KICK_INTERVAL);
            let _woken_or_not = timeout_at(next, observed).await;
        }
    }

    /// Asks the monitors of all nodes to look again.
    pub(crate) fn kick_all(&self) {
        let now = Instant::now();
        for seat in &self.topology.load().seats {
            seat.node.kick_if_due(now);
        }
    }

    /// Asks the monitors of the nodes that may come so far to look again.
    fn outlook(&self, session: &Session, tried: &[u64], now: Instant, within: Duration) -> Outlook {
        let topology = self.topology.load();
        let mut outlook = Outlook::Hopeless;
        for at in topology.serving.iter() {
            let node = &topology.seats[at].node;
            if tried.contains(&node.id) {
                continue;
            }
            let seen = node.freshness.load();
            if session.admits(&seen, now) {
                return Outlook::There;
            }
            if session.may_come_to_admit(&seen, now, within) {
                outlook = Outlook::Coming;
                node.kick_if_due(now);
            }
        }
        let primary = topology.primary.map(|at| &topology.seats[at].node);
        if primary.is_some_and(|primary| session.outdates(&primary.freshness.load(), now)) {
            // Whoever is the primary by now has it.
            self.kick_all();
            return Outlook::Coming;
        }
        // How old a replica's data may be depends on when the primary was looked at, too.
        if let (Outlook::Coming, true, Some(primary)) = (outlook, session.has_bound(), primary) {
            primary.kick_if_due(now);
        }
        outlook
    }
}

impl<N> Node<N> {
    /// Asks the node's monitor to look at it, unless somebody just has.
    fn kick_if_due(&self, now: Instant) {
        if self.kicked.is_due(self.since_birth(now)) {
            self.kick.notify_one();
        }
    }
}

/// Reads that waited for a replica.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    now: AtomicUsize,
    pub(crate) begun: AtomicU64,
    pub(crate) in_vain: AtomicU64,
}

/// One of those that wait at present.
struct Turn<'a>(&'a AtomicUsize);

impl Waits {
    /// `None` if as many wait as may.
    fn begin(&self, most: usize) -> Option<Turn<'_>> {
        let one_more = |now: usize| (now < most).then(|| now + 1);
        self.now.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        self.begun.fetch_add(1, Relaxed);
        Some(Turn(&self.now))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// When one node's monitor was last asked to look, by whoever it was.
#[derive(Debug, Default)]
pub(crate) struct Kicks {
    /// Nanoseconds after the node's birth.
    next: AtomicU64,
}

impl Kicks {
    /// Takes the right to ask, which comes up once an interval.
    fn is_due(&self, now: u64) -> bool {
        let interval = KICK_INTERVAL.as_nanos() as u64;
        let due = |next| (next <= now).then(|| now.saturating_add(interval));
        self.next.fetch_update(Relaxed, Relaxed, due).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_asked_once_an_interval_whoever_asks() {
        let kicks = Kicks::default();
        let interval = KICK_INTERVAL.as_nanos() as u64;
        let asks = [0, 1, interval - 1, interval, interval + 1, 5 * interval, 6 * interval];
        let due: Vec<bool> = asks.iter().map(|&now| kicks.is_due(now)).collect();
        assert_eq!(due, [true, false, false, true, false, true, true]);
    }
}
