//! `cargo bench -p escala-benches --bench cache_redis`: a hit in Redis, by a hundred tasks on one
//! connection, beside a bare client that pipelines the same.
//!
//! What a hit costs depends on whether the value then goes into memory, so there are two kinds of
//! rows. *Full*: memory has room for one entry, there are ten thousand keys, and a key comes back
//! only when the cache has long forgotten that it was asked for: memory is asked, misses, and does
//! not take the value in. *Into memory*: a fresh cache with room for all, of which each key is read
//! once: memory is asked, misses, and takes every value in. No two tasks share a key, so that no
//! lookup is spared by joining another one.
//!
//! The last column is the CPU time of this process for each key, without that of Redis: on a busy
//! machine it says more than the rate.
//!
//! Apart from the other tables of the cache: those count allocations by an allocator of their own,
//! and here every contender has the one that the servers in `examples` use.

#[path = "cache/profile.rs"]
mod profile;

use std::collections::HashMap;
use std::sync::Arc;
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

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TASKS: u64 = 100;
const KEYS: u64 = 10_000;
/// The lifetime of everything here, longer than any run.
const LIFE: Duration = Duration::from_secs(3_600);

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

type Reads = fn(Cache<String, Profile>, u64, u64) -> BoxFuture<'static, anyhow::Result<u64>>;

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
    let (mut contenders, caches) = contenders(&server.url()).await?;
    let (rounds, reads) = if measuring { (45, 200) } else { (1, 2) };
    for _ in 0..rounds {
        for contender in &mut contenders {
            let (rate, spent) = measure(contender, reads).await?;
            contender.rates.push(rate);
            contender.spent.push(spent);
        }
    }
    for cache in caches {
        let stats = cache.stats();
        let shared = stats.shared.context("there is a shared layer")?.hits;
        let (memory, declined) = (stats.memory.hits, stats.memory.declined);
        ensure!(memory < shared / 50, "{memory} hits in memory, {shared} in Redis");
        // A memory that has just begun does not know yet that it is full.
        let begun = shared < KEYS;
        ensure!(begun || declined > shared / 50 * 45, "{declined} of {shared} did not come in");
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
    async fn cache(&self) -> anyhow::Result<Cache<String, Profile>> {
        let cache = cache("moka", &self.store, Memory::entries(2 * KEYS).engine(self.engine))?;
        // From here on it listens, which is no part of a hit.
        ensure!(cache.get("nothing").await.is_none(), "there is something under nothing");
        Ok(cache)
    }

    fn round(&self, cache: &Cache<String, Profile>) -> Round {
        let (cache, reads) = (cache.clone(), self.reads);
        Arc::new(move |task, count| reads(cache.clone(), task, count))
    }
}

/// The contenders, and the caches whose hits they have to be.
async fn contenders(url: &str) -> anyhow::Result<(Vec<Contender>, [Cache<String, Profile>; 2])> {
    let bare = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut filling = bare.clone();
    for number in 0..KEYS {
        let () = filling.set(key(number), &Profile::new(number).text).await?;
    }
    // A busy machine must not turn a slow hit into a miss.
    let config = RedisConfig::new(url).operation_timeout(Duration::from_secs(10));
    let store = RedisStore::connect(config).await?;
    let moka = filled("moka", &store, Engine::Moka).await?;
    let quick = filled("quick", &store, Engine::QuickCache).await?;
    let getting = bare.clone();
    let mut contenders = vec![contender("redis-rs GET", TASKS, move |task, reads| {
        get(getting.clone(), task, reads).boxed()
    })];
    contenders.extend(full(["full: get", "full: get_or_load"], &moka));
    contenders.extend(full(["full: get, quick_cache", "... get_or_load, quick_cache"], &quick));
    contenders.push(fresh("into memory: get", &store, Engine::Moka, |cache, task, reads| {
        ours_get(cache, task, reads).boxed()
    }));
    contenders.push(fresh(
        "into memory: get_or_load",
        &store,
        Engine::Moka,
        |cache, task, reads| ours_load(cache, task, reads).boxed(),
    ));
    let name = "into memory: get, quick_cache";
    contenders.push(fresh(name, &store, Engine::QuickCache, |cache, task, reads| {
        ours_get(cache, task, reads).boxed()
    }));
    contenders.push(contender("redis-rs MGET of 100", 1, move |_, reads| {
        mget(bare.clone(), reads).boxed()
    }));
    let many = moka.clone();
    contenders.push(contender("full: get_or_load_many of 100", 1, move |_, reads| {
        ours_many(many.clone(), reads).boxed()
    }));
    Ok((contenders, [moka, quick]))
}

fn contender(
    name: &'static str,
    tasks: u64,
    round: impl Fn(u64, u64) -> BoxFuture<'static, anyhow::Result<u64>> + Send + Sync + 'static,
) -> Contender {
    let rounds = Rounds::Same(Arc::new(round));
    Contender { name, tasks, rounds, rates: Vec::new(), spent: Vec::new() }
}

fn full(names: [&'static str; 2], cache: &Cache<String, Profile>) -> [Contender; 2] {
    let [get, load] = names;
    let (getting, loading) = (cache.clone(), cache.clone());
    [
        contender(get, TASKS, move |task, reads| ours_get(getting.clone(), task, reads).boxed()),
        contender(load, TASKS, move |task, reads| ours_load(loading.clone(), task, reads).boxed()),
    ]
}

fn fresh(name: &'static str, store: &RedisStore, engine: Engine, reads: Reads) -> Contender {
    let rounds = Rounds::Fresh(Fresh { store: store.clone(), engine, reads });
    Contender { name, tasks: TASKS, rounds, rates: Vec::new(), spent: Vec::new() }
}

/// A cache with room for one entry, and every key in Redis.
async fn filled(
    name: &str,
    store: &RedisStore,
    engine: Engine,
) -> anyhow::Result<Cache<String, Profile>> {
    let cache = cache(name, store, Memory::entries(1).engine(engine))?;
    for number in 0..KEYS {
        cache.insert(key(number), Profile::new(number)).await;
    }
    Ok(cache)
}

fn cache(name: &str, store: &RedisStore, memory: Memory) -> anyhow::Result<Cache<String, Profile>> {
    let builder = Cache::builder(name).ttl(LIFE).shared_ttl(LIFE).memory(memory);
    Ok(builder.shared(store.clone()).build()?)
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

async fn ours_get(cache: Cache<String, Profile>, task: u64, reads: u64) -> anyhow::Result<u64> {
    for number in keys(task, reads) {
        let found = cache.get(&key(number)).await;
        ensure!(found.is_some_and(|profile| profile.number == number), "{number}");
    }
    Ok(reads)
}

async fn ours_load(cache: Cache<String, Profile>, task: u64, reads: u64) -> anyhow::Result<u64> {
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

async fn ours_many(cache: Cache<String, Profile>, reads: u64) -> anyhow::Result<u64> {
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
