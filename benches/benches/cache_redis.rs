//! `cargo bench -p escala-benches --bench cache_redis`: a hit in Redis, by a hundred tasks on one
//! connection, beside a bare client that pipelines the same.
//!
//! What a hit costs depends on whether the value then goes into memory, so there are three kinds of
//! rows. *Full*: memory has its default size, a thousand entries, all of them other keys; the ten
//! thousand are read in turn, so a key comes back when the cache has forgotten that it was asked
//! for: memory is asked, misses, and does not take the value in. *Into memory*: a fresh cache with
//! room for all, of which each key is read once: memory is asked, misses, and takes every value in.
//! *Zipf*: what a user may expect of both together, and of memory; here hits in memory count as
//! well. But for it no two tasks share a key, so that no lookup is spared by joining another one.
//!
//! The last column is the CPU time of this process for each key, without that of Redis: on a busy
//! machine it says more than the rate.
//!
//! Apart from the other tables of the cache: those count allocations by an allocator of their own,
//! and here every contender has the one that the servers in `examples` use.

#[path = "cache/profile.rs"]
mod profile;
#[path = "cache/trace.rs"]
#[expect(dead_code, reason = "the traces of the hit ratio table are not run here")]
mod trace;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use escala_benches::table::{median, row, title};
use escala_cache::{Cache, Engine, Memory, RedisConfig, RedisStore};
use futures_util::future::{BoxFuture, FutureExt as _, try_join_all};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Builder;
use tokio::time::Instant;

use crate::profile::{Profile, key};
use crate::trace::Zipf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TASKS: u64 = 100;
const KEYS: u64 = 10_000;
/// Reads of the Zipf row before they begin again.
const DRAWS: usize = 1_000_000;
/// The lifetime of everything here, longer than any run.
const LIFE: Duration = Duration::from_secs(3_600);

type Profiles = Cache<String, Profile>;

/// Reads the keys of one task, the n-th of every hundred, in one round; says how many.
type Round = Arc<dyn Fn(u64, u64) -> BoxFuture<'static, anyhow::Result<u64>> + Send + Sync>;

/// Where a round comes from.
enum Rounds {
    /// All alike.
    Same(Round),
    /// Each on a cache of its own, which has read nothing.
    Fresh(Fresh),
}

/// Makes caches with room for every key.
struct Fresh {
    store: RedisStore,
    engine: Engine,
    reads: Reads,
}

type Reads = fn(Profiles, u64, u64) -> BoxFuture<'static, anyhow::Result<u64>>;

struct Contender {
    name: &'static str,
    tasks: u64,
    rounds: Rounds,
    rates: Vec<f64>,
    /// Microseconds of this process for each key.
    spent: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    // `cargo bench` says so; anything else (`cargo test --benches`) only sees whether it works.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(compare(measuring))
}

async fn compare(measuring: bool) -> anyhow::Result<()> {
    let server = testkit::Redis::start().await?;
    let (mut contenders, full, zipf) = contenders(&server.url()).await?;
    let (rounds, reads) = if measuring { (45, 200) } else { (1, 2) };
    for round in 0..rounds {
        // Another begins each time: what one leaves behind is not always the same one's burden.
        for turn in 0..contenders.len() {
            let place = (turn + round) % contenders.len();
            let contender = &mut contenders[place];
            let (rate, spent) = measure(contender, reads).await?;
            contender.rates.push(rate);
            contender.spent.push(spent);
        }
    }
    // Of the few keys of a trial none is forgotten between the contenders.
    for cache in full.iter().filter(|_| measuring) {
        let stats = cache.stats();
        let shared = stats.shared.context("there is a shared layer")?.hits;
        let (memory, declined) = (stats.memory.hits, stats.memory.declined);
        ensure!(memory < shared / 50, "{memory} hits in memory, {shared} in Redis");
        ensure!(declined > shared / 50 * 49, "{declined} of {shared} did not come in");
    }
    title("Redis hit, one connection, values of 300 bytes: keys per second");
    row("", &["keys/s", "ratio", "CPU us/key"].map(ToOwned::to_owned));
    let mut first = &[][..];
    for Contender { name, tasks, rates, spent, .. } in &contenders {
        // Each group begins with the bare client.
        if name.starts_with("redis-rs") {
            first = rates;
        }
        // Of each round by itself: the machine has faster and slower times, longer than a round.
        let ratios: Vec<_> = rates.iter().zip(first).map(|(rate, first)| rate / first).collect();
        let name = if *tasks > 1 { format!("{name}, {tasks} tasks") } else { (*name).to_owned() };
        let [rate, ratio, spent] = [rates, &ratios, spent].map(|all| median(all));
        row(&name, &[format!("{rate:.0}"), format!("{ratio:.2}"), format!("{spent:.2}")]);
    }
    explain_zipf(&zipf)
}

