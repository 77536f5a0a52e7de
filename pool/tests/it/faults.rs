//! Connects and tests that fail, hang or panic.

use std::error::Error;
use std::time::Duration;

use escala_pool::{Acquire, PoolError};
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

#[tokio::test(start_paused = true)]
async fn the_first_handshakes_hang_or_panic_and_full_capacity_returns() {
    for act in [Act::Hang, Act::Panic] {
        let manager = Manager::default();
        manager.connects([act; 6]);
        let pool = manager.pool(config(4).connect_timeout(Duration::from_secs(1)));
        let began = Instant::now();
        // As a client does that tries again.
        let mut leases = Vec::new();
        while leases.len() < 4 {
            leases.extend(pool.acquire().await);
            sleep(Duration::from_millis(10)).await;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!((pool.stats().size, pool.stats().connecting), (4, 0), "{act:?}");
        assert_all_adds_up(&pool.stats());
    }
}

#[tokio::test(start_paused = true)]
async fn of_four_connections_the_frozen_one_is_closed_after_one_failed_test() {
    let manager = Manager::default();
    let pool = manager.pool(config(4));
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(pool.acquire().await.unwrap());
    }
    drop(leases);
    sleep(Duration::from_secs(1)).await;
    manager.server.lock().frozen = Some(4);
    let mut slow = 0;
    for _ in 0..16 {
        let began = Instant::now();
        let mut four = Vec::new();
        for _ in 0..4 {
            four.push(pool.acquire().await.unwrap());
        }
        slow += usize::from(began.elapsed() >= Duration::from_secs(1));
        assert!(four.iter().all(|lease| lease.id != 4));
        drop(four);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((slow, pool.stats().closed.invalid_total), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn sixty_four_callers_of_an_empty_pool_make_four_connects_at_a_time() {
    let manager = Manager::default();
    manager.connects([Act::Slow; 64]);
    let pool = manager.pool(config(50));
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let _lease = pool.acquire().await.unwrap();
                sleep(Duration::from_millis(5)).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(manager.server.lock().peak_connecting, 4);
    // Most were served by a lease that came back before their connect would have been made.
    assert!(pool.stats().connects_total < 10, "{:?}", pool.stats());
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_is_asked_by_one_connect_at_a_time_and_callers_are_told_at_once() {
    let manager = Manager::default();
    manager.connects([Act::Fail; 10_000]);
    let pool = manager.pool(config(10));
    let began = Instant::now();
    let mut failures = 0;
    while began.elapsed() < Duration::from_secs(20) {
        let asked = Instant::now();
        let calls: Vec<_> = (0..64)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.acquire().await.unwrap_err() })
            })
            .collect();
        for call in calls {
            let error = call.await.unwrap();
            assert!(error.source().unwrap().is::<Scripted>(), "{error}");
            failures += 1;
        }
        // One caller is told of each failure; the others may sit out several short waits in a row.
        assert!(asked.elapsed() < Duration::from_millis(150), "{:?}", asked.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    let asked = 10_000 - manager.server.lock().connects.len();
    assert!(failures > 10_000 && asked < 250, "{asked} connects for {failures} callers");
    // It is back, and so is the pool: within the longest backoff.
    manager.server.lock().connects.clear();
    let back = Instant::now();
    while pool.acquire().await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(back.elapsed() <= Duration::from_millis(1_100), "{:?}", back.elapsed());
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_shows_the_pool_and_the_last_failed_connect() {
    let manager = Manager::default();
    let pool = manager.pool(config(2));
    let _held = pool.acquire().await.unwrap();
    manager.connects([Act::Fail]);
    let hopeless = pool.acquire_with(Acquire::new().timeout(Duration::from_millis(1)));
    let _told = hopeless.await.unwrap_err();
    manager.connects([Act::Fail; 1_000]);
    let (waits, error) = tokio::join!(pool.acquire(), async {
        pool.acquire_with(Acquire::new().timeout(Duration::from_secs(1))).await.unwrap_err()
    });
    let PoolError::AcquireTimeout { waited, pool: snapshot, cause } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*waited, Duration::from_secs(1));
    assert_eq!((snapshot.size, snapshot.max_size, snapshot.leased), (1, 2, 1));
    assert_eq!((snapshot.available, snapshot.waiting), (0, 2));
    assert!(cause.as_ref().unwrap().is::<Scripted>());
    assert!(error.to_string().contains("size 1 of 2, 0 available, 1 leased, 2 waiting"), "{error}");
    drop(waits);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_when_asked_loses_its_connection_and_nothing_else() {
    let manager = Manager::default();
    let pool = manager.pool(config(1));
    pool.acquire().await.unwrap().panics = true;
    assert_eq!(pool.acquire().await.unwrap().id, 2);
    assert_eq!(pool.stats().closed.broken_total, 1);
    assert_all_adds_up(&pool.stats());
}
