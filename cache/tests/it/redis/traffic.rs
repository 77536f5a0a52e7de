//! Readers and removers that never stop, and know what may be read.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use escala_cache::{Cache, Coherence, Entry, Previous, RedisStore, Tidings};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::config;
use crate::support::builder;

pub(super) const NAME: &str = "faults";
pub(super) const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const HEARTBEAT: Duration = Duration::from_millis(200);
/// So long after a removal, or after the end of a fault, nobody serves what was removed.
pub(super) const BOUND: Duration = Duration::from_millis(1_400);

/// No request of a healthy process takes longer, whatever Redis does.
const PATIENCE: Duration = Duration::from_secs(20);

/// One key of the source: its present version, and which ones were taken away.
#[derive(Default)]
struct Truth {
    version: Arc<AtomicU64>,
    /// Each removal or insertion that has returned.
    changes: Mutex<Vec<Change>>,
    /// An application that changes one thing twice at a time has no order either.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    version: u64,
    process: usize,
    at: Instant,
    #[expect(dead_code, reason = "told with a lie")]
    kind: u8,
}

pub(super) struct World {
    processes: [Cache<String, u64>; 2],
    urls: [String; 2],
    truths: [Truth; KEYS.len()],
    /// Since when nothing is being done to Redis.
    well_since: Mutex<Option<Instant>>,
    /// A cache of one value that nobody removes.
    hot: Cache<String, u64>,
    hot_loads: AtomicU64,
    hits: Mutex<Vec<Duration>>,
    served: AtomicU64,
    lies: Mutex<Vec<String>>,
    stop: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

async fn cache(url: &str, name: &str, tidings: Tidings) -> Cache<String, u64> {
    let config = config(url).operation_timeout(Duration::from_millis(200));
    let store = RedisStore::connect(config.tracking(tidings == Tidings::Tracking)).await.unwrap();
    let coherence = Coherence::by(tidings).heartbeat(HEARTBEAT);
    builder(name).coherence(coherence).shared(store).build().unwrap()
}

impl World {
    /// Two processes under traffic.
    pub(super) async fn start(urls: [String; 2], tidings: Tidings) -> Arc<Self> {
        let world = Arc::new(Self {
            processes: [cache(&urls[0], NAME, tidings).await, cache(&urls[1], NAME, tidings).await],
            hot: cache(&urls[0], "hot", tidings).await,
            urls,
            truths: Default::default(),
            well_since: Mutex::new(Some(Instant::now())),
            hot_loads: AtomicU64::new(0),
            hits: Mutex::default(),
            served: AtomicU64::new(0),
            lies: Mutex::default(),
            stop: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        for process in 0..2 {
            for reader in 0..3 {
                world.spawn(Arc::clone(&world).read_on(process, reader));
            }
            world.spawn(Arc::clone(&world).remove_on(process));
        }
        world.spawn(Arc::clone(&world).read_hot());
        world.flows().await;
        world
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().push(tokio::spawn(task));
    }

    /// From here on a process need not know what others remove.
    pub(super) fn fault(&self) {
        *self.well_since.lock() = None;
    }

    /// The fault is over.
    pub(super) fn well(&self) {
        *self.well_since.lock() = Some(Instant::now());
    }

    /// Waits until some hundred reads more were served.
    pub(super) async fn flows(&self) {
        let goal = self.served.load(SeqCst) + 200;
        while self.served.load(SeqCst) < goal {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until both processes hear each other again and owe Redis nothing; how long it took.
    pub(super) async fn restored(&self) -> Duration {
        let begun = Instant::now();
        let restored = |process: &Cache<_, _>| {
            let stats = process.stats();
            stats.coherence.unwrap().up && stats.shared.unwrap().pending == 0
        };
        while !self.processes.iter().all(restored) {
            sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    /// How long each hit of the hot value took since this was last asked.
    pub(super) fn take_hits(&self) -> Vec<Duration> {
        std::mem::take(&mut self.hits.lock())
    }

    pub(super) fn hot_loads(&self) -> u64 {
        self.hot_loads.load(SeqCst)
    }

    /// Frames that could not be used.
    pub(super) fn rejected(&self) -> u64 {
        self.processes.iter().map(|process| process.stats().shared.unwrap().rejected).sum()
    }

    /// Lets the traffic go on until the bound is over and then some, and looks whether anybody
    /// was refused or lied to; at last, whether anything that was removed is back.
    pub(super) async fn end(&self) {
        sleep(BOUND).await;
        self.flows().await;
        self.stop.store(true, SeqCst);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.await.unwrap();
        }
        sleep(BOUND).await;
        let third = cache(&self.urls[0], NAME, Tidings::None).await;
        for (truth, key) in self.truths.iter().zip(KEYS) {
            let last = truth.changes.lock().iter().map(|change| change.version).max();
            for process in self.processes.iter().chain([&third]) {
                let read = process.get(key).await;
                if read.is_some_and(|read| Some(read) < last) {
                    self.lies.lock().push(format!("at last {key} is {read:?}, after {last:?}"));
                }
            }
            assert!(last > Some(10), "{key} was removed often: {last:?}");
        }
        let lies = self.lies.lock();
        assert!(lies.is_empty(), "{} lies, such as {:#?}", lies.len(), &lies[..lies.len().min(5)]);
    }

    /// The last change that a read which begins now must know of.
    fn floor(&self, process: usize, key: usize) -> Option<Change> {
        let (now, well_since) = (Instant::now(), *self.well_since.lock());
        let settled = |at: Instant| well_since.is_some_and(|well| now >= at.max(well) + BOUND);
        let changes = self.truths[key].changes.lock();
        let binding = changes.iter().filter(|by| by.process == process || settled(by.at));
        binding.max_by_key(|change| change.version).copied()
    }

    async fn read_on(self: Arc<Self>, process: usize, reader: u64) {
        let mut chance = fastrand::Rng::with_seed(reader * 2 + process as u64);
        while !self.stop.load(SeqCst) {
            let (key, how, takes) = (chance.usize(..KEYS.len()), chance.u8(..6), chance.u64(..8));
            let floor = self.floor(process, key);
            match timeout(PATIENCE, self.read(process, key, how, takes)).await {
                Ok(Ok(Some(read))) if floor.is_some_and(|floor| read < floor.version) => {
                    let ago = floor.map(|floor| floor.at.elapsed());
                    let lie =
                        format!("{process} reads {key} by {how}: {read}, {floor:?} {ago:?} ago");
                    self.lies.lock().push(lie);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => self.lies.lock().push(format!("refused: {error}")),
                Err(_) => self.lies.lock().push(format!("hung: {how}")),
            }
            self.served.fetch_add(1, SeqCst);
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn read(
        &self,
        process: usize,
        key: usize,
        how: u8,
        takes: u64,
    ) -> Result<Option<u64>, escala_cache::LoadError<Infallible>> {
        let cache = &self.processes[process];
        let takes = Duration::from_millis(takes);
        match how {
            0 | 1 => Ok(cache.get(KEYS[key]).await),
            2 => {
                let versions = self.truths.each_ref().map(|truth| Arc::clone(&truth.version));
                let load = async move |missing: Vec<String>| {
                    let all = KEYS.iter().zip(&versions);
                    let read = all.map(|(key, version)| (*key, version.load(SeqCst)));
                    let read: HashMap<_, _> = read.collect();
                    sleep(takes).await;
                    let entries = missing.into_iter().map(|key| {
                        let entry = Entry::new(read[key.as_str()]).tag(key.clone());
                        (key, entry)
                    });
                    Ok(entries.collect::<HashMap<_, _>>())
                };
                let found = cache.get_or_load_many(&KEYS.map(str::to_owned), load).await?;
                Ok(found.get(KEYS[key]).copied())
            }
            _ => {
                let version = Arc::clone(&self.truths[key].version);
                // The source is read when the load begins, as a transaction would.
                let load = async move |_: Previous<u64>| {
                    let version = version.load(SeqCst);
                    sleep(takes).await;
                    Ok(Entry::new(version).tag(KEYS[key]))
                };
                cache.get_or_load_with(KEYS[key], load).await
            }
        }
    }

    async fn remove_on(self: Arc<Self>, process: usize) {
        let mut chance = fastrand::Rng::with_seed(100 + process as u64);
        let cache = &self.processes[process];
        while !self.stop.load(SeqCst) {
            let key = chance.usize(..KEYS.len());
            let (truth, name) = (&self.truths[key], KEYS[key]);
            let changing = truth.changing.lock().await;
            let version = truth.version.fetch_add(1, SeqCst) + 1;
            let kind = chance.u8(..12);
            let change = async {
                match kind {
                    0..5 => drop(cache.remove(name).await),
                    5..8 => drop(cache.remove_tag(name).await),
                    8..10 => {
                        cache.insert_with(name.to_owned(), Entry::new(version).tag(name)).await;
                    }
                    10 => drop(cache.remove_matching(name).await),
                    _ => drop(cache.clear().await),
                }
            };
            if timeout(PATIENCE, change).await.is_err() {
                self.lies.lock().push("a removal hung".to_owned());
            }
            let change = Change { version, process, at: Instant::now(), kind };
            truth.changes.lock().push(change);
            drop(changing);
            sleep(Duration::from_millis(chance.u64(3..15))).await;
        }
    }

    async fn read_hot(self: Arc<Self>) {
        while !self.stop.load(SeqCst) {
            let counted = Arc::clone(&self);
            let load = async move || {
                counted.hot_loads.fetch_add(1, SeqCst);
                Ok::<_, Infallible>(7)
            };
            let hits = self.hot.stats().memory.hits;
            let begun = Instant::now();
            assert_eq!(self.hot.get_or_load("hot", load).await.unwrap(), 7);
            let took = begun.elapsed();
            if self.hot.stats().memory.hits > hits {
                self.hits.lock().push(took);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}
