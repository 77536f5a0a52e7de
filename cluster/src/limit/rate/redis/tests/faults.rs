//! A Redis that stands still, is restarted, forgets, or must not be written to.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_costs_nobody_more_than_the_timeout() {
    let redis = Redis::start().await.unwrap();
    let store = hasty(&redis.url()).await;
    redis.freeze().unwrap();
    fails(&store).await;
    assert!(store.stats().breaker.opened_total >= 1, "{:?}", store.stats());
    // So that no trial falls among them.
    store.breaker().force_open();
    let skipped = store.stats().skipped_total;
    for n in 1..=100 {
        assert_eq!(check(&store, "k", slow(10)).await, Verdict::Failed);
        assert_eq!(store.stats().skipped_total, skipped + n, "nobody is asked");
    }
    redis.thaw().unwrap();
    store.breaker().reset();
    recovers(&store).await;
    adds_up(&store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_started_again_is_found_again() {
    let redis = Redis::start().await.unwrap();
    let store = hasty(&redis.url()).await;
    for _ in 0..2 {
        redis.kill().unwrap();
        fails(&store).await;
        redis.restart().await.unwrap();
        recovers(&store).await;
    }
    let stats = adds_up(&store);
    assert!(stats.errors_total > 0 && stats.connections_total >= 3, "{stats:?}");
}

#[tokio::test]
async fn a_restart_that_nobody_saw_fails_nobody() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    for _ in 0..3 {
        assert!(is_allowed(check(&store, "k", slow(10)).await));
        redis.restart().await.unwrap();
    }
    let killed = redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    assert!(is_allowed(check(&store, "k", slow(10)).await), "{killed}");
    let stats = adds_up(&store);
    assert_eq!((stats.allowed_total, stats.errors_total, stats.timeouts_total), (4, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ways_to_redis_that_break_or_swallow_everything_are_given_up() {
    let redis = Redis::start().await.unwrap();
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let store = hasty(&url(&proxy)).await;
    proxy.cut();
    fails(&store).await;
    proxy.heal();
    recovers(&store).await;
    // Each byte is taken and none is answered, on this connection only: the proxy would reset it.
    let before = proxy.accepted();
    proxy.blackhole(true);
    fails(&store).await;
    let end = Instant::now() + PATIENCE;
    while proxy.accepted() == before {
        assert!(Instant::now() < end, "another way is tried");
        assert_eq!(check(&store, "k", slow(10)).await, Verdict::Failed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.blackhole(false);
    recovers(&store).await;
    // Slower than the timeout, then no longer.
    proxy.delay(TIMEOUT);
    fails(&store).await;
    proxy.delay(Duration::ZERO);
    recovers(&store).await;
    adds_up(&store);
}

#[tokio::test]
async fn a_script_that_is_forgotten_all_the_time_changes_no_decision() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    let mut allowed = 0;
    for _ in 0..20 {
        redis.cli(&["SCRIPT", "FLUSH"]).await.unwrap();
        allowed += u32::from(is_allowed(check(&store, "k", slow(10)).await));
    }
    assert_eq!(allowed, 10);
    assert_eq!(adds_up(&store).errors_total, 0);
}

#[tokio::test]
async fn a_wrong_type_at_one_key_fails_that_key_and_no_other() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    redis.cli(&["RPUSH", "test:rate:bad", "x"]).await.unwrap();
    for _ in 0..20 {
        assert_eq!(check(&store, "bad", slow(1)).await, Verdict::Failed);
    }
    assert_eq!(store.breaker().state(), State::Closed);
    assert!(is_allowed(check(&store, "good", slow(1)).await));
    assert_eq!(adds_up(&store).errors_total, 20);
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left_alone_until_it_writes_again() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    assert!(is_allowed(check(&store, "k", slow(1)).await));
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    fails(&store).await;
    assert!(store.stats().breaker.opened_total >= 1, "{:?}", store.stats());
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    recovers(&store).await;
}

#[tokio::test]
async fn a_check_that_is_given_up_is_counted_as_that() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    assert!(is_allowed(check(&store, "k", slow(100)).await));
    redis.freeze().unwrap();
    drop(store.remote.check(&[claim("k", 1, slow(100))]));
    assert!(timeout(TIMEOUT, check(&store, "k", slow(100))).await.is_err());
    redis.thaw().unwrap();
    let stats = adds_up(&store);
    assert_eq!((stats.cancelled_total, stats.in_flight), (2, 0));
}
