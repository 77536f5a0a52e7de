//! Subscriptions: what is published arrives, or the subscriber is told that it may not have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escala_cache::{RedisStore, SharedStore, Signal, When};
use testkit::{FaultProxy, PubSubFaults, PubSubProxy, Redis};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::{config, healthy, patient};

/// The next signal; a test that waits in vain has failed.
async fn next(signals: &mut Receiver<Signal>) -> Signal {
    let signal = timeout(Duration::from_secs(20), signals.recv()).await;
    signal.expect("a signal in time").expect("a subscription that lives")
}

fn message(sequence: u64, body: &str) -> Signal {
    Signal::Message { sequence, body: body.as_bytes().to_vec() }
}

/// A store that notices within a second that its connection hangs.
async fn attentive(url: String) -> RedisStore {
    let settings = config(url)
        .keepalive(Duration::from_millis(200))
        .connect_timeout(Duration::from_millis(500))
        .operation_timeout(Duration::from_secs(5));
    loop {
        // Its limit is that of the first contact as well.
        if let Ok(store) = RedisStore::connect(settings.clone()).await {
            return store;
        }
    }
}

#[tokio::test]
async fn what_is_published_arrives_in_order_with_its_number() {
    let (redis, store) = healthy().await;
    let publisher = RedisStore::connect(patient(redis.url())).await.unwrap();
    let mut c = store.subscribe("c", None);
    let mut twin = store.subscribe("c", None);
    let mut d = store.subscribe("d", None);
    for signals in [&mut c, &mut twin, &mut d] {
        assert_eq!(next(signals).await, Signal::Up);
    }
    for n in 1..=100_u64 {
        assert_eq!(publisher.publish("c", n.to_string().into_bytes()).await.unwrap(), n);
    }
    store.publish("d", b"\r\n\0".to_vec()).await.unwrap();
    for n in 1..=100_u64 {
        assert_eq!(next(&mut c).await, message(n, &n.to_string()));
        assert_eq!(next(&mut twin).await, message(n, &n.to_string()));
    }
    assert_eq!(next(&mut d).await, message(1, "\r\n\0"));
    let clients = redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.unwrap();
    assert_eq!(clients.lines().count(), 1, "one connection for all subscriptions");
}

#[tokio::test]
async fn what_others_publish_there_without_a_number_is_passed_over() {
    let (redis, store) = healthy().await;
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    assert_eq!(redis.cli(&["PUBLISH", "test:c", "short"]).await.unwrap(), "1\n");
    store.publish("c", b"ours".to_vec()).await.unwrap();
    assert_eq!(next(&mut signals).await, message(1, "ours"));
}

#[tokio::test]
async fn a_subscription_that_redis_ends_is_down_at_once_and_comes_back() {
    let (redis, store) = healthy().await;
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    for n in 1..=3 {
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.unwrap();
        assert_eq!(next(&mut signals).await, Signal::Down);
        assert_eq!(next(&mut signals).await, Signal::Up);
        assert_eq!(store.publish("c", vec![]).await.unwrap(), n);
        assert_eq!(next(&mut signals).await, message(n, ""));
    }
}

#[tokio::test]
async fn a_redis_that_is_killed_and_started_takes_subscribers_back() {
    let (redis, store) = healthy().await;
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    redis.kill().unwrap();
    assert_eq!(next(&mut signals).await, Signal::Down);
    let mut late = store.subscribe("c", None);
    redis.restart().await.unwrap();
    assert_eq!(next(&mut signals).await, Signal::Up);
    assert_eq!(next(&mut late).await, Signal::Up);
    // Its numbers begin anew, since it has kept nothing.
    while store.publish("c", vec![]).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(next(&mut signals).await, message(1, ""));
    assert_eq!(next(&mut late).await, message(1, ""));
}

#[tokio::test]
async fn a_redis_that_hangs_is_noticed_by_its_silence() {
    let redis = Redis::start().await.unwrap();
    let store = attentive(redis.url()).await;
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    redis.freeze().unwrap();
    assert_eq!(next(&mut signals).await, Signal::Down);
    redis.thaw().unwrap();
    assert_eq!(next(&mut signals).await, Signal::Up);
}

#[tokio::test]
async fn a_way_that_is_cut_or_swallows_everything_is_noticed() {
    let redis = Redis::start().await.unwrap();
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let store = attentive(format!("redis://{}", proxy.addr())).await;
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    for fault in
        [FaultProxy::cut, |proxy: &FaultProxy| proxy.blackhole(true), FaultProxy::half_close]
    {
        fault(&proxy);
        assert_eq!(next(&mut signals).await, Signal::Down);
        proxy.heal();
        assert_eq!(next(&mut signals).await, Signal::Up);
    }
}

