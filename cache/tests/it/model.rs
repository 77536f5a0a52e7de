//! The promise, against random histories: no read returns a value older than the last removal that
//! was complete before the read began; in the process that removed at once, in others after one
//! heartbeat.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

#[cfg(feature = "quick_cache")]
use escala_cache::Engine;
use escala_cache::{Cache, Coherence, EarlyRefresh, Entry, Memory, Previous};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use crate::support::{FakeStore, builder};

/// What a process does, and how long it waits before.
#[derive(Debug, Clone, Copy)]
struct Step {
    after_ms: u64,
    process: usize,
    key: usize,
    action: Action,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Get,
    /// The load takes so long.
    Load(u64),
    LoadMany(u64),
    /// Changes the source, then takes away what the caches have of it.
    Remove,
    RemoveTag,
    RemoveMatching,
    Clear,
    /// Changes the source and puts the new value in.
    Insert,
    /// Everything in the store is lost.
    Flush,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Get),
        6 => (0..40_u64).prop_map(Action::Load),
        2 => (0..40_u64).prop_map(Action::LoadMany),
        3 => Just(Action::Remove),
        3 => Just(Action::RemoveTag),
        1 => Just(Action::RemoveMatching),
        1 => Just(Action::Clear),
        2 => Just(Action::Insert),
        1 => Just(Action::Flush),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..30_u64, 0..PROCESSES, 0..KEYS.len(), action())
        .prop_map(|(after_ms, process, key, action)| Step { after_ms, process, key, action });
    proptest::collection::vec(step, 20..120)
}

const PROCESSES: usize = 3;
const KEYS: [&str; 2] = ["a", "b"];
const HEARTBEAT: Duration = Duration::from_millis(100);
/// A heartbeat, the second look at what may be on its way, and a few slow operations.
const BOUND: Duration = Duration::from_millis(250);

/// One key of the source, and which of its versions must not be read any more.
#[derive(Default)]
struct Truth {
    version: Arc<AtomicU64>,
    /// Version, process and time of each complete change.
    changed: RefCell<Vec<(u64, usize, Instant)>>,
    /// An application that changes one thing twice at a time has no order either.
    changing: tokio::sync::Mutex<()>,
}

impl Truth {
    fn complete(&self, version: u64, process: usize) {
        self.changed.borrow_mut().push((version, process, Instant::now()));
    }

    /// The oldest version that a read which begins now in `process` may return.
    fn floor(&self, process: usize, shared: bool) -> u64 {
        let changed = self.changed.borrow();
        let binding = changed
            .iter()
            .filter(|(_, by, at)| *by == process || shared && at.elapsed() >= BOUND)
            .map(|(version, ..)| *version);
        binding.max().unwrap_or(0)
    }
}

struct World {
    store: FakeStore,
    shared: bool,
    processes: Vec<Cache<String, u64>>,
    truths: [Truth; KEYS.len()],
}

impl World {
    fn new(seed: u64, loss: u64, shared: bool) -> Self {
        let store = FakeStore::default();
        store.unsteady(seed, loss);
        let process = |number| {
            // The first has no room: what it finds once in the store does not come in.
            let full = Memory::entries(1);
            #[cfg(feature = "quick_cache")]
            let full = full.engine(Engine::QuickCache);
            let memory = if number == 0 { full } else { Memory::default() };
            let builder = builder("model")
                .memory(memory)
                .early_refresh(EarlyRefresh::After { share: 0.5 })
                .ttl(Duration::from_millis(400))
                .coherence(Coherence::default().heartbeat(HEARTBEAT));
            let builder = if shared { builder.shared(store.clone()) } else { builder };
            builder.build().unwrap()
        };
        let processes = (0..PROCESSES).map(process).collect();
        Self { processes, store, shared, truths: Default::default() }
    }

    async fn take(self: Rc<Self>, step: Step) -> Result<(), String> {
        let Step { process, key, action, .. } = step;
        let (cache, name) = (&self.processes[process], KEYS[key]);
        let floor = self.truths[key].floor(process, self.shared);
        let read = match action {
            Action::Get => cache.get(name).await,
            Action::Load(takes) => {
                let (version, tag) = (Arc::clone(&self.truths[key].version), name);
                // The source is read when the load begins, as a transaction would.
                let load = async move |_: Previous<u64>| {
                    let version = version.load(SeqCst);
                    sleep(Duration::from_millis(takes)).await;
                    Ok::<_, Infallible>(Entry::new(version).tag(tag))
                };
                cache.get_or_load_with(name, load).await.unwrap()
            }
            Action::LoadMany(takes) => self.load_many(cache, takes).await.get(name).copied(),
            Action::Flush => {
                self.store.flush();
                None
            }
            change => {
                self.change(step, change).await;
                None
            }
        };
        match read {
            Some(version) if version < floor => {
                Err(format!("{action:?} of {name} in {process} read {version}, after {floor}"))
            }
            _ => Ok(()),
        }
    }

    async fn change(&self, Step { process, key, .. }: Step, action: Action) {
        let (cache, truth, name) = (&self.processes[process], &self.truths[key], KEYS[key]);
        let _changing = truth.changing.lock().await;
        let version = truth.version.fetch_add(1, SeqCst) + 1;
        let removal = match action {
            Action::Insert => {
                cache.insert_with(name.to_owned(), Entry::new(version).tag(name)).await;
                return truth.complete(version, process);
            }
            Action::Remove => cache.remove(name).await,
            Action::RemoveTag => cache.remove_tag(name).await,
            Action::RemoveMatching => cache.remove_matching(name).await,
            _ => cache.clear().await,
        };
        if removal.is_complete() {
            truth.complete(version, process);
        }
    }

    async fn load_many(&self, cache: &Cache<String, u64>, takes: u64) -> HashMap<String, u64> {
        let versions = self.truths.each_ref().map(|truth| Arc::clone(&truth.version));
        let load = async move |missing: Vec<String>| {
            let entry = |key: String| {
                let at = usize::from(key == KEYS[1]);
                (key, Entry::new(versions[at].load(SeqCst)).tag(KEYS[at]))
            };
            let entries: HashMap<_, _> = missing.into_iter().map(entry).collect();
            sleep(Duration::from_millis(takes)).await;
            Ok::<_, Infallible>(entries)
        };
        cache.get_or_load_many(&KEYS.map(str::to_owned), load).await.unwrap()
    }
}

fn run(steps: &[Step], seed: u64, loss: u64, shared: bool) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let world = Rc::new(World::new(seed, loss, shared));
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut running = Vec::new();
        for step in steps {
            sleep(Duration::from_millis(step.after_ms)).await;
            running.push(tokio::task::spawn_local(Rc::clone(&world).take(*step)));
        }
        for task in running {
            task.await.unwrap()?;
        }
        Ok::<_, String>(())
    });
    outcome.map_err(TestCaseError::fail)
}

/// So many that an ordinary run takes seconds; the variable asks for more.
fn cases() -> ProptestConfig {
    let given = std::env::var_os("PROPTEST_CASES").is_some();
    if given { ProptestConfig::default() } else { ProptestConfig::with_cases(200) }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn one_process_never_reads_what_a_finished_removal_took_away(
        steps in steps(),
        seed: u64,
    ) {
        run(&steps, seed, 0, false)?;
    }

    #[test]
    fn processes_never_read_what_was_removed_a_heartbeat_ago(
        steps in steps(),
        seed: u64,
        loss in 0..50_u64,
    ) {
        run(&steps, seed, loss, true)?;
    }
}
