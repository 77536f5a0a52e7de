//! Redis: alone, killed, restarted, frozen.

use testkit::Redis;
use tokio::time::{Duration, timeout};

async fn set(url: &str) {
    let mut connection = connect(url).await;
    let _: () =
        redis::cmd("SET").arg("k").arg("v").query_async(&mut connection).await.expect("an answer");
}

async fn get(url: &str) -> Option<String> {
    let mut connection = connect(url).await;
    redis::cmd("GET").arg("k").query_async(&mut connection).await.expect("an answer")
}

async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    // The driver's own timeouts are short for a server that a test freezes.
    let config =
        redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    redis::Client::open(url)
        .expect("a URL")
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("a session")
}

#[tokio::test]
async fn a_killed_server_comes_back_empty_on_the_same_port() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    set(&url).await;
    assert_eq!(get(&url).await.as_deref(), Some("v"));
    redis.kill().unwrap();
    tokio::net::TcpStream::connect(redis.addr()).await.unwrap_err();
    redis.restart().await.unwrap();
    assert_eq!(redis.url(), url);
    assert_eq!(get(&url).await, None);
}

#[tokio::test]
async fn an_append_only_server_keeps_its_data() {
    let redis = Redis::builder().append_only(true).start().await.unwrap();
    set(&redis.url()).await;
    redis.restart().await.unwrap();
    assert_eq!(get(&redis.url()).await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_frozen_server_answers_after_it_is_thawed() {
    let redis = Redis::start().await.unwrap();
    set(&redis.url()).await;
    redis.freeze().unwrap();
    let url = redis.url();
    let mut asking = tokio::spawn(async move { get(&url).await });
    assert!(timeout(Duration::from_millis(100), &mut asking).await.is_err());
    redis.thaw().unwrap();
    assert_eq!(asking.await.unwrap().as_deref(), Some("v"));
}
