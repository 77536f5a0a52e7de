//! Each operation of the store, alone and against itself.

use std::collections::HashSet;
use std::time::Duration;

use escala_cache::{Pattern, RedisStore, SharedStore, Signal, StoreError, When};
use redis::AsyncCommands;
use testkit::{FaultProxy, Redis};

use super::{config, healthy, patient, raw};

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

async fn value(store: &RedisStore, key: &str) -> Option<Vec<u8>> {
    store.get_many(&[key.to_owned()]).await.unwrap().remove(0)
}

fn starts(bytes: &[u8]) -> When {
    When::StartsWith(bytes.to_vec())
}

#[tokio::test]
async fn many_keys_are_one_question_in_their_order() {
    let (redis, store) = healthy().await;
    for key in ["a", "c"] {
        assert!(store.set(key, key.as_bytes().to_vec(), MINUTE, When::Always).await.unwrap());
    }
    let before = store.stats().operations;
    let keys = ["c", "b", "a", "c"].map(str::to_owned);
    let found = store.get_many(&keys).await.unwrap();
    assert_eq!(found, [Some(b"c".to_vec()), None, Some(b"a".to_vec()), Some(b"c".to_vec())]);
    assert_eq!(store.stats().operations, before + 1);
    assert_eq!(store.get_many(&[]).await.unwrap(), Vec::<Option<Vec<u8>>>::new());
    let stats = redis.cli(&["INFO", "commandstats"]).await.unwrap();
    assert!(stats.contains("cmdstat_mget:calls=1,"), "{stats}");
}

#[tokio::test]
async fn a_lifetime_is_kept_and_none_is_for_good() {
    let (redis, store) = healthy().await;
    let mut raw = raw(&redis).await;
    for when in [When::Always, When::Absent, starts(b"v")] {
        let stands = matches!(when, When::StartsWith(_));
        for (ttl, left) in [(MINUTE, 1..=60_000), (None, -1..=-1), (Some(Duration::ZERO), -2..=1)] {
            let () = raw.del("test:k").await.unwrap();
            if stands {
                let () = raw.set("test:k", "value").await.unwrap();
            }
            assert!(store.set("k", b"v".to_vec(), ttl, when.clone()).await.unwrap());
            let now: i64 = raw.pttl("test:k").await.unwrap();
            assert!(left.contains(&now), "{when:?} {ttl:?}: {now}");
        }
    }
    assert!(store.set("k", b"v".to_vec(), Some(Duration::MAX), When::Always).await.unwrap());
}

