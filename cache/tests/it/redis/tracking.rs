//! What Redis tells of changes to keys: others' and not one's own.

use std::time::Duration;

use escala_cache::{ConnectError, Pattern, RedisConfig, RedisStore, SharedStore, Signal, When};
use testkit::Redis;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::patient;

async fn next(signals: &mut Receiver<Signal>) -> Signal {
    let signal = timeout(Duration::from_secs(20), signals.recv()).await;
    signal.expect("a signal in time").expect("a subscription that lives")
}

fn changed(key: &str) -> Signal {
    Signal::Changed { key: key.to_owned() }
}

async fn tracking() -> (Redis, RedisStore) {
    let redis = Redis::start().await.unwrap();
    let settings = patient(redis.url()).tracking(true);
    let store = RedisStore::connect(settings).await.unwrap();
    (redis, store)
}

#[tokio::test]
async fn others_changes_are_told_and_own_ones_are_not() {
    let (redis, store) = tracking().await;
    let mut signals = store.subscribe("c", Some("1:q:"));
    let mut untracked = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    assert_eq!(next(&mut untracked).await, Signal::Up);
    // Each way to write, by this store.
    store.set("1:q:a", b"x".to_vec(), None, When::Always).await.unwrap();
    store.set("1:q:b", b"x".to_vec(), None, When::Absent).await.unwrap();
    store.remove(&["1:q:b".to_owned()]).await.unwrap();
    store.remove_matching("1:q:", &Pattern::new("z*")).await.unwrap();
    // And by others: another process of ours, and a person.
    let other = RedisStore::connect(patient(redis.url())).await.unwrap();
    other.set("1:q:c", b"x".to_vec(), None, When::Always).await.unwrap();
    assert_eq!(next(&mut signals).await, changed("1:q:c"));
    // Redis takes a script for somebody else, so that this one is told, needlessly.
    store.set("1:q:a", b"y".to_vec(), None, When::StartsWith(b"x".to_vec())).await.unwrap();
    assert_eq!(next(&mut signals).await, changed("1:q:a"));
    redis.cli(&["DEL", "test:1:q:a"]).await.unwrap();
    assert_eq!(next(&mut signals).await, changed("1:q:a"));
    redis.cli(&["SET", "test:1:other:a", "x"]).await.unwrap();
    redis.cli(&["SET", "test:1:q:d", "x", "PX", "20"]).await.unwrap();
    assert_eq!(next(&mut signals).await, changed("1:q:d"));
    assert_eq!(next(&mut signals).await, changed("1:q:d"), "its time is over");
    redis.cli(&["FLUSHALL"]).await.unwrap();
    assert_eq!(next(&mut signals).await, Signal::Flushed);
    store.publish("c", vec![]).await.unwrap();
    let last = Signal::Message { sequence: 1, body: vec![] };
    assert_eq!(next(&mut signals).await, last);
    assert_eq!(next(&mut untracked).await, last);
}

#[tokio::test]
async fn the_end_of_either_connection_takes_a_tracking_subscription_down() {
    let (redis, store) = tracking().await;
    let mut signals = store.subscribe("c", Some("1:q:"));
    let mut untracked = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    assert_eq!(next(&mut untracked).await, Signal::Up);
    for kind in ["pubsub", "normal", "pubsub", "normal"] {
        redis.cli(&["CLIENT", "KILL", "TYPE", kind]).await.unwrap();
        assert_eq!(next(&mut signals).await, Signal::Down);
        assert_eq!(next(&mut signals).await, Signal::Up);
        if kind == "pubsub" {
            assert_eq!(next(&mut untracked).await, Signal::Down);
            assert_eq!(next(&mut untracked).await, Signal::Up);
        }
        redis.cli(&["SET", "test:1:q:a", "x"]).await.unwrap();
        assert_eq!(next(&mut signals).await, changed("1:q:a"));
    }
    assert!(untracked.try_recv().is_err(), "it has no part in the writing connection");
}

#[tokio::test]
async fn prefixes_may_come_later_be_equal_and_contain_each_other() {
    let (redis, store) = tracking().await;
    let mut narrow = store.subscribe("c", Some("1:q:x:"));
    assert_eq!(next(&mut narrow).await, Signal::Up);
    let mut equal = store.subscribe("c", Some("1:q:x:"));
    assert_eq!(next(&mut equal).await, Signal::Up);
    let mut other = store.subscribe("c", Some("1:r:"));
    assert_eq!(next(&mut other).await, Signal::Up);
    let mut wide = store.subscribe("c", Some("1:q:"));
    assert_eq!(next(&mut wide).await, Signal::Up);
    for signals in [&mut narrow, &mut equal, &mut other] {
        // Redis had to be told anew.
        assert_eq!(next(signals).await, Signal::Down);
        assert_eq!(next(signals).await, Signal::Up);
    }
    for key in ["1:q:x:1", "1:q:y", "1:r:1"] {
        redis.cli(&["SET", &format!("test:{key}"), "x"]).await.unwrap();
    }
    assert_eq!(next(&mut wide).await, changed("1:q:x:1"));
    assert_eq!(next(&mut wide).await, changed("1:q:y"));
    assert_eq!(next(&mut narrow).await, changed("1:q:x:1"));
    assert_eq!(next(&mut equal).await, changed("1:q:x:1"));
    assert_eq!(next(&mut other).await, changed("1:r:1"));
}

#[tokio::test]
async fn without_the_setting_redis_is_not_asked_to_track_and_a_cluster_cannot() {
    let redis = Redis::start().await.unwrap();
    let store = RedisStore::connect(patient(redis.url())).await.unwrap();
    let mut signals = store.subscribe("c", Some("1:q:"));
    assert_eq!(next(&mut signals).await, Signal::Up);
    let stats = redis.cli(&["INFO", "clients"]).await.unwrap();
    assert!(stats.contains("tracking_clients:0"), "{stats}");
    let refused = RedisStore::connect(RedisConfig::cluster([redis.url()]).tracking(true)).await;
    let Err(ConnectError::Config(error)) = refused else { panic!("not refused") };
    assert_eq!(error.to_string(), "tracking = true: must be off with a cluster");
}

#[tokio::test]
async fn a_user_who_may_not_track_is_told_at_once_and_one_who_may_no_more_still_works() {
    let rules = ["on", ">s3cret", "~*", "&*", "+@all", "-client|tracking"];
    let redis = Redis::builder().user("alice", &rules).start().await.unwrap();
    let settings = patient(redis.url()).username("alice").password("s3cret").tracking(true);
    let refused = RedisStore::connect(settings.clone()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Denied(_)), "{refused:?}");

    let acl = async |rule| redis.cli(&["ACL", "SETUSER", "alice", rule]).await.unwrap();
    assert_eq!(acl("+client|tracking").await, "OK\n");
    let store = RedisStore::connect(settings).await.unwrap();
    acl("-client|tracking").await;
    let mut plain = store.subscribe("c", None);
    let mut tracked = store.subscribe("c", Some("1:q:"));
    assert_eq!(next(&mut plain).await, Signal::Up);
    assert!(store.set("k", vec![1], None, When::Always).await.unwrap());
    assert!(tracked.try_recv().is_err(), "it does not stand");
}
