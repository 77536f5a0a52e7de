//! The shared layer on a real Redis that is killed, frozen, restarted and filled with rubbish.

mod faults;
#[cfg(feature = "http")]
mod pages;
mod player;
mod races;
mod store;
mod subscription;
mod tenants;
mod topologies;
mod tracking;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use escala_cache::{
    Cache, ConnectError, Memory, Pattern, RedisConfig, RedisStore, SharedStore, When,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use testkit::{FaultProxy, Redis};
use tokio::time::{sleep, timeout};

use crate::support::{Source, builder};

fn config(url: impl Into<String>) -> RedisConfig {
    RedisConfig::new(url).namespace("test").pause(Duration::from_millis(100))
}

/// With wide limits: for what is about answers, not times.
fn patient(url: impl Into<String>) -> RedisConfig {
    let patience = Duration::from_secs(5);
    config(url).operation_timeout(patience).connect_timeout(patience)
}

/// A server with a store on it, for tests that are about answers, not times.
async fn healthy() -> (Redis, RedisStore) {
    let redis = Redis::start().await.unwrap();
    let store = RedisStore::connect(patient(redis.url())).await.unwrap();
    (redis, store)
}

async fn raw(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    // The driver's own limits are short for a machine that stands still.
    let config =
        redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// Values in the server, removed ones left out.
async fn values(raw: &mut MultiplexedConnection) -> usize {
    let keys: Vec<String> = raw.keys("*:k:*").await.unwrap();
    keys.len()
}

fn cache(store: &RedisStore) -> Cache<String, u64> {
    builder("quotes").shared(store.clone()).build().unwrap()
}

#[tokio::test]
async fn processes_share_values_under_an_escaped_name_with_a_lifetime() {
    let (redis, store) = healthy().await;
    cache(&store).insert("BTC:x".to_owned(), 7).await;
    assert_eq!(cache(&store).get("BTC:x").await, Some(7));
    let mut raw = raw(&redis).await;
    let mut keys: Vec<String> = raw.keys("*").await.unwrap();
    keys.sort();
    let names = ["test:2:quotes:c", "test:2:quotes:k:BTC:x", "test:sequence:2:quotes:m"];
    assert_eq!(keys, names, "control record, value, number of the last message");
    let left: i64 = raw.pttl(&keys[1]).await.unwrap();
    assert!((1..=60_000).contains(&left), "{left}");

    let other = RedisStore::connect(patient(redis.url()).namespace("te:st")).await.unwrap();
    assert_eq!(cache(&other).get("BTC:x").await, None, "another namespace");
    assert!(cache(&store).remove("BTC:x").await.is_complete());
    let left: Vec<u8> = raw.get(&keys[1]).await.unwrap();
    assert_eq!(left.len(), 80, "a tombstone, which keeps older loads out");
}

#[tokio::test]
async fn rubbish_in_redis_is_a_miss_and_is_replaced() {
    let (redis, store) = healthy().await;
    let mut raw = raw(&redis).await;
    cache(&store).insert("BTC".to_owned(), 7).await;
    let good: Vec<u8> = raw.get("test:2:quotes:k:BTC").await.unwrap();
    let mut corrupted = good.clone();
    *corrupted.last_mut().unwrap() ^= 1;
    let mut foreign = good.clone();
    foreign[4] += 1;
    let rubbish = [vec![], b"hello".to_vec(), corrupted, foreign, vec![0xff; 100_000]];
    for (value, bytes) in (8_u64..).zip(rubbish) {
        let () = raw.set("test:2:quotes:k:BTC", bytes).await.unwrap();
        let reader = cache(&store);
        assert_eq!(Source::new(value).read(&reader, "BTC").await, value);
        assert!(reader.remove("ETH").await.is_complete());
        while reader.stats().shared.unwrap().writes == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(cache(&store).get("BTC").await, Some(value));
    }
    // A key of another Redis type answers with an error, which is a miss as well.
    let () = raw.del("test:2:quotes:k:BTC").await.unwrap();
    let () = raw.lpush("test:2:quotes:k:BTC", "x").await.unwrap();
    assert_eq!(Source::new(20).read(&cache(&store), "BTC").await, 20);
    assert!(!store.stats().open);
}

#[tokio::test]
async fn a_pattern_removes_from_redis_what_it_removes_from_memory() {
    let (redis, store) = healthy().await;
    let cache = Cache::<String, u64>::builder("q[*]")
        .memory(Memory::entries(100_000))
        .shared(store.clone())
        .build()
        .unwrap();
    let neighbour = Cache::<String, u64>::builder("q*").shared(store.clone()).build().unwrap();
    neighbour.insert("user:42:1".to_owned(), 1).await;
    let inserts = (0..3_000_u64).map(|n| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.insert(format!("user:{}:{n}", n % 3), n).await })
    });
    for insert in inserts.collect::<Vec<_>>() {
        insert.await.unwrap();
    }
    let mut raw = raw(&redis).await;
    assert_eq!(values(&mut raw).await, 3_001);
    // More keys than one step of the scan or one UNLINK takes.
    assert!(cache.remove_matching("user:[12]:*").await.is_complete());
    assert_eq!(values(&mut raw).await, 1_001);
    assert_eq!(cache.stats().memory.entries, 1_000);
    assert!(cache.clear().await.is_complete());
    assert_eq!(cache.get("user:0:0").await, None);
    assert_eq!(neighbour.get("user:42:1").await, Some(1));
}

