//! A source that can be held up and a shared store that can be made to misbehave.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use escala_cache::{
    Cache, CacheBuilder, Entry, Pattern, SharedStore, Signal, StoreError, StoreFuture, When,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

/// A cache without jitter, so that lifetimes are exact.
pub(crate) fn builder(name: &str) -> CacheBuilder<String, u64> {
    Cache::builder(name).jitter(0.0)
}

/// A cache of memory alone.
pub(crate) fn memory(name: &str) -> Cache<String, u64> {
    builder(name).build().unwrap()
}

/// Answers with the value it holds when asked, after passing its gate.
#[derive(Clone, Default)]
pub(crate) struct Source {
    inner: Arc<SourceInner>,
}

#[derive(Default)]
struct SourceInner {
    value: AtomicU64,
    loads: AtomicU64,
    gate: Option<Semaphore>,
    begun: tokio::sync::Notify,
}

impl Source {
    pub(crate) fn new(value: u64) -> Self {
        let source = Self::default();
        source.set(value);
        source
    }

    /// A source whose loads read their value, then wait until they are let through.
    pub(crate) fn gated(value: u64) -> Self {
        let inner = SourceInner { gate: Some(Semaphore::new(0)), ..SourceInner::default() };
        let source = Self { inner: Arc::new(inner) };
        source.set(value);
        source
    }

    pub(crate) fn set(&self, value: u64) {
        self.inner.value.store(value, Ordering::SeqCst);
    }

    pub(crate) fn loads(&self) -> u64 {
        self.inner.loads.load(Ordering::SeqCst)
    }

    /// Waits until a load has read its value and stands at the gate.
    pub(crate) async fn begun(&self) {
        self.inner.begun.notified().await;
    }

    pub(crate) fn let_through(&self, loads: usize) {
        self.inner.gate.as_ref().unwrap().add_permits(loads);
    }

    pub(crate) async fn load(self) -> Result<u64, Infallible> {
        self.inner.loads.fetch_add(1, Ordering::SeqCst);
        let value = self.inner.value.load(Ordering::SeqCst);
        self.inner.begun.notify_one();
        if let Some(gate) = &self.inner.gate {
            gate.acquire().await.unwrap().forget();
        }
        Ok(value)
    }

    pub(crate) async fn entry(self, ttl: Duration) -> Result<Entry<u64>, Infallible> {
        self.load().await.map(|value| Entry::new(value).ttl(ttl))
    }

    /// `get_or_load` of this source.
    pub(crate) async fn read(&self, cache: &Cache<String, u64>, key: &str) -> u64 {
        let source = self.clone();
        cache.get_or_load(key, || source.load()).await.unwrap()
    }
}

/// A shared store in memory.
#[derive(Clone, Default)]
pub(crate) struct FakeStore {
    inner: Arc<StoreInner>,
}

pub(crate) type Snapshot = (HashMap<String, Vec<u8>>, HashMap<String, u64>);

#[derive(Default)]
struct StoreInner {
    entries: Mutex<HashMap<String, Vec<u8>>>,
    failing: AtomicBool,
    /// Chance of how long each operation takes, before and after its effect.
    latency: Mutex<Option<fastrand::Rng>>,
    /// Chance of messages that are numbered and reach nobody, in percent.
    loss: AtomicU64,
    /// Messages are numbered and reach nobody.
    losing: AtomicBool,
    gets: AtomicU64,
    sets: AtomicU64,
    last_ttl: Mutex<Option<Duration>>,
    get_gate: Mutex<Option<Arc<Gate>>>,
    set_gate: Mutex<Option<Arc<Gate>>>,
    remove_gate: Mutex<Option<Arc<Gate>>>,
    record_gate: Mutex<Option<Arc<Gate>>>,
    channels: Mutex<HashMap<String, Channel>>,
}

#[derive(Default)]
struct Channel {
    sequence: u64,
    subscribers: Vec<mpsc::Sender<Signal>>,
}

