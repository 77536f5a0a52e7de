//! What the hook is told, and leases that are held for too long.

use std::sync::Arc;
use std::time::Duration;

use escala_pool::{CloseReason, Pool, PoolBuilder, PoolConfig, PoolEvent};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::scripted::{Act, HOUR, Manager, assert_all_adds_up, config};

const SECOND: Duration = Duration::from_secs(1);

type Log = Arc<Mutex<Vec<String>>>;

fn line(event: &PoolEvent<'_>) -> String {
    match event {
        PoolEvent::Acquired { waited, .. } => format!("acquired after {waited:?}"),
        PoolEvent::AcquireFailed { waited, error, .. } => format!("{error} after {waited:?}"),
        PoolEvent::Returned { held, .. } => format!("returned after {held:?}"),
        PoolEvent::LeakSuspected { held, .. } => format!("leak after {held:?}"),
        PoolEvent::LeakReturned { held, .. } => format!("leak returned after {held:?}"),
        PoolEvent::Connected { took } => format!("connected in {took:?}"),
        PoolEvent::ConnectFailed { took, error, .. } => format!("{error} in {took:?}"),
        PoolEvent::Closed { reason, age } => format!("closed {reason} at {age:?}"),
        PoolEvent::Resized { from, to } => format!("resized {from} to {to}"),
        PoolEvent::Paused => "paused".to_owned(),
        PoolEvent::Resumed => "resumed".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A pool whose hook writes down what it is told, and asks the pool for its figures meanwhile.
fn logged(manager: &Manager, config: PoolConfig) -> (Pool<Manager>, Log) {
    let log = Log::default();
    let pool: Arc<Mutex<Option<Pool<Manager>>>> = Arc::default();
    let (lines, asked) = (Arc::clone(&log), Arc::clone(&pool));
    let hook = move |event: &PoolEvent<'_>| {
        lines.lock().push(line(event));
        if let Some(pool) = &*asked.lock() {
            assert_all_adds_up(&pool.stats());
        }
    };
    let builder: PoolBuilder<Manager> = Pool::builder(manager.clone()).config(config);
    let built = builder.on_event(hook).build().unwrap();
    *pool.lock() = Some(built.clone());
    (built, log)
}

fn take(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock())
}

#[tokio::test(start_paused = true)]
async fn the_hook_is_told_of_waits_connects_holds_and_closes() {
    let manager = Manager::default();
    let (pool, log) = logged(&manager, config(1).acquire_timeout(2 * SECOND));
    manager.connects([Act::Fail, Act::Slow]);
    pool.acquire().await.unwrap_err();
    assert_eq!(take(&log), ["scripted failure in 0ns", "no connection could be made after 0ns"]);
    sleep(SECOND).await;
    let lease = pool.acquire().await.unwrap();
    assert_eq!(take(&log), ["connected in 100ms", "acquired after 100ms"]);
    let error = pool.acquire().await.unwrap_err();
    assert_eq!(take(&log), [format!("{error} after 2s")]);
    drop(lease);
    assert_eq!(take(&log), ["returned after 2s"]);
    pool.acquire().await.unwrap().discard();
    let told = ["acquired after 0ns", "closed discarded at 2s", "returned after 0ns"];
    assert_eq!(take(&log), told);
    pool.pause();
    pool.pause();
    pool.resume();
    pool.resize(2).unwrap();
    assert_eq!(take(&log), ["paused", "resumed", "resized 1 to 2"]);
}

#[tokio::test(start_paused = true)]
async fn each_reason_for_closing_is_told_and_counted() {
    let manager = Manager::default();
    let limits = config(1).idle_timeout(30 * SECOND).max_lifetime(100 * SECOND);
    let (pool, log) = logged(&manager, limits);
    pool.acquire().await.unwrap().broken = true;
    pool.acquire().await.unwrap().panics = true;
    drop(pool.acquire().await.unwrap());
    sleep(SECOND).await;
    manager.tests([Act::Fail]);
    drop(pool.acquire().await.unwrap());
    sleep(41 * SECOND).await;
    let old = pool.acquire().await.unwrap();
    sleep(101 * SECOND).await;
    drop(old);
    drop(pool.acquire().await.unwrap());
    pool.close().await;
    let closed: Vec<_> = take(&log).into_iter().filter(|line| line.starts_with("closed")).collect();
    let reasons: Vec<_> = closed.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    let expected = ["broken", "broken", "invalid", "idle", "lifetime", "pool_closed"];
    assert_eq!(reasons, expected);
    let counts = pool.stats().closed;
    assert_eq!((counts.broken_total, counts.sum()), (2, 6));
    assert_eq!(CloseReason::PoolClosed.to_string(), "pool_closed");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_harms_nobody() {
    let manager = Manager::default();
    manager.connects([Act::Fail]);
    let builder = Pool::builder(manager.clone()).config(config(2).min_idle(1));
    let pool = builder.on_event(|event| panic!("{event:?}")).build().unwrap();
    sleep(SECOND).await;
    let leases = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    leases.0.discard();
    drop(leases.1);
    sleep(60 * SECOND).await;
    assert_eq!((pool.stats().size, pool.stats().available), (1, 1));
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn a_lease_held_for_too_long_is_told_once_with_its_place_and_again_when_it_is_back() {
    let places = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&places);
    let manager = Manager::default();
    let limits = config(3).leak_threshold(10 * SECOND).idle_timeout(HOUR);
    let builder = Pool::builder(manager).config(limits).on_event(move |event| match event {
        PoolEvent::LeakSuspected { held, place } => {
            told.lock().push(("leak", *held, place.file(), place.line()));
        }
        PoolEvent::LeakReturned { held, place } => {
            told.lock().push(("back", *held, place.file(), place.line()));
        }
        _ => {}
    });
    let pool = builder.build().unwrap();
    sleep(3 * SECOND).await;
    let line = line!() + 1;
    let lease = pool.acquire().await.unwrap();
    drop(pool.acquire().await.unwrap());
    sleep(9 * SECOND).await;
    assert_eq!((places.lock().len(), pool.stats().leaked), (0, 0));
    sleep(50 * SECOND).await;
    assert_eq!((pool.stats().leaked, pool.stats().leaked_total), (1, 1));
    drop(lease);
    assert_eq!((pool.stats().leaked, pool.stats().leaked_total), (0, 1));
    let told = places.lock().clone();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((told[0].0, told[0].3, told[1].0, told[1].3), ("leak", line, "back", line));
    assert!(told[0].1 >= 10 * SECOND && told[0].1 < 11 * SECOND, "{told:?}");
    assert_eq!(told[1].1, 59 * SECOND);
    assert!(told[0].2.ends_with("events.rs"));
}

#[tokio::test(start_paused = true)]
async fn the_sums_of_durations_are_those_of_the_events() {
    let manager = Manager::default();
    manager.connects([Act::Slow]);
    let pool = manager.pool(config(1));
    let lease = pool.acquire().await.unwrap();
    let (second, ()) = tokio::join!(pool.acquire(), async {
        sleep(2 * SECOND).await;
        drop(lease);
    });
    sleep(SECOND).await;
    drop(second);
    let stats = pool.stats();
    let near = |value: f64, expected: f64| (value - expected).abs() < 1e-6;
    assert!(near(stats.wait_seconds_total, 2.1), "{stats:?}");
    assert!(near(stats.hold_seconds_total, 3.0), "{stats:?}");
    assert!(near(stats.connect_seconds_total, 0.1), "{stats:?}");
}