/// The store and our matcher, on patterns and keys full of what means something to either.
#[tokio::test]
async fn redis_and_memory_agree_on_every_pattern() {
    let (redis, store) = healthy().await;
    let mut raw = raw(&redis).await;
    let mut runner = TestRunner::deterministic();
    let keys = proptest::collection::hash_set(r"[abé*?\[\]\\^-]{0,5}", 20);
    let pattern = r"[abé*?\[\]\\^-]{0,8}";
    for _ in 0..300 {
        let keys = keys.new_tree(&mut runner).unwrap().current();
        let pattern = Pattern::new(&pattern.new_tree(&mut runner).unwrap().current());
        let () = raw.flushall().await.unwrap();
        for key in &keys {
            let (name, ttl) = (format!("p[*:{key}"), Some(Duration::from_secs(60)));
            assert!(store.set(&name, vec![1], ttl, When::Always).await.unwrap());
        }
        store.remove_matching("p[*:", &pattern).await.unwrap();
        for key in &keys {
            let kept = store.get_many(&[format!("p[*:{key}")]).await.unwrap()[0].is_some();
            assert_eq!(kept, !pattern.matches(key), "{pattern:?} on {key:?}");
        }
    }
}

/// Readers that never stop while something is done to Redis; counts what they were refused.
struct Traffic {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    fn start(store: &RedisStore) -> Self {
        let cache = Cache::<String, u64>::builder("traffic")
            // Short lives in memory, so that most reads ask Redis.
            .memory(Memory::entries(100).ttl(Duration::from_millis(1)))
            .shared(store.clone())
            .build()
            .unwrap();
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let readers = (0..8_u64).map(|reader| {
            let (cache, stop, served) = (cache.clone(), Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                for n in (0..).take_while(|_| !stop.load(Ordering::SeqCst)) {
                    let value = n % 10;
                    let load = async move || Ok::<_, std::convert::Infallible>(value);
                    let key = value.to_string();
                    let read = cache.get_or_load(key.as_str(), load);
                    let read = timeout(Duration::from_secs(20), read).await;
                    assert_eq!(read.expect("no read hangs").unwrap(), value);
                    if reader == 0 {
                        cache.remove(key.as_str()).await;
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                    sleep(Duration::from_millis(1)).await;
                }
            })
        });
        let readers = readers.collect();
        Self { stop, served, readers }
    }

