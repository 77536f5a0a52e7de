//! What other processes remove, this one hears of: one task a cache listens to their messages,
//! notices when some were missed, and then has memory confirmed by the shared layer, entry by
//! entry as they are read, rather than emptied.

mod ear;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::cache::Core;
use crate::change::{Change, Message, key_hash};
use crate::clock;
use crate::config::{Coherence, Tidings, WhileDeaf};
use crate::key::CacheKey;
use crate::load;
use crate::shared::{Shared, Signal};
use crate::stats::CoherenceStats;
use ear::{Beat, Ear};

/// How long a message that the store has numbered may still be on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// Whether anybody listens, and what was heard.
pub(crate) struct Hearing {
    config: Coherence,
    listening: AtomicBool,
    /// Whether it is known which message was the last: from here on, a missing one is noticed.
    ready: AtomicBool,
    readiness: Notify,
    up: AtomicBool,
    received: AtomicU64,
    unreadable: AtomicU64,
    gaps: AtomicU64,
    resubscriptions: AtomicU64,
    behind: AtomicU64,
}

impl Hearing {
    pub(crate) fn new(config: Coherence) -> Self {
        Self {
            config,
            listening: AtomicBool::new(false),
            ready: AtomicBool::new(config.by == Tidings::None),
            readiness: Notify::new(),
            up: AtomicBool::new(false),
            received: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            resubscriptions: AtomicU64::new(0),
            behind: AtomicU64::new(0),
        }
    }

    fn be_ready(&self) {
        if !self.ready.swap(true, Ordering::AcqRel) {
            self.readiness.notify_waiters();
        }
    }

    pub(crate) fn stats(&self) -> CoherenceStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CoherenceStats {
            up: self.up.load(Ordering::Relaxed),
            received: read(&self.received),
            unreadable: read(&self.unreadable),
            gaps: read(&self.gaps),
            resubscriptions: read(&self.resubscriptions),
            behind: read(&self.behind),
        }
    }
}

/// Makes sure that this cache listens before it reads anything that others may remove. Costs one
/// read once it does.
pub(crate) async fn listen<K, V>(core: &Arc<Core<K, V>>)
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let hearing = &core.hearing;
    let Some(shared) = core.shared.as_ref().filter(|_| !hearing.ready.load(Ordering::Acquire))
    else {
        return;
    };
    if !hearing.listening.swap(true, Ordering::AcqRel) {
        let listener = Listener {
            core: Arc::downgrade(core),
            signals: shared.subscribe(hearing.config.by == Tidings::Tracking),
            ear: Ear::default(),
            deaf_since: None,
            // A message before the subscription stands would count as missed.
            next_beat: Instant::now() + ON_ITS_WAY,
        };
        load::spawn(listener.run());
    }
    let mut readiness = pin!(hearing.readiness.notified());
    readiness.as_mut().enable();
    if !hearing.ready.load(Ordering::Acquire) {
        readiness.await;
    }
}

/// The task that listens. It ends with its cache.
struct Listener<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    core: Weak<Core<K, V>>,
    signals: mpsc::Receiver<Signal>,
    ear: Ear,
    /// Since when messages may be missed without notice.
    deaf_since: Option<Instant>,
    next_beat: Instant,
}

