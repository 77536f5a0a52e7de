//! Users, sockets, certificates, Sentinel and Cluster.

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

#[cfg(feature = "redis-tls")]
use escala_cache::RedisTls;
use escala_cache::{ConnectError, Pattern, RedisConfig, RedisStore, SharedStore, Signal, When};
use redis::AsyncCommands;
use testkit::{Redis, RedisCluster, RedisSentinel};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::{Traffic, add_up, config, raw, until_open, until_used};

async fn next(signals: &mut Receiver<Signal>) -> Signal {
    let signal = timeout(Duration::from_secs(30), signals.recv()).await;
    signal.expect("a signal in time").expect("a subscription that lives")
}

/// Writes, reads, publishes and hears.
async fn works(store: &RedisStore) {
    let keys = ["a", "b", "c"].map(str::to_owned);
    for key in &keys {
        assert!(store.set(key, key.clone().into_bytes(), None, When::Always).await.unwrap());
    }
    let found = store.get_many(&keys).await.unwrap();
    assert_eq!(found, keys.each_ref().map(|key| Some(key.clone().into_bytes())));
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    let sequence = store.publish("c", b"hello".to_vec()).await.unwrap();
    assert_eq!(next(&mut signals).await, Signal::Message { sequence, body: b"hello".to_vec() });
    store.remove(&keys).await.unwrap();
    assert_eq!(store.get_many(&keys).await.unwrap(), [None, None, None]);
}

/// A limit that is wide, since these tests are not about time.
fn patient(config: RedisConfig) -> RedisConfig {
    config.namespace("test").operation_timeout(Duration::from_secs(5))
}

/// All that an error says, its causes and its insides included.
fn whole(error: &ConnectError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn a_user_of_redis_may_do_what_its_rules_say() {
    let rules = ["on", ">s3cret", "~test:*", "&test:*", "+@all", "-@dangerous"];
    let redis = Redis::builder().password("hunter2").user("alice", &rules).start().await.unwrap();
    let connect = |config: RedisConfig| RedisStore::connect(patient(config));
    let (addr, url) = (redis.addr(), redis.url());
    works(&connect(RedisConfig::new(format!("redis://alice:s3cret@{addr}"))).await.unwrap()).await;
    let store = connect(RedisConfig::new(&url).username("alice").password("s3cret"));
    works(&store.await.unwrap()).await;
    works(&connect(RedisConfig::new(&url).password("hunter2")).await.unwrap()).await;

    let refused = [
        RedisConfig::new(format!("redis://alice:wr0ng@{addr}")),
        RedisConfig::new(&url).username("alice").password("wr0ng"),
        RedisConfig::new(&url).username("nobody").password("wr0ng"),
        RedisConfig::new(&url),
        RedisConfig::cluster([&url]).username("alice").password("wr0ng"),
        RedisConfig::cluster([format!("redis://alice:wr0ng@{addr}")]),
    ];
    for settings in refused {
        let error = connect(settings.clone()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Denied(_)), "{error:?}");
        assert_eq!(error.to_string(), "redis refused the user");
        assert!(!whole(&error).contains("wr0ng"), "{error:?}");
        assert!(!format!("{settings:?}").contains("wr0ng"));
    }
}

#[tokio::test]
async fn a_socket_and_another_database_work_as_well() {
    let redis = Redis::start().await.unwrap();
    let store = RedisStore::connect(patient(RedisConfig::new(redis.unix_url()))).await.unwrap();
    works(&store).await;
    let url = format!("{}/3", redis.url());
    let other = RedisStore::connect(patient(RedisConfig::new(url))).await.unwrap();
    works(&other).await;
    other.set("k", vec![1], None, When::Always).await.unwrap();
    assert_eq!(store.get_many(&["k".to_owned()]).await.unwrap(), [None]);
    assert_eq!(redis.cli(&["-n", "3", "EXISTS", "test:k"]).await.unwrap(), "1\n");
}

