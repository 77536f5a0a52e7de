//! Whatever is done to Redis under steady traffic of readers and removers in two processes (played
//! by two caches with connections of their own): no request fails or hangs, no process serves
//! what it has removed itself, and none what another has removed once the bound after the fault
//! is over.

use std::time::Duration;

use escala_cache::Tidings;
use redis::AsyncCommands;
use testkit::{PubSubFaults, PubSubProxy, Redis};
use tokio::time::{Instant, sleep};

use super::raw;
use super::traffic::{BOUND, KEYS, NAME, World};

async fn started() -> (Redis, std::sync::Arc<World>) {
    let redis = Redis::start().await.unwrap();
    let world = World::start([redis.url(), redis.url()], Tidings::Messages).await;
    (redis, world)
}

fn percentiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied();
    format!("{} hits, p50 {:?}, p99 {:?}", latencies.len(), at(0.5), at(0.99))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_stopped_for_five_seconds_fails_nobody_and_resurrects_nothing() {
    let (redis, world) = started().await;
    sleep(Duration::from_secs(1)).await;
    let (before, loads) = (world.take_hits(), world.hot_loads());
    world.fault();
    redis.freeze().unwrap();
    sleep(Duration::from_secs(5)).await;
    let during = world.take_hits();
    redis.thaw().unwrap();
    world.well();
    println!("before: {}", percentiles(before));
    println!("while Redis stood still: {}", percentiles(during.clone()));
    assert!(during.len() >= 100, "{} hits in memory", during.len());
    assert_eq!(world.hot_loads(), loads, "not one of them needed the source");
    println!("restored after {:?}", world.restored().await);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_empty_fails_nobody_and_resurrects_nothing() {
    let (redis, world) = started().await;
    world.fault();
    redis.kill().unwrap();
    world.flows().await;
    sleep(Duration::from_secs(2)).await;
    redis.restart().await.unwrap();
    world.well();
    println!("restored after {:?}", world.restored().await);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_flushed_again_and_again_fails_nobody_and_resurrects_nothing() {
    let (redis, world) = started().await;
    world.fault();
    for _ in 0..10 {
        assert_eq!(redis.cli(&["FLUSHALL"]).await.unwrap(), "OK\n");
        sleep(Duration::from_millis(150)).await;
    }
    world.well();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_again_and_again_fail_nobody_and_resurrect_nothing() {
    let (redis, world) = started().await;
    world.fault();
    for kind in ["pubsub", "pubsub", "normal", "pubsub", "normal", "normal"] {
        redis.cli(&["CLIENT", "KILL", "TYPE", kind]).await.unwrap();
        sleep(Duration::from_millis(250)).await;
    }
    world.well();
    println!("restored after {:?}", world.restored().await);
    world.end().await;
}

/// With the store's own word for each change, as well as messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tracking_connections_that_are_killed_and_data_that_is_lost_harm_nobody_either() {
    let redis = Redis::start().await.unwrap();
    let world = World::start([redis.url(), redis.url()], Tidings::Tracking).await;
    world.fault();
    for kind in ["pubsub", "normal", "pubsub", "normal"] {
        redis.cli(&["CLIENT", "KILL", "TYPE", kind]).await.unwrap();
        sleep(Duration::from_millis(100)).await;
        redis.cli(&["FLUSHALL"]).await.unwrap();
        sleep(Duration::from_millis(200)).await;
    }
    world.well();
    world.end().await;
}

/// The bound holds all the time: losing messages is what it is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_lost_repeated_or_swapped_are_made_up_for_within_the_bound() {
    let redis = Redis::start().await.unwrap();
    let all = [(0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.3), (0.1, 0.1, 0.1)];
    let faults = all.map(|(lose, repeat, swap)| PubSubFaults { lose, repeat, swap });
    let one = PubSubProxy::start(redis.addr(), 1, faults[0]).await.unwrap();
    let other = PubSubProxy::start(redis.addr(), 2, faults[0]).await.unwrap();
    let urls = [&one, &other].map(|way| format!("redis://{}", way.addr()));
    let world = World::start(urls, Tidings::Messages).await;
    for faults in faults {
        one.set(faults);
        other.set(faults);
        sleep(BOUND).await;
    }
    world.end().await;
    for way in [&one, &other] {
        assert!(way.lost() > 0 && way.repeated() > 0 && way.swapped() > 0, "{way:?}");
    }
}

/// Changes one byte of a frame, in one step, as a fault of a memory or a disk would.
const GARBLE: &str = "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SETRANGE', KEYS[1], ARGV[1], ARGV[2])
return 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_garbled_or_of_another_version_are_misses_and_nothing_worse() {
    let (redis, world) = started().await;
    let mut raw = raw(&redis).await;
    let mut chance = fastrand::Rng::with_seed(1);
    let mut garbled = 0;
    let begun = Instant::now();
    while begun.elapsed() < 2 * BOUND {
        let key = KEYS[chance.usize(..KEYS.len())];
        // An older version, a newer one, or anything anywhere.
        let (at, byte) = match chance.u8(..4) {
            0 => (4, 1),
            1 => (4, 3),
            _ => (chance.usize(..81), chance.u8(..)),
        };
        let mut garble = redis::cmd("EVAL");
        garble.arg(GARBLE).arg(1).arg(format!("test:2:{NAME}:k:{key}")).arg(at).arg(&[byte][..]);
        garbled += garble.query_async::<u64>(&mut raw).await.unwrap();
        // What processes of another version have under their own names is none of ours.
        for version in [1, 3] {
            let () = raw.set(format!("test:{version}:{NAME}:k:{key}"), "theirs").await.unwrap();
        }
        sleep(Duration::from_millis(2)).await;
    }
    assert!(garbled > 50, "{garbled}");
    assert!(world.rejected() > 0);
    world.end().await;
    let theirs: Vec<String> = raw.keys(format!("test:[13]:{NAME}:k:*")).await.unwrap();
    assert_eq!(theirs.len(), 2 * KEYS.len());
}