/// What the reads of the Zipf row came to.
fn explain_zipf(cache: &Profiles) -> anyhow::Result<()> {
    let stats = cache.stats();
    let (memory, shared) = (stats.memory, stats.shared.context("there is a shared layer")?);
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole as f64;
    let hits = percent(memory.hits, memory.hits + memory.misses);
    let came_in = percent(shared.hits - memory.declined, shared.hits);
    title(&format!(
        "Zipf: {hits:.0} % of the reads were hits in memory, {came_in:.0} % of the hits in Redis came in"
    ));
    Ok(())
}

/// Keys a second, and microseconds of this process for each.
async fn measure(contender: &Contender, reads: u64) -> anyhow::Result<(f64, f64)> {
    let (round, reads, fresh) = match &contender.rounds {
        Rounds::Same(round) => (Arc::clone(round), reads, None),
        Rounds::Fresh(fresh) => {
            let cache = fresh.cache().await?;
            // Each key once.
            (fresh.round(&cache), reads.min(KEYS / TASKS), Some(cache))
        }
    };
    let (before, begun) = (time_on_cpu(), Instant::now());
    let tasks = (0..contender.tasks).map(|task| tokio::spawn(round(task, reads)));
    let mut keys = 0;
    for read in try_join_all(tasks).await? {
        keys += read?;
    }
    let (took, spent) = (begun.elapsed(), time_on_cpu().saturating_sub(before));
    if let Some(cache) = fresh {
        let entries = cache.stats().memory.entries;
        ensure!(entries == keys, "{entries} of {keys} came in");
    }
    Ok((keys as f64 / took.as_secs_f64(), spent.as_secs_f64() * 1e6 / keys as f64))
}

/// What all threads of this process have had of the CPU.
fn time_on_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned() as u32)
}

impl Fresh {
    async fn cache(&self) -> anyhow::Result<Profiles> {
        let cache = cache("moka", &self.store, Memory::entries(2 * KEYS).engine(self.engine))?;
        // From here on it listens, which is no part of a hit.
        ensure!(cache.get("nothing").await.is_none(), "there is something under nothing");
        Ok(cache)
    }

    fn round(&self, cache: &Profiles) -> Round {
        let (cache, reads) = (cache.clone(), self.reads);
        Arc::new(move |task, count| reads(cache.clone(), task, count))
    }
}

/// The contenders, the caches whose reads have to be hits in Redis, and that of the Zipf row.
async fn contenders(url: &str) -> anyhow::Result<(Vec<Contender>, [Profiles; 2], Profiles)> {
    let bare = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut filling = bare.clone();
    for number in 0..KEYS {
        let () = filling.set(key(number), &Profile::new(number).text).await?;
    }
    // A busy machine must not turn a slow hit into a miss.
    let config = RedisConfig::new(url).operation_timeout(Duration::from_secs(10));
    let store = RedisStore::connect(config).await?;
    let moka = full("moka", &store, Engine::Moka).await?;
    let quick = full("quick", &store, Engine::QuickCache).await?;
    let zipf = full("zipf", &store, Engine::Moka).await?;
    let getting = bare.clone();
    let mut contenders = vec![contender("redis-rs GET", TASKS, move |task, reads| {
        get(getting.clone(), task, reads).boxed()
    })];
    contenders.extend(in_turn(["full: get", "full: get_or_load"], &moka));
    contenders.extend(in_turn(["full: get, quick_cache", "... get_or_load, quick_cache"], &quick));
    contenders.push(fresh("into memory: get", &store, Engine::Moka, |cache, task, reads| {
        ours_get(cache, keys(task, reads)).boxed()
    }));
    contenders.push(fresh(
        "into memory: get_or_load",
        &store,
        Engine::Moka,
        |cache, task, reads| ours_load(cache, task, reads).boxed(),
    ));
    let name = "into memory: get, quick_cache";
    contenders.push(fresh(name, &store, Engine::QuickCache, |cache, task, reads| {
        ours_get(cache, keys(task, reads)).boxed()
    }));
    let (cache, draws) = (zipf.clone(), Draws::default());
    contenders.push(contender("Zipf 1.0: get, all reads", TASKS, move |_, reads| {
        let draws = draws.clone();
        let numbers = std::iter::repeat_with(move || draws.next()).take(reads as usize);
        ours_get(cache.clone(), numbers).boxed()
    }));
    contenders.push(contender("redis-rs MGET of 100", 1, move |_, reads| {
        mget(bare.clone(), reads).boxed()
    }));
    let many = moka.clone();
    contenders.push(contender("full: get_or_load_many of 100", 1, move |_, reads| {
        ours_many(many.clone(), reads).boxed()
    }));
    Ok((contenders, [moka, quick], zipf))
}

fn contender(
    name: &'static str,
    tasks: u64,
    round: impl Fn(u64, u64) -> BoxFuture<'static, anyhow::Result<u64>> + Send + Sync + 'static,
) -> Contender {
    let rounds = Rounds::Same(Arc::new(round));
    Contender { name, tasks, rounds, rates: Vec::new(), spent: Vec::new() }
}

