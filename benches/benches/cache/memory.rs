//! A hit in memory, by one thread and by two.
//!
//! One thread alone is timed by what it has of the CPU, so that what other processes take from it
//! does not count. Two are timed by the clock on the wall, since they wait for each other.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use escala_benches::table::{median, row, title};
use escala_cache::{Cache, Engine, Memory};
use fastrand::Rng;
use futures_util::FutureExt as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Builder;
use tokio::time::Instant;

use crate::Effort;
use crate::profile::{Profile, key};
use crate::trace::Zipf;

const KEYS: usize = 10_000;
const CAPACITY: usize = 100_000;
/// Keys of one round: some milliseconds.
const ROUND: usize = 20_000;

/// Reads all keys one after the other and asserts each answer.
type Reader = Box<dyn Fn(&[Read]) + Send + Sync>;

/// A key, and the number its value must have.
type Read = (Arc<str>, u64);

struct Contender {
    name: &'static str,
    read: Reader,
    /// Nanoseconds per hit of each round, by one thread and by two at once.
    alone: Vec<f64>,
    together: Vec<f64>,
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut contenders = runtime.block_on(contenders())?;
    let sequences = [sequence(1, effort), sequence(2, effort)];
    for _ in 0..effort.of(101, 1) {
        for contender in &mut contenders {
            contender.alone.push(alone(&contender.read, &sequences[0]));
        }
        for contender in &mut contenders {
            contender.together.push(together(&contender.read, &sequences));
        }
    }
    title("Memory hit, ns per hit and thread: 10,000 keys of 26 bytes, Zipf 1.0, room for 100,000");
    let columns = ["1 thread", "over moka", "2 threads", "ratio", "allocations"];
    row("", &columns.map(ToOwned::to_owned));
    let [first, ..] = &contenders[..] else { return Ok(()) };
    let (alone, together) = (median(&first.alone), median(&first.together));
    for contender in &contenders {
        let (one, two) = (median(&contender.alone), median(&contender.together));
        let allocations = allocation_counter::measure(|| (contender.read)(&sequences[0]));
        let cells = [
            format!("{one:.0}"),
            format!("{:+.0}", one - alone),
            format!("{two:.0}"),
            format!("{:.2}", two / together),
            format!("{:.3}", allocations.count_total as f64 / sequences[0].len() as f64),
        ];
        row(contender.name, &cells);
    }
    Ok(())
}

/// Nanoseconds on the CPU per hit of one thread.
fn alone(read: &Reader, keys: &[Read]) -> f64 {
    let begun = time_on_cpu();
    read(keys);
    (time_on_cpu() - begun) / keys.len() as f64
}

/// What this thread has had of the CPU, in nanoseconds.
fn time_on_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Each thread reads its own sequence; the nanoseconds per hit of the slower one.
fn together(read: &Reader, sequences: &[Vec<Read>; 2]) -> f64 {
    let start = Barrier::new(sequences.len());
    let time = |keys: &[Read]| {
        start.wait();
        let begun = Instant::now();
        read(keys);
        begun.elapsed()
    };
    let slower = std::thread::scope(|scope| {
        let threads = sequences.each_ref().map(|keys| scope.spawn(|| time(keys)));
        let times = threads.map(|thread| thread.join().expect("answers are right"));
        times.into_iter().max().unwrap_or(Duration::ZERO)
    });
    slower.as_nanos() as f64 / sequences[0].len() as f64
}

fn sequence(seed: u64, effort: Effort) -> Vec<Read> {
    let (zipf, mut chance) = (Zipf::new(KEYS, 1.0), Rng::with_seed(seed));
    let keys: Vec<Arc<str>> = (0..KEYS as u64).map(|number| key(number).into()).collect();
    let draw = || zipf.draw(&mut chance);
    let numbers = std::iter::repeat_with(draw).take(effort.of(ROUND, 1_000));
    numbers.map(|number| (Arc::clone(&keys[number as usize]), number)).collect()
}

fn filled() -> impl Iterator<Item = (String, Arc<Profile>)> {
    (0..KEYS as u64).map(|number| (key(number), Arc::new(Profile::new(number))))
}

/// What asks a cache for a key.
fn contender(
    name: &'static str,
    get: impl Fn(&str) -> Option<Arc<Profile>> + Send + Sync + 'static,
) -> Contender {
    let read = move |keys: &[Read]| {
        for (key, number) in keys {
            let found = get(black_box(key));
            assert_eq!(found.map(|profile| profile.number), Some(*number));
        }
    };
    Contender { name, read: Box::new(read), alone: Vec::new(), together: Vec::new() }
}

async fn contenders() -> anyhow::Result<Vec<Contender>> {
    let moka = moka::sync::Cache::builder()
        .max_capacity(CAPACITY as u64)
        .build_with_hasher(ahash::RandomState::new());
    let quick = quick_cache::sync::Cache::with(
        CAPACITY,
        CAPACITY as u64,
        quick_cache::UnitWeighter,
        ahash::RandomState::new(),
        quick_cache::sync::DefaultLifecycle::default(),
    );
    let foyer: foyer_memory::Cache<String, Arc<Profile>, ahash::RandomState> =
        foyer_memory::CacheBuilder::new(CAPACITY)
            .with_eviction_config(foyer_memory::S3FifoConfig::default())
            .with_hash_builder(ahash::RandomState::new())
            .build();
    let memory = Memory::entries(CAPACITY as u64);
    let build = |memory| Cache::builder("bench").memory(memory).build();
    let ours: Cache<String, Arc<Profile>> = build(memory)?;
    let ours_quick: Cache<String, Arc<Profile>> = build(memory.engine(Engine::QuickCache))?;
    for (key, profile) in filled() {
        moka.insert(key.clone(), Arc::clone(&profile));
        quick.insert(key.clone(), Arc::clone(&profile));
        foyer.insert(key.clone(), Arc::clone(&profile));
        ours.insert(key.clone(), Arc::clone(&profile)).await;
        ours_quick.insert(key, profile).await;
    }
    moka.run_pending_tasks();
    let cache = ours.clone();
    Ok(vec![
        contender("moka::sync, ahash", move |key| moka.get(key)),
        contender("quick_cache, ahash", move |key| quick.get(key)),
        contender("foyer, S3-FIFO, ahash", move |key| {
            foyer.get(key).map(|entry| Arc::clone(entry.value()))
        }),
        contender("escala get", move |key| cache.get(key).now_or_never().flatten()),
        contender("escala get_or_load", move |key| loaded(&ours, key)),
        contender("escala get_or_load, quick_cache", move |key| loaded(&ours_quick, key)),
    ])
}

fn loaded(cache: &Cache<String, Arc<Profile>>, key: &str) -> Option<Arc<Profile>> {
    // Wrong for every key, and the assertion says so.
    let load = async || Ok::<_, Infallible>(Arc::new(Profile::new(u64::MAX)));
    cache.get_or_load(key, load).now_or_never().and_then(Result::ok)
}
