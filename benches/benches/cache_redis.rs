//! `cargo bench -p escala-benches --bench cache_redis`: a hit in Redis, by a hundred tasks on one
//! connection, beside a bare client that pipelines the same.
//!
//! The layer in memory is defeated by a capacity of one entry and ten thousand keys: it is asked,
//! misses, and is filled, as on any hit in Redis. No two tasks share a key, so that no lookup is
//! spared by joining another one.
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

struct Contender {
    name: &'static str,
    tasks: u64,
    round: Round,
    rates: Vec<f64>,
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
    let (rounds, reads) = if measuring { (15, 200) } else { (1, 2) };
    for _ in 0..rounds {
        for contender in &mut contenders {
            contender.rates.push(rate(contender, reads).await?);
        }
    }
    for cache in caches {
        let stats = cache.stats();
        let shared = stats.shared.context("there is a shared layer")?.hits;
        let memory = stats.memory.hits;
        ensure!(memory < shared / 50, "{memory} hits in memory, {shared} in Redis");
    }
    title("Redis hit, one connection, values of 300 bytes: keys per second");
    row("", &["keys/s", "ratio"].map(ToOwned::to_owned));
    let mut first = f64::NAN;
    for Contender { name, tasks, rates, .. } in &contenders {
        let rate = median(rates);
        // Each group begins with the bare client.
        if name.starts_with("redis-rs") {
            first = rate;
        }
        let name = if *tasks > 1 { format!("{name}, {tasks} tasks") } else { (*name).to_owned() };
        row(&name, &[format!("{rate:.0}"), format!("{:.2}", rate / first)]);
    }
    Ok(())
}

async fn rate(contender: &Contender, reads: u64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let tasks = (0..contender.tasks).map(|task| tokio::spawn((contender.round)(task, reads)));
    let mut keys = 0;
    for read in try_join_all(tasks).await? {
        keys += read?;
    }
    Ok(keys as f64 / begun.elapsed().as_secs_f64())
}

/// The contenders, and the caches whose hits they have to be.
async fn contenders(url: &str) -> anyhow::Result<(Vec<Contender>, [Cache<String, Profile>; 2])> {
    let bare = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut filling = bare.clone();
    for number in 0..KEYS {
        let () = filling.set(key(number), &Profile::new(number).text).await?;
    }
    let moka = filled("moka", url, Engine::Moka).await?;
    let quick = filled("quick", url, Engine::QuickCache).await?;
    let getting = bare.clone();
    let mut contenders = vec![contender("redis-rs GET", TASKS, move |task, reads| {
        get(getting.clone(), task, reads).boxed()
    })];
    contenders.extend(ours(["escala get", "escala get_or_load"], &moka));
    contenders.extend(ours(["escala get, quick_cache", "... get_or_load, quick_cache"], &quick));
    contenders.push(contender("redis-rs MGET of 100", 1, move |_, reads| {
        mget(bare.clone(), reads).boxed()
    }));
    let many = moka.clone();
    contenders.push(contender("escala get_or_load_many of 100", 1, move |_, reads| {
        ours_many(many.clone(), reads).boxed()
    }));
    Ok((contenders, [moka, quick]))
}

fn contender(
    name: &'static str,
    tasks: u64,
    round: impl Fn(u64, u64) -> BoxFuture<'static, anyhow::Result<u64>> + Send + Sync + 'static,
) -> Contender {
    Contender { name, tasks, round: Arc::new(round), rates: Vec::new() }
}

fn ours(names: [&'static str; 2], cache: &Cache<String, Profile>) -> [Contender; 2] {
    let [get, load] = names;
    let (getting, loading) = (cache.clone(), cache.clone());
    [
        contender(get, TASKS, move |task, reads| ours_get(getting.clone(), task, reads).boxed()),
        contender(load, TASKS, move |task, reads| ours_load(loading.clone(), task, reads).boxed()),
    ]
}

/// A cache with every key in Redis.
async fn filled(name: &str, url: &str, engine: Engine) -> anyhow::Result<Cache<String, Profile>> {
    // A busy machine must not turn a slow hit into a miss.
    let config = RedisConfig::new(url).operation_timeout(Duration::from_secs(10));
    let store = RedisStore::connect(config).await?;
    let cache = Cache::builder(name)
        .ttl(LIFE)
        .shared_ttl(LIFE)
        .memory(Memory::entries(1).engine(engine))
        .shared(store)
        .build()?;
    for number in 0..KEYS {
        cache.insert(key(number), Profile::new(number)).await;
    }
    Ok(cache)
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
