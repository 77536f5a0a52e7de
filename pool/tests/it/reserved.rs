//! The lane that stays free for health checks and administration.

use std::pin::pin;
use std::time::Duration;

use escala_pool::{Acquire, PoolError};
use tokio::time::{Instant, sleep, timeout};

use crate::scripted::{HOUR, Manager, assert_all_adds_up, config};

const MOMENT: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_reserved_caller_is_served_when_all_connections_are_in_use() {
    let manager = Manager::default();
    let pool = manager.pool(config(2));
    let _held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let mut ordinary = pin!(pool.acquire());
    assert!(timeout(MOMENT, ordinary.as_mut()).await.is_err());
    let began = Instant::now();
    let check = pool.acquire_with(Acquire::reserved()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    let stats = pool.stats();
    assert_eq!((stats.size, stats.leased, stats.reserved_total), (3, 3, 1));
    assert!(timeout(MOMENT, ordinary.as_mut()).await.is_err(), "it is not for everybody");
    drop(check);
    assert!(timeout(MOMENT, ordinary.as_mut()).await.is_err(), "also when it is idle");
    // The next check finds the connection there.
    drop(pool.acquire_with(Acquire::reserved()).await.unwrap());
    assert_eq!((pool.stats().connects_total, manager.server.lock().peak_open), (3, 3));
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn a_reserved_caller_takes_an_ordinary_permit_while_there_is_one() {
    let pool = Manager::default().pool(config(3));
    let checks = [Acquire::reserved(); 3].map(|acquire| pool.acquire_with(acquire));
    for check in checks {
        check.await.unwrap();
    }
    let leases = tokio::join!(
        pool.acquire_with(Acquire::reserved()),
        pool.acquire_with(Acquire::reserved()),
        pool.acquire_with(Acquire::reserved()),
    );
    let stats = pool.stats();
    assert_eq!((stats.size, stats.leased, stats.reserved_total), (3, 3, 0));
    drop(leases);
}

#[tokio::test(start_paused = true)]
async fn one_reserved_caller_more_waits_for_whatever_comes_first() {
    let pool = Manager::default().pool(config(1));
    let held = pool.acquire().await.unwrap();
    let check = pool.acquire_with(Acquire::reserved()).await.unwrap();
    let mut next = pin!(pool.acquire_with(Acquire::reserved()));
    assert!(timeout(MOMENT, next.as_mut()).await.is_err());
    drop(held);
    let next = next.await.unwrap();
    let mut last = pin!(pool.acquire_with(Acquire::reserved()));
    assert!(timeout(MOMENT, last.as_mut()).await.is_err());
    drop(check);
    drop((last.await.unwrap(), next));
    assert_eq!((pool.stats().size, pool.stats().reserved_total), (2, 2));
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_a_reserved_lane_keeps_its_size() {
    let manager = Manager::default();
    let pool = manager.pool(config(1).reserved(0));
    let held = pool.acquire().await.unwrap();
    let check = Acquire::reserved().timeout(MOMENT);
    let error = pool.acquire_with(check).await.unwrap_err();
    assert!(matches!(error, PoolError::AcquireTimeout { .. }), "{error}");
    drop(held);
    pool.acquire_with(check).await.unwrap();
    assert_eq!(manager.server.lock().peak_open, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_opened_for_the_reserved_lane_goes_when_it_is_idle() {
    let pool = Manager::default().pool(config(1).min_idle(1));
    let held = pool.acquire().await.unwrap();
    drop(pool.acquire_with(Acquire::reserved()).await.unwrap());
    assert_eq!(pool.stats().size, 2);
    drop(held);
    sleep(Duration::from_secs(45)).await;
    assert_eq!((pool.stats().size, pool.stats().closed.idle_total), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reserved_caller_is_not_held_back_by_a_pause() {
    let pool = Manager::default().pool(config(2).idle_timeout(HOUR));
    pool.pause();
    drop(pool.acquire_with(Acquire::reserved()).await.unwrap());
    assert_eq!(pool.stats().reserved_total, 1);
    pool.resume();
    pool.acquire().await.unwrap();
    assert_eq!(pool.stats().size, 1);
}
