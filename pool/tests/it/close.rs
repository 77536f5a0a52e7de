//! What becomes of callers and connections when the pool is closed or dropped.

use std::time::Duration;

use escala_pool::PoolError;
use tokio::time::{Instant, sleep};

use crate::scripted::{Manager, assert_all_adds_up, config};

#[tokio::test(start_paused = true)]
async fn close_waits_for_leases_and_turns_waiters_away() {
    let manager = Manager::default();
    let pool = manager.pool(config(2).min_idle(2));
    let (held, _idle) = (pool.acquire().await.unwrap(), drop(pool.acquire().await.unwrap()));
    let full = pool.acquire().await.unwrap();
    let other = pool.clone();
    let waiter = tokio::spawn(async move { other.acquire().await.map(drop) });
    tokio::task::yield_now().await;
    let began = Instant::now();
    let (report, ()) = tokio::join!(pool.close(), async {
        sleep(Duration::from_secs(2)).await;
        drop(held);
        sleep(Duration::from_secs(1)).await;
        drop(full);
    });
    assert_eq!((report.abandoned, began.elapsed()), (0, Duration::from_secs(3)));
    assert!(matches!(waiter.await.unwrap(), Err(PoolError::Closed)));
    let error = pool.acquire().await.unwrap_err();
    assert!(matches!(error, PoolError::Closed) && error.is_connection());
    assert_eq!(manager.server.lock().open, 0);
    assert_eq!(pool.stats().size, 0);
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn close_gives_up_at_its_deadline_and_says_what_is_left() {
    let manager = Manager::default();
    let pool = manager.pool(config(3));
    let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let began = Instant::now();
    assert_eq!(pool.close().await.abandoned, 2);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    drop(held);
    assert_eq!(manager.server.lock().open, 0);
    assert_eq!(pool.close().await.abandoned, 0);
}

#[tokio::test(start_paused = true)]
async fn close_of_an_idle_pool_closes_every_connection() {
    let manager = Manager::default();
    let pool = manager.pool(config(3).min_idle(3));
    drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
    assert_eq!(pool.close().await.abandoned, 0);
    assert_eq!(manager.server.lock().open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_leaves_nothing_behind() {
    let manager = Manager::default();
    let pool = manager.pool(config(3).min_idle(2));
    let lease = pool.acquire().await.unwrap();
    drop(pool);
    assert!(manager.server.lock().open >= 1, "the lease is still good");
    drop(lease);
    // The upkeep and the tasks of the store see it when they run next.
    while manager.server.lock().open > 0 {
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_pool_whose_runtime_has_ended_turns_callers_away_in_another() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let pool = first.block_on(async { Manager::default().pool(config(2)) });
    drop(first);
    let (done, ended) = std::sync::mpsc::channel();
    // In a thread: what is wrong here never comes to an await that a timeout could end.
    std::thread::spawn(move || {
        let errors: Vec<_> =
            (0..3).map(|_| runtime().block_on(pool.acquire()).map(drop).unwrap_err()).collect();
        done.send((errors, pool.stats())).unwrap();
    });
    let (errors, stats) = ended.recv_timeout(Duration::from_secs(4)).unwrap();
    for error in errors {
        assert!(matches!(error, PoolError::Closed), "{error}");
    }
    assert_all_adds_up(&stats);
}