#[tokio::test]
async fn a_condition_holds_or_nothing_is_written() {
    let (_redis, store) = healthy().await;
    let set = async |value: &str, when| {
        store.set("k", value.as_bytes().to_vec(), MINUTE, when).await.unwrap()
    };
    assert!(!set("1", starts(b"")).await, "nothing stands there");
    assert!(set("2-two", When::Absent).await);
    assert!(!set("3", When::Absent).await);
    assert!(!set("4", starts(b"2-two and more")).await);
    assert!(!set("5", starts(b"two")).await);
    assert_eq!(value(&store, "k").await.unwrap(), b"2-two");
    assert!(set("6\r\n\0six", starts(b"2-")).await);
    assert!(set("7", starts(b"6\r\n\0")).await);
    assert!(set("8", starts(b"")).await);
    assert!(set("9", When::Always).await);
    assert_eq!(value(&store, "k").await.unwrap(), b"9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_write_under_a_condition_one_wins() {
    let (redis, one) = healthy().await;
    let settings = patient(redis.url());
    let other = RedisStore::connect(settings).await.unwrap();
    for round in 0..50_u8 {
        let conditions = if round == 0 { When::Absent } else { starts(&[round - 1]) };
        let writers = (0..8_u8).map(|writer| {
            let store = if writer % 2 == 0 { one.clone() } else { other.clone() };
            let when = conditions.clone();
            tokio::spawn(async move { store.set("k", vec![round, writer], MINUTE, when).await })
        });
        let mut winners = Vec::new();
        for (writer, written) in (0..).zip(writers.collect::<Vec<_>>()) {
            if written.await.unwrap().unwrap() {
                winners.push(writer);
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(value(&one, "k").await.unwrap(), [round, winners[0]]);
    }
}

#[tokio::test]
async fn scripts_that_redis_has_forgotten_are_told_again() {
    let (redis, store) = healthy().await;
    for round in 1..=3_u64 {
        assert_eq!(redis.cli(&["SCRIPT", "FLUSH"]).await.unwrap(), "OK\n");
        assert_eq!(store.publish("c", vec![1]).await.unwrap(), round);
        store.set("k", b"a".to_vec(), None, When::Always).await.unwrap();
        assert!(store.set("k", b"b".to_vec(), None, starts(b"a")).await.unwrap());
    }
    assert_eq!(redis.cli(&["SCRIPT", "KILL"]).await.unwrap().get(..7), Some("NOTBUSY"));
}

#[tokio::test]
async fn thousands_of_keys_are_removed_in_chunks() {
    let (redis, store) = healthy().await;
    let mut raw = raw(&redis).await;
    let keys: Vec<String> = (0..1_234).map(|n| format!("k{n}")).collect();
    let mut fill = redis::pipe();
    for key in &keys {
        fill.set(format!("test:{key}"), 1).ignore();
    }
    let () = fill.query_async(&mut raw).await.unwrap();
    let () = raw.set("other:k1", 1).await.unwrap();
    store.remove(&keys).await.unwrap();
    store.remove(&[]).await.unwrap();
    let left: HashSet<String> = raw.keys("*").await.unwrap();
    assert_eq!(left, HashSet::from(["other:k1".to_owned()]));
    let stats = redis.cli(&["INFO", "commandstats"]).await.unwrap();
    assert!(stats.contains("cmdstat_unlink:calls=3,"), "{stats}");
}

#[tokio::test]
async fn numbers_go_up_by_one_per_channel_whoever_publishes() {
    let (redis, one) = healthy().await;
    let other = RedisStore::connect(patient(redis.url())).await.unwrap();
    let stranger = RedisStore::connect(patient(redis.url()).namespace("else")).await.unwrap();
    assert_eq!(one.sequence("c").await.unwrap(), 0);
    assert_eq!(one.publish("c", vec![]).await.unwrap(), 1);
    assert_eq!(other.publish("c", vec![]).await.unwrap(), 2);
    assert_eq!(one.publish("d", vec![]).await.unwrap(), 1);
    assert_eq!(stranger.publish("c", vec![]).await.unwrap(), 1);
    assert_eq!(one.sequence("c").await.unwrap(), 2);
    // What a cache is cleared by leaves the numbers alone.
    one.remove_matching("1:c:", &Pattern::new("*")).await.unwrap();
    assert_eq!(other.sequence("c").await.unwrap(), 2);
}

#[tokio::test]
async fn every_operation_ends_in_time_on_a_redis_that_does_not_answer() {
    let redis = Redis::start().await.unwrap();
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let settings = config(format!("redis://{}", proxy.addr())).failures(100);
    let store = RedisStore::connect(settings).await.unwrap();
    proxy.blackhole(true);
    let mut errors = Vec::new();
    errors.extend(store.get_many(&["k".to_owned()]).await.err());
    for when in [When::Always, When::Absent, starts(b"a")] {
        errors.extend(store.set("k", vec![1], None, when).await.err());
    }
    errors.extend(store.remove(&["k".to_owned()]).await.err());
    errors.extend(store.remove_matching("k", &Pattern::new("*")).await.err());
    errors.extend(store.publish("c", vec![1]).await.err());
    errors.extend(store.sequence("c").await.err());
    assert_eq!(errors.len(), 8);
    assert!(errors.iter().all(StoreError::is_timeout), "{errors:?}");
    assert_eq!(store.stats().timed_out, 8);
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_without_anybody_asking() {
    let (redis, store) = healthy().await;
    store.set("k", vec![1], None, When::Always).await.unwrap();
    let count = async || redis.cli(&["CLIENT", "LIST"]).await.unwrap().matches("resp=3").count();
    assert_eq!(count().await, 1);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    while count().await != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The first one to ask is not the one to find out.
    assert_eq!(value(&store, "k").await, Some(vec![1]));
    assert_eq!(store.stats().failed, 0);
}

#[tokio::test]
async fn a_store_that_is_dropped_leaves_no_connection_and_no_task() {
    let (redis, store) = healthy().await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks > 0);
    let mut signals = store.subscribe("c", None);
    assert_eq!(signals.recv().await, Some(Signal::Up));
    drop(store);
    // A subscription outlives the store.
    let publisher = RedisStore::connect(patient(redis.url())).await.unwrap();
    publisher.publish("c", b"hello".to_vec()).await.unwrap();
    assert_eq!(
        signals.recv().await,
        Some(Signal::Message { sequence: 1, body: b"hello".to_vec() })
    );
    drop((signals, publisher));
    let handle = tokio::runtime::Handle::current();
    while handle.metrics().num_alive_tasks() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let clients = redis.cli(&["CLIENT", "LIST"]).await.unwrap();
    assert_eq!(clients.matches("resp=3").count(), 0, "{clients}");
}
