//! Connects and tests that fail, hang or panic.

use std::error::Error;
use std::time::Duration;

use escala_pool::PoolError;
use tokio::time::{Instant, sleep};

use crate::scripted::{Act, Manager, Scripted, assert_all_adds_up, config};

#[tokio::test(start_paused = true)]
async fn a_failed_connect_is_told_at_once_with_its_cause() {
    let manager = Manager::default();
    manager.connects([Act::Fail]);
    let pool = manager.pool(config(2));
    let began = Instant::now();
    let error = pool.acquire().await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(matches!(error, PoolError::Connect(_)), "{error}");
    assert!(error.source().unwrap().is::<Scripted>());
    assert!(error.is_connection() && error.is_retryable() && !error.is_saturated());
    pool.acquire().await.unwrap();
    let stats = pool.stats();
    assert_eq!((stats.failed_total, stats.connect_failures_total, stats.connects_total), (1, 1, 2));
    assert_all_adds_up(&stats);
}

#[tokio::test(start_paused = true)]
async fn each_failed_connect_is_told_to_one_caller() {
    let manager = Manager::default();
    manager.connects([Act::Fail, Act::Fail, Act::Slow]);
    let pool = manager.pool(config(3));
    let (a, b, c) = tokio::join!(pool.acquire(), pool.acquire(), pool.acquire());
    assert!(a.is_err() && b.is_err(), "those who waited longest");
    assert_eq!(c.unwrap().id, 1);
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn hung_handshakes_give_their_slots_back() {
    let manager = Manager::default();
    manager.connects([Act::Hang, Act::Hang]);
    let pool = manager.pool(config(2).connect_timeout(Duration::from_secs(1)));
    let (first, second) = tokio::join!(pool.acquire(), pool.acquire());
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(error.is_connection() && error.is_timeout(), "{error:?}");
        assert!(error.source().unwrap().to_string().contains("1s"));
    }
    let leases = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    assert_eq!(pool.stats().size, 2);
    drop(leases);
    assert_eq!(pool.stats().connecting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_as_slow_as_the_acquire_timeout_blames_the_node() {
    let manager = Manager::default();
    manager.connects([Act::Hang]);
    let pool = manager.pool(config(1).connect_timeout(Duration::from_secs(60)));
    let error = pool.acquire().await.unwrap_err();
    assert!(matches!(error, PoolError::ConnectTimeout { cause: None, .. }), "{error:?}");
    assert!(error.is_connection() && error.is_timeout() && !error.is_saturated());
    assert_eq!(pool.stats().timed_out_total, 1);
}

#[tokio::test(start_paused = true)]
async fn panicking_connects_give_their_slots_back() {
    let manager = Manager::default();
    manager.connects([Act::Panic, Act::Panic]);
    let pool = manager.pool(config(2));
    for _ in 0..2 {
        let error = pool.acquire().await.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "the connect panicked: scripted panic");
    }
    let _leases = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    assert_eq!(pool.stats().size, 2);
    assert_eq!(pool.stats().connect_failures_total, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_connect_is_tried_again_while_others_work() {
    let manager = Manager::default();
    let pool = manager.pool(config(2));
    let _works = pool.acquire().await.unwrap();
    manager.connects([Act::Fail, Act::Fail]);
    pool.acquire().await.unwrap();
    assert_eq!(pool.stats().connect_failures_total, 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_carries_the_last_failure() {
    let manager = Manager::default();
    let pool = manager.pool(config(2));
    let _works = pool.acquire().await.unwrap();
    manager.connects([Act::Fail; 1_000]);
    let began = Instant::now();
    let error = pool.acquire().await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert!(matches!(error, PoolError::ConnectTimeout { cause: Some(_), .. }), "{error:?}");
    assert!(error.source().unwrap().is::<Scripted>());
    assert!(manager.server.lock().connects.len() > 900, "the server is not hammered");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_its_test_is_never_handed_on() {
    for act in [Act::Fail, Act::Hang, Act::Panic] {
        let manager = Manager::default();
        let pool = manager.pool(config(1));
        drop(pool.acquire().await.unwrap());
        sleep(Duration::from_secs(1)).await;
        manager.tests([act]);
        assert_eq!(pool.acquire().await.unwrap().id, 2, "{act:?}");
        assert_eq!(manager.server.lock().open, 1, "{act:?}");
        assert_eq!(pool.stats().closed.invalid_total, 1, "{act:?}");
    }
}