#[cfg(feature = "redis-tls")]
#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let redis = Redis::builder().tls_with_client_certificates().start().await.unwrap();
    let (url, good) = (redis.tls_url().unwrap(), redis.certificates().unwrap().clone());
    let other = testkit::Certificates::new().unwrap();
    let connect =
        |tls: RedisTls| RedisStore::connect(patient(RedisConfig::new(url.clone())).tls(tls));
    let tls = RedisTls::default().authority(&good.authority);
    let store = connect(tls.clone().certificate(&good.client, &good.client_key)).await.unwrap();
    works(&store).await;

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let files = RedisTls::default()
        .authority(file("authority.pem", &good.authority))
        .certificate(file("client.pem", &good.client), file("client.key", &good.client_key));
    works(&connect(files).await.unwrap()).await;

    let wrong = [
        ("the server's authority is unknown", RedisTls::default().authority(&other.authority)),
        ("the system knows no such authority", RedisTls::default()),
        ("no certificate is shown", tls.clone()),
        ("another's certificate", tls.clone().certificate(&other.client, &other.client_key)),
    ];
    for (why, tls) in wrong {
        let error = connect(tls).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable(_)), "{why}: {error:?}");
    }
    let error = connect(RedisTls::default().authority("/nowhere.pem")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Certificates(_)), "{error:?}");
    let key = tls.clone().certificate(&good.client, "n0nsense");
    let error = connect(key).await.unwrap_err();
    assert!(matches!(error, ConnectError::Certificates(_)), "{error:?}");
    assert!(!whole(&error).contains("n0nsense"), "{error:?}");
    let error = connect(tls.certificate(&good.client, "-----BEGIN nonsense")).await.unwrap_err();
    assert!(!whole(&error).contains("nonsense"), "{error:?}");
}