    /// Waits until each reader has been served many more times.
    async fn flows(&self) {
        let goal = self.served.load(Ordering::SeqCst) + 200;
        while self.served.load(Ordering::SeqCst) < goal {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for reader in self.readers {
            reader.await.expect("no reader was refused");
        }
    }
}

async fn until_open(store: &RedisStore, open: bool) {
    while store.stats().open != open {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn until_used(store: &RedisStore) {
    let goal = store.stats().succeeded + 100;
    while store.stats().succeeded < goal {
        sleep(Duration::from_millis(5)).await;
    }
}

fn add_up(store: &RedisStore) {
    let stats = store.stats();
    let ended = stats.succeeded + stats.failed + stats.timed_out + stats.cancelled;
    assert_eq!(stats.operations, ended + stats.in_flight);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_frozen_killed_and_restarted_fails_no_request() {
    let redis = Redis::start().await.unwrap();
    let store = RedisStore::connect(config(redis.url())).await.unwrap();
    let traffic = Traffic::start(&store);
    traffic.flows().await;

    redis.freeze().unwrap();
    until_open(&store, true).await;
    traffic.flows().await;
    assert!(store.stats().timed_out >= 5);
    redis.thaw().unwrap();
    until_used(&store).await;

    redis.kill().unwrap();
    until_open(&store, true).await;
    traffic.flows().await;
    redis.restart().await.unwrap();
    until_used(&store).await;

    traffic.flows().await;
    traffic.end().await;
    add_up(&store);
    // The cache's heartbeat may be under way for a moment.
    while store.stats().in_flight > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_to_redis_that_is_cut_or_swallows_everything_fails_no_request() {
    let redis = Redis::start().await.unwrap();
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let url = format!("redis://{}", proxy.addr());
    let store = RedisStore::connect(config(url)).await.unwrap();
    let traffic = Traffic::start(&store);
    traffic.flows().await;

    proxy.cut();
    until_open(&store, true).await;
    traffic.flows().await;
    proxy.heal();
    until_used(&store).await;

    proxy.blackhole(true);
    until_open(&store, true).await;
    traffic.flows().await;
    proxy.heal();
    until_used(&store).await;

    traffic.end().await;
    add_up(&store);
}

#[tokio::test]
async fn a_removal_while_redis_is_frozen_is_not_undone_when_it_is_back() {
    let redis = Redis::start().await.unwrap();
    let store = RedisStore::connect(config(redis.url())).await.unwrap();
    let cache = cache(&store);
    cache.insert("BTC".to_owned(), 1).await;
    redis.freeze().unwrap();
    assert!(!cache.remove("BTC").await.is_complete());
    assert_eq!(cache.get("BTC").await, None);
    redis.thaw().unwrap();
    let before = cache.stats().shared.unwrap();
    // Until Redis is asked and answers again.
    loop {
        assert_eq!(cache.get("BTC").await, None);
        let now = cache.stats().shared.unwrap();
        let unanswered = now.faults + now.suspended - before.faults - before.suspended;
        if now.misses - before.misses > unanswered {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_first_contact_that_fails_is_told() {
    let redis = Redis::start().await.unwrap();
    redis.kill().unwrap();
    let config = config(redis.url()).connect_timeout(Duration::from_millis(500));
    let refused = RedisStore::connect(config.clone()).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable(_) | ConnectError::TimedOut)));
    let invalid = RedisStore::connect(config.failures(0)).await;
    let Err(ConnectError::Config(error)) = invalid else { panic!("not refused") };
    assert_eq!(error.field, "failures");
}

#[tokio::test]
async fn an_operation_whose_caller_goes_away_is_counted() {
    let redis = Redis::start().await.unwrap();
    let config = config(redis.url()).operation_timeout(Duration::from_secs(60));
    let store = RedisStore::connect(config).await.unwrap();
    redis.freeze().unwrap();
    let caller = tokio::spawn({
        let store = store.clone();
        async move { store.get_many(&["k".to_owned()]).await }
    });
    while store.stats().in_flight == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    let stats = store.stats();
    assert_eq!((stats.cancelled, stats.in_flight), (1, 0));
    add_up(&store);
    redis.thaw().unwrap();
}