impl<K, V> Listener<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    async fn run(mut self) {
        loop {
            let signal = timeout_at(self.next_beat, self.signals.recv()).await;
            let Some(core) = self.core.upgrade() else { return };
            let Some(shared) = core.shared.clone() else { return };
            match signal {
                Ok(Some(signal)) => self.take(&core, &shared, signal).await,
                Ok(None) => {
                    // The store has given the subscription up: not at once again.
                    self.signals = shared.subscribe(self.tracking(&core));
                    core.hearing.resubscriptions.fetch_add(1, Ordering::Relaxed);
                    self.deafen(&core);
                    tokio::time::sleep(ON_ITS_WAY).await;
                }
                Err(_) => self.beat(&core, &shared).await,
            }
            self.apply_policy(&core);
        }
    }

    async fn take(&mut self, core: &Arc<Core<K, V>>, shared: &Arc<Shared<V>>, signal: Signal) {
        match signal {
            Signal::Up => {
                self.beat(core, shared).await;
            }
            Signal::Down => self.deafen(core),
            Signal::Message { sequence, body } => {
                core.hearing.received.fetch_add(1, Ordering::Relaxed);
                // Whatever its number: to take something away twice does no harm.
                match Message::decode(&body) {
                    Some(message) if message.source != core.source => core.hear(&message.change),
                    Some(_) => {}
                    None => {
                        core.hearing.unreadable.fetch_add(1, Ordering::Relaxed);
                        self.missed(core);
                    }
                }
                if self.ear.hear(sequence) {
                    self.missed(core);
                }
            }
            Signal::Changed { key } => {
                if let Some(text) = shared.text_of(&key) {
                    core.removals.remove(key_hash(text), clock::now());
                }
            }
            Signal::Flushed => self.missed(core),
        }
    }

    /// Compares the number of the last message with what was heard.
    async fn beat(&mut self, core: &Arc<Core<K, V>>, shared: &Arc<Shared<V>>) {
        let heartbeat = core.hearing.config.heartbeat;
        self.next_beat = Instant::now() + heartbeat;
        let pulse = shared.pulse().await;
        if pulse.is_err() {
            self.ear.asked_in_vain();
        }
        core.hearing.be_ready();
        let Ok(pulse) = pulse else {
            self.deafen(core);
            return;
        };
        core.hearing.behind.store(self.ear.behind(pulse.sequence), Ordering::Relaxed);
        match self.ear.beat(pulse) {
            Beat::Whole => self.hears(core),
            Beat::Behind => {
                self.next_beat = Instant::now() + ON_ITS_WAY.min(heartbeat);
            }
            Beat::Rewound => {
                self.missed(core);
                // If that fails, the next beat tries again.
                shared.renew(pulse.incarnation).await.ok();
                self.next_beat = Instant::now() + ON_ITS_WAY.min(heartbeat);
            }
            Beat::Missed => {
                self.missed(core);
                self.hears(core);
                if !self.ear.is_plausible() {
                    // Numbers arrive and messages do not: this subscription is dead.
                    self.signals = shared.subscribe(self.tracking(core));
                    core.hearing.resubscriptions.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn hears(&mut self, core: &Core<K, V>) {
        self.deaf_since = None;
        core.hearing.up.store(true, Ordering::Relaxed);
    }

    fn deafen(&mut self, core: &Core<K, V>) {
        self.deaf_since.get_or_insert_with(Instant::now);
        core.hearing.up.store(false, Ordering::Relaxed);
        // Heard again or not is found out soon after.
        self.next_beat = self.next_beat.min(Instant::now() + core.hearing.config.heartbeat);
    }

    fn missed(&mut self, core: &Core<K, V>) {
        core.hearing.gaps.fetch_add(1, Ordering::Relaxed);
        core.removals.suspect_all();
    }

    fn apply_policy(&mut self, core: &Core<K, V>) {
        let patience = match core.while_deaf {
            WhileDeaf::Keep => return,
            WhileDeaf::Bypass => Duration::ZERO,
            WhileDeaf::Shorten(patience) => patience,
        };
        let ends = self.deaf_since.map(|since| since + patience);
        core.removals.set_deaf(ends.is_some_and(|ends| ends <= Instant::now()));
        if let Some(ends) = ends.filter(|ends| *ends > Instant::now()) {
            self.next_beat = self.next_beat.min(ends);
        }
    }

    fn tracking(&self, core: &Core<K, V>) -> bool {
        core.hearing.config.by == Tidings::Tracking
    }
}

impl<K, V> Drop for Listener<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Dropped with its runtime, it leaves its place to another.
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.hearing.up.store(false, Ordering::Relaxed);
            core.removals.suspect_all();
            core.hearing.ready.store(false, Ordering::Release);
            core.hearing.listening.store(false, Ordering::Release);
            // Who waits for this task starts another.
            core.hearing.readiness.notify_waiters();
        }
    }
}

impl<K, V> Core<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Takes away from memory what another process took away from the shared layer.
    fn hear(&self, change: &Change) {
        let now = clock::now();
        match change {
            Change::RemoveKey(text) => self.removals.remove(key_hash(text), now),
            Change::ExpireKey(text) => self.removals.expire(key_hash(text), now),
            Change::RemoveTag(tag) => self.removals.remove(*tag, now),
            Change::ExpireTag(tag) => self.removals.expire(*tag, now),
            Change::RemoveMatching(pattern) => {
                let (_, _hold) = self.flights.sweep();
                self.memory.remove_matching(pattern);
            }
            Change::Clear => {
                let (_, _hold) = self.flights.sweep();
                self.memory.clear();
            }
        }
    }
}
