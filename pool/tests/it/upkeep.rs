//! What becomes of idle connections, and how many are kept.

use std::time::Duration;

use escala_pool::{Lease, Pool};
use tokio::time::sleep;

use crate::scripted::{Act, HOUR, Manager, assert_all_adds_up, config};

const SECOND: Duration = Duration::from_secs(1);

async fn take(pool: &Pool<Manager>, count: usize) -> Vec<Lease<Manager>> {
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(pool.acquire().await.unwrap());
    }
    leases
}

#[tokio::test(start_paused = true)]
async fn the_surplus_is_closed_when_it_was_idle_for_too_long() {
    let manager = Manager::default();
    let pool = manager.pool(config(5).min_idle(2).idle_timeout(30 * SECOND));
    drop(take(&pool, 5).await);
    sleep(29 * SECOND).await;
    assert_eq!(pool.stats().size, 5);
    sleep(12 * SECOND).await;
    let stats = pool.stats();
    assert_eq!((stats.size, stats.available, stats.closed.idle_total), (2, 2, 3));
    assert_eq!((stats.connects_total, manager.server.lock().open), (5, 2));
    assert_all_adds_up(&stats);
}

#[tokio::test(start_paused = true)]
async fn the_connections_used_last_are_the_ones_that_stay() {
    let pool = Manager::default().pool(config(4).min_idle(1).idle_timeout(30 * SECOND));
    drop(take(&pool, 4).await);
    let last = pool.acquire().await.unwrap().id;
    sleep(60 * SECOND).await;
    assert_eq!(pool.stats().size, 1);
    assert_eq!(pool.acquire().await.unwrap().id, last);
}

#[tokio::test(start_paused = true)]
async fn every_idle_connection_is_tested_in_time_and_keeps_its_place() {
    let manager = Manager::default();
    let pool = manager.pool(config(3).idle_timeout(HOUR).keepalive(120 * SECOND));
    drop(take(&pool, 3).await);
    sleep(Duration::from_millis(1)).await;
    let top = pool.acquire().await.unwrap().id;
    sleep(107 * SECOND).await;
    assert_eq!(manager.server.lock().tested, 0);
    sleep(14 * SECOND).await;
    assert_eq!(manager.server.lock().tested, 3);
    sleep(121 * SECOND).await;
    assert_eq!(manager.server.lock().tested, 6);
    assert_eq!(pool.stats().tests_total, 6);
    // A test is no use: what was used last is still on top.
    assert_eq!(pool.acquire().await.unwrap().id, top);
    assert_eq!(pool.stats().size, 3);
}

#[tokio::test(start_paused = true)]
async fn without_keepalive_nothing_is_tested_while_it_is_idle() {
    for off in [None, Some(Duration::ZERO)] {
        let manager = Manager::default();
        let pool = manager.pool(config(1).idle_timeout(HOUR).keepalive(off));
        drop(pool.acquire().await.unwrap());
        sleep(HOUR / 2).await;
        assert_eq!(manager.server.lock().tested, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_idle_connection_is_found_and_replaced_before_a_caller_comes() {
    for act in [Act::Fail, Act::Hang, Act::Panic] {
        let manager = Manager::default();
        let pool = manager.pool(config(3).min_idle(1).keepalive(60 * SECOND));
        sleep(SECOND).await;
        manager.tests([act]);
        sleep(62 * SECOND).await;
        let stats = pool.stats();
        assert_eq!((stats.size, stats.available), (1, 1), "{act:?}");
        assert_eq!(stats.closed.invalid_total, 1, "{act:?}");
        assert_eq!(pool.acquire().await.unwrap().id, 2, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn min_idle_is_opened_one_after_another_and_again_after_failures() {
    let manager = Manager::default();
    manager.connects([Act::Slow, Act::Fail, Act::Slow, Act::Slow]);
    let pool = manager.pool(config(5).min_idle(3));
    sleep(5 * SECOND).await;
    assert_eq!((pool.stats().size, manager.server.lock().peak_connecting), (3, 1));
    // What a user discards is opened again without a caller.
    pool.acquire().await.unwrap().discard();
    sleep(SECOND).await;
    assert_eq!(pool.stats().size, 3);
    assert_all_adds_up(&pool.stats());
}
