//! Redis with certificates, users, sentinels and as a cluster; and its messages mistreated.

use std::time::Duration;

use testkit::{PubSubFaults, PubSubProxy, Redis, RedisCluster, RedisSentinel};
use tokio::time::timeout;

#[tokio::test]
async fn a_server_may_ask_for_a_password_and_know_users() {
    let rules = ["on", ">secret", "~keys:*", "+@all"];
    let redis = Redis::builder().password("hunter2").user("alice", &rules).start().await.unwrap();
    assert_eq!(redis.cli(&["SET", "keys:1", "v"]).await.unwrap(), "OK\n");
    let alice = ["--user", "alice", "--pass", "secret", "--no-auth-warning"];
    assert_eq!(redis.cli(&[&alice[..], &["GET", "keys:1"]].concat()).await.unwrap(), "v\n");
    let refused = redis.cli(&[&alice[..], &["GET", "other"]].concat()).await.unwrap();
    assert!(refused.starts_with("NOPERM"), "{refused}");
}

#[tokio::test]
async fn a_server_may_show_a_certificate_and_ask_for_one() {
    let redis = Redis::builder().tls_with_client_certificates().start().await.unwrap();
    let url = redis.tls_url().unwrap();
    assert!(url.starts_with("rediss://127.0.0.1:"));
    assert!(redis.certificates().unwrap().client_key.contains("PRIVATE KEY"));
    assert_eq!(
        redis.cli(&["CONFIG", "GET", "tls-auth-clients"]).await.unwrap().lines().last(),
        Some("yes")
    );
}

#[tokio::test]
async fn sentinels_replace_a_killed_primary() {
    let redis = RedisSentinel::start().await.unwrap();
    redis.servers()[0].cli(&["SET", "k", "v"]).await.unwrap();
    redis.servers()[0].cli(&["WAIT", "1", "5000"]).await.unwrap();
    redis.servers()[0].kill().unwrap();
    redis.until_primary(1).await.unwrap();
    assert_eq!(redis.servers()[1].cli(&["GET", "k"]).await.unwrap(), "v\n");
}

#[tokio::test]
async fn a_cluster_shares_the_slots() {
    let cluster = RedisCluster::start().await.unwrap();
    for node in cluster.nodes() {
        assert_eq!(node.cli(&["-c", "SET", "k", "v"]).await.unwrap(), "OK\n");
    }
    let sizes = cluster.nodes().iter().map(|node| async { node.cli(&["DBSIZE"]).await.unwrap() });
    let mut keys = Vec::new();
    for size in sizes {
        keys.push(size.await);
    }
    keys.sort();
    assert_eq!(keys, ["0\n", "0\n", "1\n"]);
}

#[tokio::test]
async fn messages_are_lost_repeated_and_swapped_by_share_and_nothing_else_is() {
    let redis = Redis::start().await.unwrap();
    let faults = PubSubFaults { lose: 0.2, repeat: 0.2, swap: 0.2 };
    let proxy = PubSubProxy::start(redis.addr(), 7, faults).await.unwrap();
    let url = format!("redis://{}?protocol=resp3", proxy.addr());
    let (pushes, mut pushed) = tokio::sync::mpsc::unbounded_channel();
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_push_sender(pushes);
    let client = redis::Client::open(url).unwrap();
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    connection.subscribe("c").await.unwrap();
    for n in 0..500_u32 {
        let mut publish = redis::cmd("PUBLISH");
        let heard: u32 = publish.arg("c").arg(n).query_async(&mut connection).await.unwrap();
        assert_eq!(heard, 1);
    }
    let mut heard = Vec::new();
    let expected = 500 - proxy.lost() + proxy.repeated();
    while u64::try_from(heard.len()).unwrap() < expected {
        let push = timeout(Duration::from_secs(5), pushed.recv()).await.unwrap().unwrap();
        if push.kind == redis::PushKind::Message {
            heard.push(redis::from_redis_value::<u32>(push.data[1].clone()).unwrap());
        }
    }
    assert_eq!(proxy.seen(), 500);
    for count in [proxy.lost(), proxy.repeated(), proxy.swapped()] {
        assert!((60..140).contains(&count), "{count}");
    }
    assert!(!heard.is_sorted());
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(u64::try_from(heard.len()).unwrap(), 500 - proxy.lost());
}
