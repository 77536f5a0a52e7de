//! What can be changed while a pool is used: its size, and whether it serves at all.

use std::time::Duration;

use escala_pool::{Acquire, Lease, Pool, PoolError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::scripted::{HOUR, Manager, assert_all_adds_up, config};

const SECOND: Duration = Duration::from_secs(1);

type Waiting = JoinHandle<Result<Lease<Manager>, PoolError>>;

/// A caller who is in the queue when this returns.
async fn queued(pool: &Pool<Manager>) -> Waiting {
    let waiting = pool.stats().waiting;
    let pool = pool.clone();
    let caller = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire().await })
    };
    while pool.stats().waiting == waiting {
        tokio::task::yield_now().await;
    }
    caller
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_grows_serves_those_who_wait_in_their_order() {
    let pool = Manager::default().pool(config(1));
    let _held = pool.acquire().await.unwrap();
    let (first, second, third) = (queued(&pool).await, queued(&pool).await, queued(&pool).await);
    pool.resize(3).unwrap();
    let _leases = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert!(!third.is_finished());
    let stats = pool.stats();
    assert_eq!((stats.size, stats.max_size, stats.waiting), (3, 3, 1));
    assert!(third.await.unwrap().unwrap_err().is_saturated());
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_shrinks_closes_what_is_idle_and_lets_leases_end() {
    let manager = Manager::default();
    let pool = manager.pool(config(6).min_idle(6).idle_timeout(HOUR));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.acquire().await.unwrap());
    }
    sleep(SECOND).await;
    assert_eq!((pool.stats().size, pool.stats().available), (6, 2));
    pool.resize(2).unwrap();
    assert_eq!((pool.stats().size, pool.stats().closed.surplus_total), (4, 2));
    let next = queued(&pool).await;
    drop(held.pop());
    drop(held.pop());
    sleep(SECOND).await;
    assert!(!next.is_finished(), "two are out, and two there may be");
    assert_eq!((pool.stats().size, manager.server.lock().open), (2, 2));
    drop(held.pop());
    let next = next.await.unwrap().unwrap();
    drop((held, next));
    let stats = pool.stats();
    assert_eq!((stats.size, stats.available, stats.connects_total), (2, 2, 6));
    assert_all_adds_up(&stats);
}

#[tokio::test(start_paused = true)]
async fn a_size_that_breaks_its_rule_is_refused() {
    let pool = Manager::default().pool(config(1));
    assert_eq!(pool.resize(0).unwrap_err().field, "max_size");
    assert_eq!(pool.stats().max_size, 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_holds_callers_back_and_serves_them_in_order_when_it_is_resumed() {
    let pool = Manager::default().pool(config(1));
    let held = pool.acquire().await.unwrap();
    pool.pause();
    let (first, second) = (queued(&pool).await, queued(&pool).await);
    drop(held);
    sleep(SECOND).await;
    assert!(pool.stats().paused && pool.stats().leased == 0);
    assert!(!first.is_finished() && !second.is_finished());
    pool.resume();
    drop(first.await.unwrap().unwrap());
    second.await.unwrap().unwrap();
    assert!(!pool.stats().paused);
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_paused_pool_keeps_the_deadline() {
    let pool = Manager::default().pool(config(1));
    pool.pause();
    let began = Instant::now();
    let error = pool.acquire_with(Acquire::new().timeout(2 * SECOND)).await.unwrap_err();
    assert_eq!(began.elapsed(), 2 * SECOND);
    let PoolError::AcquireTimeout { pool: snapshot, .. } = &error else { panic!("{error}") };
    assert!(snapshot.paused && error.to_string().contains("paused for 2s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_leaves_the_server_alone() {
    let manager = Manager::default();
    let pool = manager.pool(config(3).min_idle(2).keepalive(10 * SECOND).idle_timeout(HOUR));
    sleep(SECOND).await;
    pool.pause();
    sleep(60 * SECOND).await;
    assert_eq!(manager.server.lock().tested, 0);
    pool.resume();
    sleep(SECOND).await;
    assert_eq!(manager.server.lock().tested, 2);
}

#[tokio::test(start_paused = true)]
async fn close_keeps_a_deadline_of_its_own() {
    let pool = Manager::default().pool(config(1));
    let held = pool.acquire().await.unwrap();
    let began = Instant::now();
    assert_eq!(pool.close_within(2 * SECOND).await.abandoned, 1);
    assert_eq!(began.elapsed(), 2 * SECOND);
    let (report, ()) = tokio::join!(pool.close_within(HOUR), async {
        sleep(60 * SECOND).await;
        drop(held);
    });
    assert_eq!((report.abandoned, began.elapsed()), (0, 62 * SECOND));
    assert_eq!(pool.stats().closed.pool_closed_total, 1);
}

#[tokio::test(start_paused = true)]
async fn each_call_has_its_own_deadline() {
    let pool = Manager::default().pool(config(1));
    let _held = pool.acquire().await.unwrap();
    let began = Instant::now();
    let at_once = Acquire::new().timeout(Duration::ZERO);
    assert!(pool.acquire_with(at_once).await.unwrap_err().is_timeout());
    assert_eq!(began.elapsed(), Duration::ZERO);
    let request = Acquire::new().deadline(began + 3 * SECOND);
    assert!(pool.acquire_with(request).await.unwrap_err().is_timeout());
    assert_eq!(began.elapsed(), 3 * SECOND);
    let patient = Acquire::new().timeout(10 * SECOND);
    assert!(pool.acquire_with(patient).await.unwrap_err().is_timeout());
    assert_eq!(began.elapsed(), 13 * SECOND);
}