fn in_turn(names: [&'static str; 2], cache: &Profiles) -> [Contender; 2] {
    let [get, load] = names;
    let (getting, loading) = (cache.clone(), cache.clone());
    [
        contender(get, TASKS, move |task, reads| {
            ours_get(getting.clone(), keys(task, reads)).boxed()
        }),
        contender(load, TASKS, move |task, reads| ours_load(loading.clone(), task, reads).boxed()),
    ]
}

fn fresh(name: &'static str, store: &RedisStore, engine: Engine, reads: Reads) -> Contender {
    let rounds = Rounds::Fresh(Fresh { store: store.clone(), engine, reads });
    Contender { name, tasks: TASKS, rounds, rates: Vec::new(), spent: Vec::new() }
}

/// A cache of the default size that is full of other keys, and every key in Redis.
async fn full(name: &str, store: &RedisStore, engine: Engine) -> anyhow::Result<Profiles> {
    let memory = Memory::default().engine(engine);
    let writer = cache(name, store, memory)?;
    for number in 0..KEYS {
        writer.insert(key(number), Profile::new(number)).await;
    }
    let reader = cache(name, store, memory)?;
    for number in 0..3 * memory.capacity {
        reader.insert(format!("own:{number}"), Profile::new(number)).await;
    }
    // The engine has looked at what came in, and knows that it is full.
    let entries = reader.stats().memory.entries;
    ensure!(entries + 10 > memory.capacity, "{entries} of {} entries", memory.capacity);
    Ok(reader)
}

fn cache(name: &str, store: &RedisStore, memory: Memory) -> anyhow::Result<Profiles> {
    let builder = Cache::builder(name).ttl(LIFE).shared_ttl(LIFE).memory(memory);
    Ok(builder.shared(store.clone()).build()?)
}

/// Numbers in proportion to their popularity, the same in every run.
#[derive(Clone)]
struct Draws {
    numbers: Arc<[u64]>,
    next: Arc<AtomicUsize>,
}

impl Default for Draws {
    fn default() -> Self {
        let (zipf, mut chance) = (Zipf::new(KEYS as usize, 1.0), fastrand::Rng::with_seed(1));
        let numbers = (0..DRAWS).map(|_| zipf.draw(&mut chance)).collect();
        Self { numbers, next: Arc::default() }
    }
}

impl Draws {
    fn next(&self) -> u64 {
        self.numbers[self.next.fetch_add(1, Ordering::Relaxed) % DRAWS]
    }
}

/// The keys of a task: all that are its number modulo the number of tasks, over and over.
fn keys(task: u64, reads: u64) -> impl Iterator<Item = u64> {
    (0..reads).map(move |read| (task + TASKS * read) % KEYS)
}

async fn get(mut connection: MultiplexedConnection, task: u64, reads: u64) -> anyhow::Result<u64> {
    for number in keys(task, reads) {
        let text: Vec<u8> = connection.get(key(number)).await?;
        ensure!(text.ends_with(number.to_string().as_bytes()), "{number}");
    }
    Ok(reads)
}

async fn ours_get(cache: Profiles, numbers: impl Iterator<Item = u64>) -> anyhow::Result<u64> {
    let mut reads = 0;
    for number in numbers {
        let found = cache.get(&key(number)).await;
        ensure!(found.is_some_and(|profile| profile.number == number), "{number}");
        reads += 1;
    }
    Ok(reads)
}

async fn ours_load(cache: Profiles, task: u64, reads: u64) -> anyhow::Result<u64> {
    for number in keys(task, reads) {
        let load = async || Err::<Profile, _>(std::fmt::Error);
        let found = cache.get_or_load(&key(number), load).await?;
        ensure!(found.number == number, "{number}");
    }
    Ok(reads)
}

/// The keys of a batch of one hundred.
fn batch(number: u64) -> impl Iterator<Item = u64> + Clone {
    (0..100).map(move |n| (number * 100 + n) % KEYS)
}

async fn mget(mut connection: MultiplexedConnection, reads: u64) -> anyhow::Result<u64> {
    for numbers in (0..reads).map(batch) {
        let names: Vec<_> = numbers.clone().map(key).collect();
        let texts: Vec<Vec<u8>> = connection.mget(names).await?;
        ensure!(texts.len() == 100, "{} of 100", texts.len());
        for (number, text) in numbers.zip(texts) {
            ensure!(text.ends_with(number.to_string().as_bytes()), "{number}");
        }
    }
    Ok(reads * 100)
}

async fn ours_many(cache: Profiles, reads: u64) -> anyhow::Result<u64> {
    for numbers in (0..reads).map(batch) {
        let names: Vec<_> = numbers.clone().map(key).collect();
        let load = async |missing: Vec<String>| {
            let none: HashMap<String, Profile> = HashMap::new();
            if missing.is_empty() { Ok(none) } else { Err(std::fmt::Error) }
        };
        let found = cache.get_or_load_many(&names, load).await?;
        for (number, name) in numbers.zip(&names) {
            ensure!(found.get(name).is_some_and(|found| found.number == number), "{number}");
        }
    }
    Ok(reads * 100)
}