/// Holds an operation up between its effect and its answer, or before its effect.
pub(crate) struct Gate {
    arrived: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self { arrived: Semaphore::new(0), open: Semaphore::new(0) })
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }

    /// Waits until one more operation stands at the gate.
    pub(crate) async fn arrived(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    /// Opens for all, for good.
    pub(crate) fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

impl FakeStore {
    pub(crate) fn fail(&self, failing: bool) {
        self.inner.failing.store(failing, Ordering::SeqCst);
    }

    pub(crate) fn lose_messages(&self, losing: bool) {
        self.inner.losing.store(losing, Ordering::SeqCst);
    }

    /// Everything is gone, the numbers of messages too.
    pub(crate) fn flush(&self) {
        self.inner.entries.lock().clear();
        self.inner.channels.lock().values_mut().for_each(|channel| channel.sequence = 0);
    }

    /// All that is stored, and the number of the last message on each channel.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let channels = self.inner.channels.lock();
        let numbers = channels.iter().map(|(name, channel)| (name.clone(), channel.sequence));
        (self.inner.entries.lock().clone(), numbers.collect())
    }

    /// Goes back to an earlier state.
    pub(crate) fn restore(&self, (entries, numbers): Snapshot) {
        *self.inner.entries.lock() = entries;
        for (name, sequence) in numbers {
            self.inner.channels.lock().entry(name).or_default().sequence = sequence;
        }
    }

    pub(crate) fn subscribers(&self) -> usize {
        let mut channels = self.inner.channels.lock();
        let mut open = 0;
        for channel in channels.values_mut() {
            channel.subscribers.retain(|subscriber| !subscriber.is_closed());
            open += channel.subscribers.len();
        }
        open
    }

    /// Tells every subscriber something.
    pub(crate) fn signal(&self, signal: &Signal) {
        for channel in self.inner.channels.lock().values() {
            for subscriber in &channel.subscribers {
                subscriber.try_send(signal.clone()).ok();
            }
        }
    }

    /// Reads of values, each of any number.
    pub(crate) fn gets(&self) -> u64 {
        self.inner.gets.load(Ordering::SeqCst)
    }

    pub(crate) fn sets(&self) -> u64 {
        self.inner.sets.load(Ordering::SeqCst)
    }

    pub(crate) fn last_ttl(&self) -> Duration {
        self.inner.last_ttl.lock().unwrap()
    }

    /// The names of the values, without the tombstones in the place of removed ones.
    pub(crate) fn keys(&self) -> Vec<String> {
        let entries = self.inner.entries.lock();
        let values =
            entries.iter().filter(|(key, bytes)| is_value(key) && bytes.get(5) != Some(&2));
        let mut keys: Vec<_> = values.map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys
    }

    /// Changes every stored frame.
    pub(crate) fn alter(&self, alter: impl Fn(&mut Vec<u8>)) {
        let mut entries = self.inner.entries.lock();
        entries.iter_mut().filter(|(key, _)| is_value(key)).for_each(|(_, bytes)| alter(bytes));
    }

    /// Reads have taken effect when they stand at this gate.
    pub(crate) fn gate_gets(&self) -> Arc<Gate> {
        Arc::clone(self.inner.get_gate.lock().insert(Gate::new()))
    }

    /// Writes have taken no effect when they stand at this gate.
    pub(crate) fn gate_sets(&self) -> Arc<Gate> {
        Arc::clone(self.inner.set_gate.lock().insert(Gate::new()))
    }

    /// Removals have taken no effect when they stand at this gate.
    pub(crate) fn gate_removes(&self) -> Arc<Gate> {
        Arc::clone(self.inner.remove_gate.lock().insert(Gate::new()))
    }

    /// Writes of what is noted of removals have taken no effect when they stand at this gate.
    pub(crate) fn gate_records(&self) -> Arc<Gate> {
        Arc::clone(self.inner.record_gate.lock().insert(Gate::new()))
    }

    /// Each operation takes up to a few milliseconds, and so many messages in a hundred are lost.
    pub(crate) fn unsteady(&self, seed: u64, loss: u64) {
        *self.inner.latency.lock() = Some(fastrand::Rng::with_seed(seed));
        self.inner.loss.store(loss, Ordering::SeqCst);
    }

    async fn pause(&self) {
        let pause = self.inner.latency.lock().as_mut().map(|chance| chance.u64(0..=3));
        if let Some(pause) = pause {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn loses(&self) -> bool {
        let loss = self.inner.loss.load(Ordering::SeqCst);
        let chance = self.inner.latency.lock().as_mut().map(|chance| chance.u64(0..100));
        self.inner.losing.load(Ordering::SeqCst) || chance.is_some_and(|chance| chance < loss)
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.inner.failing.load(Ordering::SeqCst) {
            return Err(StoreError::failed("the store is away"));
        }
        Ok(())
    }
}

fn is_value(key: &str) -> bool {
    key.split(':').nth(2) == Some("k")
}

impl SharedStore for FakeStore {
    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Option<Vec<u8>>>> {
        Box::pin(async move {
            self.pause().await;
            let values = keys.iter().any(|key| is_value(key));
            self.inner.gets.fetch_add(u64::from(values), Ordering::SeqCst);
            self.check()?;
            let found = {
                let entries = self.inner.entries.lock();
                keys.iter().map(|key| entries.get(key).cloned()).collect()
            };
            if values {
                pass(&self.inner.get_gate).await;
            }
            self.pause().await;
            Ok(found)
        })
    }

    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl: Option<Duration>,
        when: When,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            self.pause().await;
            self.check()?;
            if is_value(key) && value.get(5) != Some(&2) {
                pass(&self.inner.set_gate).await;
                self.inner.sets.fetch_add(1, Ordering::SeqCst);
                *self.inner.last_ttl.lock() = ttl;
            } else if is_value(key) {
                pass(&self.inner.remove_gate).await;
            } else {
                pass(&self.inner.record_gate).await;
            }
            let holds = {
                let mut entries = self.inner.entries.lock();
                let now = entries.get(key);
                let holds = match when {
                    When::Absent => now.is_none(),
                    When::StartsWith(start) => now.is_some_and(|now| now.starts_with(&start)),
                    _ => true,
                };
                if holds {
                    entries.insert(key.to_owned(), value);
                }
                holds
            };
            self.pause().await;
            Ok(holds)
        })
    }

    fn remove<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.check()?;
            pass(&self.inner.remove_gate).await;
            self.inner.entries.lock().retain(|key, _| !keys.contains(key));
            Ok(())
        })
    }

    fn remove_matching<'a>(&'a self, prefix: &'a str, pattern: &'a Pattern) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.pause().await;
            self.check()?;
            pass(&self.inner.remove_gate).await;
            self.inner.entries.lock().retain(|key, _| {
                key.strip_prefix(prefix).is_none_or(|text| !pattern.matches(text))
            });
            Ok(())
        })
    }

    fn publish<'a>(&'a self, channel: &'a str, body: Vec<u8>) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            self.pause().await;
            self.check()?;
            let loses = self.loses();
            let mut channels = self.inner.channels.lock();
            let channel = channels.entry(channel.to_owned()).or_default();
            channel.sequence += 1;
            let sequence = channel.sequence;
            channel.subscribers.retain(|subscriber| !subscriber.is_closed());
            if !loses {
                for subscriber in &channel.subscribers {
                    subscriber.try_send(Signal::Message { sequence, body: body.clone() }).ok();
                }
            }
            Ok(sequence)
        })
    }

    fn sequence<'a>(&'a self, channel: &'a str) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            self.check()?;
            Ok(self.inner.channels.lock().entry(channel.to_owned()).or_default().sequence)
        })
    }

    fn subscribe(&self, channel: &str, _: Option<&str>) -> mpsc::Receiver<Signal> {
        let (sender, receiver) = mpsc::channel(1_024);
        sender.try_send(Signal::Up).unwrap();
        let mut channels = self.inner.channels.lock();
        channels.entry(channel.to_owned()).or_default().subscribers.push(sender);
        receiver
    }
}

/// Waits at a gate, if there is one.
async fn pass(gate: &Mutex<Option<Arc<Gate>>>) {
    let gate = gate.lock().clone();
    if let Some(gate) = gate {
        gate.pass().await;
    }
}
