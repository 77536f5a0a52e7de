//! Who gets a connection, when, and what a caller is told who gets none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escala_pool::{Acquire, Lease, Pool, PoolError};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

use crate::scripted::{Act, HOUR, Manager, assert_all_adds_up, config};

#[test]
fn pools_leases_and_futures_cross_threads() {
    fn crosses<T: Send + 'static>(_: &T) {}
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Pool<Manager>>();
    let _ = |pool: &'static Pool<Manager>, lease: Lease<Manager>| {
        crosses(&pool.acquire());
        crosses(&pool.close());
        crosses(&pool.clone().oneshot(()));
        crosses(&lease);
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_served_in_turn() {
    let mut seen = Vec::new();
    // What the system takes from one of the threads is no matter of the pool.
    while seen.len() < 5 {
        let (least, most) = least_and_most_served().await;
        seen.push((least, most));
        if most * 2 <= least * 3 {
            return;
        }
    }
    panic!("never fair: {seen:?}");
}

/// Of callers who all ask again as soon as they were served.
async fn least_and_most_served() -> (u64, u64) {
    const CALLERS: usize = 64;
    const ROUNDS: u64 = CALLERS as u64 * 300;
    let pool = Manager::default().pool(config(4));
    let served = Arc::new(AtomicU64::new(0));
    // Whoever came first would be served more often until the last has come.
    let all_are_here = Arc::new(Barrier::new(CALLERS));
    let tasks: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (pool, served) = (pool.clone(), Arc::clone(&served));
            let all_are_here = Arc::clone(&all_are_here);
            tokio::spawn(async move {
                all_are_here.wait().await;
                let mut own = 0_u64;
                while served.fetch_add(1, Ordering::Relaxed) < ROUNDS {
                    let _lease = pool.acquire().await.unwrap();
                    tokio::task::yield_now().await;
                    own += 1;
                }
                own
            })
        })
        .collect();
    let mut counts = Vec::new();
    for task in tasks {
        counts.push(task.await.unwrap());
    }
    assert_all_adds_up(&pool.stats());
    assert!(pool.stats().size <= 4);
    (counts.iter().copied().min().unwrap(), counts.iter().copied().max().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_connection_used_last_is_used_next_without_a_test() {
    let manager = Manager::default();
    let pool = manager.pool(config(2));
    let (first, second) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let last = second.id;
    drop(first);
    drop(second);
    sleep(Duration::from_millis(499)).await;
    assert_eq!(pool.acquire().await.unwrap().id, last);
    assert_eq!(manager.server.lock().tested, 0);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(pool.acquire().await.unwrap().id, last);
    assert_eq!(manager.server.lock().tested, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_times_out_and_says_so() {
    let pool = Manager::default().pool(config(1));
    let _held = pool.acquire().await.unwrap();
    let began = Instant::now();
    let error = pool.acquire().await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert!(matches!(error, PoolError::AcquireTimeout { .. }), "{error}");
    assert!(error.is_timeout() && error.is_saturated() && error.is_retryable());
    assert!(!error.is_connection());
    let stats = pool.stats();
    assert_eq!((stats.timed_out_total, stats.waiting, stats.size), (1, 0, 1));
    assert_all_adds_up(&stats);
}

#[tokio::test(start_paused = true)]
async fn one_waiter_more_than_allowed_is_rejected_at_once() {
    let pool = Manager::default().pool(config(1).max_waiters(1));
    let held = pool.acquire().await.unwrap();
    let other = pool.clone();
    let waiter = tokio::spawn(async move { other.acquire().await.map(drop) });
    tokio::task::yield_now().await;
    assert_eq!(pool.stats().waiting, 1);
    let began = Instant::now();
    let error = pool.acquire().await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(matches!(error, PoolError::TooManyWaiters { limit: 1 }), "{error}");
    assert!(error.is_saturated() && !error.is_timeout());
    drop(held);
    waiter.await.unwrap().unwrap();
    assert_eq!(pool.stats().rejected_total, 1);
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_caller_who_leaves_goes_to_the_next() {
    let pool = Manager::default().pool(config(1).max_waiters(1));
    let held = pool.acquire().await.unwrap();
    assert!(timeout(Duration::from_millis(10), pool.acquire()).await.is_err());
    assert!(timeout(Duration::from_millis(10), pool.acquire()).await.is_err());
    drop(held);
    pool.acquire().await.unwrap();
    let stats = pool.stats();
    assert_eq!((stats.cancelled_total, stats.rejected_total, stats.waiting), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connect_outlives_the_caller_who_started_it() {
    let manager = Manager::default();
    manager.connects([Act::Slow]);
    let pool = manager.pool(config(1));
    assert!(timeout(Duration::from_millis(10), pool.acquire()).await.is_err());
    assert_eq!(pool.acquire().await.unwrap().id, 1);
    assert_eq!(pool.stats().connects_total, 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_four_connects_run_at_once() {
    let manager = Manager::default();
    manager.connects([Act::Slow; 20]);
    let pool = manager.pool(config(20));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.acquire().await })
        })
        .collect();
    let mut leases = Vec::new();
    for task in tasks {
        leases.push(task.await.unwrap().unwrap());
    }
    assert_eq!(manager.server.lock().peak_connecting, 4);
    assert_eq!(pool.stats().size, 20);
}

#[tokio::test(start_paused = true)]
async fn a_discarded_lease_is_replaced() {
    let manager = Manager::default();
    let pool = manager.pool(config(1));
    pool.acquire().await.unwrap().discard();
    assert_eq!(manager.server.lock().open, 0);
    pool.acquire().await.unwrap().broken = true;
    assert_eq!(pool.acquire().await.unwrap().id, 3);
}

#[tokio::test]
async fn a_lease_may_be_dropped_on_a_thread_without_a_runtime() {
    let manager = Manager::default();
    let pool = manager.pool(config(1).min_idle(1));
    let lease = pool.acquire().await.unwrap();
    // bb8 starts a connect in its place, which needs the runtime.
    std::thread::spawn(move || lease.discard()).join().unwrap();
    assert_eq!(pool.acquire().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_past_its_lifetime_is_replaced() {
    let pool = Manager::default()
        .pool(config(1).max_lifetime(Duration::from_secs(100)).idle_timeout(HOUR));
    drop(pool.acquire().await.unwrap());
    sleep(Duration::from_secs(89)).await;
    assert_eq!(pool.acquire().await.unwrap().id, 1);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(pool.acquire().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_time_gets_what_is_at_hand_untested() {
    let manager = Manager::default();
    let pool = manager.pool(config(1).keepalive(Duration::ZERO).idle_timeout(HOUR));
    let id = pool.acquire().await.unwrap().id;
    for impatient in
        [Acquire::new().timeout(Duration::ZERO), Acquire::new().deadline(Instant::now())]
    {
        // Long enough idle that it would be tested.
        sleep(Duration::from_secs(60)).await;
        let lease = pool.acquire_with(impatient).await.unwrap();
        assert_eq!(lease.id, id);
        drop(lease);
    }
    assert_eq!(manager.server.lock().tested, 0);
    let stats = pool.stats();
    assert_eq!((stats.size, stats.closed.sum()), (1, 0));
    assert_all_adds_up(&stats);
}