#[cfg(feature = "redis-tls")]
#[tokio::test]
async fn a_name_that_the_certificate_does_not_bear_is_refused() {
    let redis = Redis::builder().tls().start().await.unwrap();
    let tls = RedisTls::default().authority(&redis.certificates().unwrap().authority);
    let url = redis.tls_url().unwrap();
    let connect =
        |url: String| RedisStore::connect(patient(RedisConfig::new(url)).tls(tls.clone()));
    works(&connect(url.replace("127.0.0.1", "localhost")).await.unwrap()).await;
    let error = connect(url.replace("127.0.0.1", "127.0.0.2")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    let insecure = connect(format!("{url}/#insecure")).await.unwrap_err();
    let ConnectError::Config(error) = insecure else { panic!("not refused") };
    assert!(error.to_string().contains("must not switch off"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_and_a_frozen_primary_comes_back_as_a_replica() {
    let redis = RedisSentinel::start().await.unwrap();
    let settings = RedisConfig::sentinel(redis.urls(), redis.name())
        .namespace("test")
        .operation_timeout(Duration::from_millis(500))
        .keepalive(Duration::from_millis(500))
        .pause(Duration::from_millis(100));
    let store = RedisStore::connect(settings.clone()).await.unwrap();
    works(&store).await;
    let mut signals = store.subscribe("d", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    assert!(store.set("k", vec![1], None, When::Always).await.unwrap());

    // Signs of life have been asked for and given.
    while role_calls(&redis.servers()[0]).await < 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(signals.try_recv().is_err(), "the connection stands");

    // Its connections stay open, and only silence tells.
    redis.servers()[0].freeze().unwrap();
    redis.until_primary(1).await.unwrap();
    written(&store, 2).await;
    assert_eq!(redis.servers()[1].cli(&["EXISTS", "test:k"]).await.unwrap(), "1\n");
    assert_eq!(next(&mut signals).await, Signal::Down);
    assert_eq!(next(&mut signals).await, Signal::Up);

    redis.servers()[0].thaw().unwrap();
    until_replica(&redis.servers()[0]).await;
    written(&store, 3).await;

    // One sentinel is enough, and a name that none knows is told.
    redis.sentinels()[0].kill().unwrap();
    works(&RedisStore::connect(settings).await.unwrap()).await;
    let user = RedisConfig::sentinel(redis.urls(), redis.name()).username("alice");
    let error = RedisStore::connect(user.password("wr0ng")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Denied(_)), "{error:?}");
    let unknown = RedisConfig::sentinel(redis.urls(), "another");
    let error = RedisStore::connect(unknown).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}

/// The sentinels that make it one end its connections, so a question may fail.
async fn until_replica(redis: &Redis) {
    let becomes = async {
        while !redis.cli(&["ROLE"]).await.is_ok_and(|role| role.starts_with("slave")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), becomes).await.expect("it becomes a replica");
}

async fn role_calls(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]).await.unwrap();
    let calls = stats.split("cmdstat_role:calls=").nth(1).and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_fails_no_request() {
    let redis = RedisSentinel::start().await.unwrap();
    let settings = RedisConfig::sentinel(redis.urls(), redis.name())
        .namespace("test")
        .pause(Duration::from_millis(100));
    let store = RedisStore::connect(settings).await.unwrap();
    let traffic = Traffic::start(&store);
    traffic.flows().await;
    redis.servers()[0].kill().unwrap();
    until_open(&store, true).await;
    traffic.flows().await;
    redis.until_primary(1).await.unwrap();
    until_used(&store).await;
    traffic.flows().await;
    traffic.end().await;
    add_up(&store);
}

/// Tries until a write succeeds; none may hang.
async fn written(store: &RedisStore, value: u8) {
    let write = async {
        while store.set("k", vec![value], None, When::Always).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), write).await.expect("the new primary is found");
}

#[tokio::test]
async fn a_cluster_is_one_store() {
    let cluster = RedisCluster::start().await.unwrap();
    let urls = cluster.urls();
    let store = RedisStore::connect(patient(RedisConfig::cluster(&urls[..1]))).await.unwrap();
    works(&store).await;

    // Keys of all slots, in one question and in its order.
    let keys: Vec<String> = (0..300).map(|n| format!("1:q:{n}")).collect();
    for key in &keys {
        assert!(store.set(key, key.clone().into_bytes(), None, When::Absent).await.unwrap());
    }
    let sizes = sizes(&cluster).await;
    assert!(sizes.iter().all(|size| *size > 50), "{sizes:?}");
    let mut asked = keys.clone();
    asked.reverse();
    asked.push("1:q:none".to_owned());
    let found = store.get_many(&asked).await.unwrap();
    let mut expected: Vec<_> = asked.iter().map(|key| Some(key.clone().into_bytes())).collect();
    expected[300] = None;
    assert_eq!(found, expected);

    // One step on whichever node holds the key.
    for key in &keys {
        let when = When::StartsWith(key.clone().into_bytes());
        assert!(store.set(key, vec![1], None, when.clone()).await.unwrap());
        assert!(!store.set(key, vec![2], None, when).await.unwrap());
    }
    store.remove(&keys[..200]).await.unwrap();
    store.remove_matching("1:q:", &Pattern::new("2*")).await.unwrap();
    let left = store.get_many(&keys).await.unwrap();
    let left: HashSet<usize> = (0..300).filter(|n| left[*n].is_some()).collect();
    assert!(left.is_empty(), "{left:?}");
    for n in 0..300 {
        store.set(&format!("1:q:{n}"), vec![1], None, When::Always).await.unwrap();
    }
    store.remove_matching("1:q:", &Pattern::new("*")).await.unwrap();
    let kept: u64 = self::sizes(&cluster).await.iter().sum();
    assert_eq!(kept, 1, "the number of the channel");
}

async fn sizes(cluster: &RedisCluster) -> Vec<u64> {
    let mut sizes = Vec::new();
    for node in cluster.nodes() {
        sizes.push(node.cli(&["DBSIZE"]).await.unwrap().trim().parse().unwrap());
    }
    sizes
}

#[tokio::test]
async fn messages_cross_a_cluster_and_a_lost_node_is_replaced_by_another() {
    let cluster = RedisCluster::start().await.unwrap();
    let settings = patient(RedisConfig::cluster(&cluster.urls()[..1]));
    let store = RedisStore::connect(settings).await.unwrap();
    // Channels whose numbers are kept by different nodes.
    let channels: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    let mut subscriptions: Vec<_> =
        channels.iter().map(|channel| store.subscribe(channel, None)).collect();
    for (channel, signals) in channels.iter().zip(&mut subscriptions) {
        assert_eq!(next(signals).await, Signal::Up);
        for sequence in 1..=3 {
            assert_eq!(store.publish(channel, vec![]).await.unwrap(), sequence);
            assert_eq!(next(signals).await, Signal::Message { sequence, body: vec![] });
        }
        assert_eq!(store.sequence(channel).await.unwrap(), 3);
    }
    // The one node that was named is the one they are subscribed at.
    cluster.nodes()[0].kill().unwrap();
    for signals in &mut subscriptions {
        assert_eq!(next(signals).await, Signal::Down);
        assert_eq!(next(signals).await, Signal::Up);
    }
    // What the other nodes hold can still be had, and all of it when the node is back.
    let mut answered = 0;
    for n in 0..30 {
        let key = format!("k{n}");
        answered += u32::from(store.set(&key, vec![1], None, When::Always).await.is_ok());
    }
    assert!(answered >= 10, "{answered}");
    cluster.nodes()[0].restart().await.unwrap();
    let all: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let write = async {
        for key in &all {
            while store.set(key, vec![1], None, When::Always).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    timeout(Duration::from_secs(30), write).await.expect("the node is used again");
    let found = store.get_many(&all).await.unwrap();
    assert!(found.iter().all(Option::is_some), "{found:?}");

    drop((store, subscriptions));
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_cluster_that_was_down_as_a_whole_is_used_again() {
    let cluster = RedisCluster::start().await.unwrap();
    let settings = RedisConfig::cluster(cluster.urls()).namespace("test");
    let store = RedisStore::connect(settings.pause(Duration::from_millis(100))).await.unwrap();
    let mut signals = store.subscribe("c", None);
    assert_eq!(next(&mut signals).await, Signal::Up);
    for node in cluster.nodes() {
        node.kill().unwrap();
    }
    assert_eq!(next(&mut signals).await, Signal::Down);
    until_fails(&store).await;
    for node in cluster.nodes() {
        node.restart().await.unwrap();
    }
    for n in 0..10 {
        written(&store, n).await;
    }
    assert_eq!(next(&mut signals).await, Signal::Up);
    add_up(&store);
}

async fn until_fails(store: &RedisStore) {
    while store.set("k", vec![0], None, When::Always).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_topology_that_redis_does_not_have_is_told() {
    let redis = Redis::start().await.unwrap();
    for settings in [
        RedisConfig::sentinel([redis.url()], "main"),
        RedisConfig::cluster([redis.url()]),
        RedisConfig::cluster(["redis://127.0.0.1:1"]),
    ] {
        let error = RedisStore::connect(settings).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    }
    let mut raw = raw(&redis).await;
    let () = raw.set("k", 1).await.unwrap();
    let invalid = [
        (RedisConfig::cluster(Vec::<String>::new()), "nodes"),
        (RedisConfig::cluster(["unix:///redis.sock"]), "nodes"),
        (RedisConfig::cluster(["redis://a", "nonsense"]), "nodes"),
        (RedisConfig::sentinel([redis.url()], ""), "topology.master"),
        (config("redis://a").keepalive(Duration::ZERO), "keepalive"),
    ];
    for (settings, field) in invalid {
        assert_eq!(settings.validate().unwrap_err().field, field);
    }
}