/// Between `Up` and `Down` nothing is missing, whatever happens to the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_the_numbers_is_always_announced() {
    let (redis, store) = healthy().await;
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    let (killed, heard) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let publisher = {
        let (store, killed, heard) = (store.clone(), Arc::clone(&killed), Arc::clone(&heard));
        tokio::spawn(async move {
            // The killed connection may be the one that publishes.
            let mut sent = 0;
            while sent < 3_000 || !killed.load(Ordering::SeqCst) {
                sent += u64::from(store.publish("c", vec![]).await.is_ok());
                tokio::task::yield_now().await;
            }
            // Until nobody can have missed it.
            while !heard.load(Ordering::SeqCst) {
                let _ = store.publish("c", b"last".to_vec()).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let killer = tokio::spawn(async move {
        for kind in ["pubsub", "pubsub", "normal", "pubsub"] {
            redis.cli(&["CLIENT", "KILL", "TYPE", kind]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        killed.store(true, Ordering::SeqCst);
        redis
    });
    let (mut expected, mut downs) = (Some(1), 0);
    loop {
        match next(&mut signals).await {
            Signal::Message { sequence, body } => {
                assert_eq!(sequence, expected.unwrap_or(sequence));
                expected = Some(sequence + 1);
                if body == b"last" {
                    break;
                }
            }
            Signal::Down => (expected, downs) = (None, downs + 1),
            signal => assert_eq!(signal, Signal::Up),
        }
    }
    heard.store(true, Ordering::SeqCst);
    publisher.await.unwrap();
    drop(killer.await.unwrap());
    assert!(downs > 0);
}

#[tokio::test]
async fn a_subscriber_without_room_is_told_what_it_has_missed() {
    let (_redis, store) = healthy().await;
    let mut slow = store.subscribe("c", None);
    let mut quick = store.subscribe("c", None);
    assert_eq!(next(&mut slow).await, Signal::Up);
    assert_eq!(next(&mut quick).await, Signal::Up);
    for n in 1..=3_000_u64 {
        store.publish("c", vec![]).await.unwrap();
        assert_eq!(next(&mut quick).await, message(n, ""));
    }
    let mut last = 0;
    loop {
        match next(&mut slow).await {
            Signal::Message { sequence, .. } => {
                assert_eq!(sequence, last + 1);
                last = sequence;
            }
            signal => break assert_eq!(signal, Signal::Down),
        }
    }
    assert!((1_000..3_000).contains(&last), "{last}");
    assert_eq!(next(&mut slow).await, Signal::Up);
    store.publish("c", vec![]).await.unwrap();
    assert_eq!(next(&mut slow).await, message(3_001, ""));
}

#[tokio::test]
async fn numbers_show_what_a_bad_way_loses_repeats_and_swaps() {
    let redis = Redis::start().await.unwrap();
    let faults = PubSubFaults { lose: 0.1, repeat: 0.1, swap: 0.1 };
    let proxy = PubSubProxy::start(redis.addr(), 1, faults).await.unwrap();
    let store = patient(format!("redis://{}", proxy.addr()));
    let store = RedisStore::connect(store).await.unwrap();
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    for n in 1..=500 {
        assert_eq!(store.publish("c", vec![]).await.unwrap(), n);
    }
    let mut numbers = Vec::new();
    let arriving = 500 - proxy.lost() + proxy.repeated();
    while u64::try_from(numbers.len()).unwrap() < arriving {
        let Signal::Message { sequence, .. } = next(&mut signals).await else { panic!("down") };
        numbers.push(sequence);
    }
    assert!(!numbers.is_sorted());
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(u64::try_from(numbers.len()).unwrap(), 500 - proxy.lost());
}

#[tokio::test]
async fn the_connection_for_messages_ends_with_the_last_subscriber() {
    let (redis, store) = healthy().await;
    let count =
        async || redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.unwrap().lines().count();
    for _ in 0..3 {
        let mut signals = store.subscribe("c", None);
        let other = store.subscribe("d", None);
        assert_eq!(next(&mut signals).await, Signal::Up);
        drop(other);
        while redis.cli(&["PUBSUB", "CHANNELS"]).await.unwrap() != "test:c\n" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(signals);
        while count().await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(store.set("k", vec![1], None, When::Always).await.unwrap());
}
