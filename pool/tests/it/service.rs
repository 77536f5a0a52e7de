//! The pool as a tower service: what readiness holds, and what it gives back.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use escala_pool::{Pool, PoolError};
use tokio::time::{Instant, sleep, timeout};
use tower::buffer::Buffer;
use tower::load_shed::LoadShed;
use tower::load_shed::error::Overloaded;
use tower::{Service, ServiceExt};

use crate::scripted::{Act, Manager, assert_all_adds_up, config};

/// Whether the service is ready at this moment. What it waits for goes on being waited for.
async fn is_ready(pool: &mut Pool<Manager>) -> bool {
    poll_fn(|cx| Poll::Ready(pool.poll_ready(cx).is_ready())).await
}

#[tokio::test(start_paused = true)]
async fn readiness_is_a_permit_and_the_clone_that_has_it_keeps_it() {
    let pool = Manager::default().pool(config(1));
    let (mut first, mut second) = (pool.clone(), pool.clone());
    assert!(is_ready(&mut first).await);
    assert!(is_ready(&mut first).await, "it stays ready");
    assert!(!is_ready(&mut second).await);
    assert_eq!(pool.stats().waiting, 2);
    let lease = first.call(()).await.unwrap();
    assert!(!is_ready(&mut second).await);
    drop(lease);
    assert!(is_ready(&mut second).await);
    assert!(!is_ready(&mut first).await, "a call uses readiness up");
    second.call(()).await.unwrap();
    drop((first, second));
    let stats = pool.stats();
    assert_eq!((stats.acquired_total, stats.cancelled_total, stats.waiting), (2, 1, 0));
    pool.acquire().await.unwrap();
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn a_ready_clone_that_is_dropped_passes_its_permit_on() {
    let pool = Manager::default().pool(config(1));
    let mut ready = pool.clone();
    assert!(is_ready(&mut ready).await);
    let mut waits = pin!(pool.acquire());
    assert!(timeout(Duration::from_millis(10), waits.as_mut()).await.is_err());
    assert!(!is_ready(&mut ready.clone()).await, "a clone is not ready with its original");
    drop(ready);
    waits.await.unwrap();
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn clones_and_callers_wait_in_one_line() {
    let pool = Manager::default().pool(config(1));
    let held = pool.acquire().await.unwrap();
    let mut first = pool.clone();
    assert!(!is_ready(&mut first).await);
    let mut second = pin!(pool.acquire());
    assert!(timeout(Duration::from_millis(10), second.as_mut()).await.is_err());
    drop(held);
    assert!(timeout(Duration::from_millis(10), second.as_mut()).await.is_err());
    assert!(is_ready(&mut first).await);
    drop(first.call(()).await.unwrap());
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_is_ready_and_rejects_the_call() {
    let pool = Manager::default().pool(config(1));
    let mut ready = pool.clone();
    assert!(is_ready(&mut ready).await);
    let mut waits = pool.clone();
    assert!(!is_ready(&mut waits).await);
    let close = pool.close_within(Duration::from_millis(1));
    assert_eq!(close.await.abandoned, 1, "the permit of the ready clone");
    for service in [&mut ready, &mut waits, &mut pool.clone()] {
        assert!(is_ready(service).await);
        assert!(matches!(service.call(()).await, Err(PoolError::Closed)));
    }
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_readiness_for_too_long_is_rejected_by_the_call() {
    let pool = Manager::default().pool(config(1).max_waiters(1));
    let _held = pool.acquire().await.unwrap();
    let began = Instant::now();
    let mut service = pool.clone();
    let (late, refused) = tokio::join!(service.ready(), pool.clone().oneshot(()));
    assert!(matches!(refused, Err(PoolError::TooManyWaiters { limit: 1 })));
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    let error = late.unwrap().call(()).await.unwrap_err();
    assert!(error.is_saturated() && error.is_timeout(), "{error}");
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn the_call_connects_and_tests_as_an_acquire_does() {
    let manager = Manager::default();
    let pool = manager.pool(config(1));
    manager.connects([Act::Fail]);
    assert!(matches!(pool.clone().oneshot(()).await, Err(PoolError::Connect(_))));
    assert_eq!(pool.clone().oneshot(()).await.unwrap().id, 1);
    sleep(Duration::from_secs(1)).await;
    manager.tests([Act::Fail]);
    assert_eq!(pool.clone().oneshot(()).await.unwrap().id, 2);
    assert_all_adds_up(&pool.stats());
}

#[tokio::test(start_paused = true)]
async fn load_shed_around_a_full_pool_sheds_at_once() {
    let pool = Manager::default().pool(config(1));
    let mut service = LoadShed::new(pool.clone());
    let lease = service.ready().await.unwrap().call(()).await.unwrap();
    let began = Instant::now();
    let error = service.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(error.is::<Overloaded>());
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(lease);
    service.ready().await.unwrap().call(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_buffer_around_the_pool_serves_all_its_callers() {
    let pool = Manager::default().pool(config(2));
    let buffer = Buffer::new(pool.clone(), 8);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let buffer = buffer.clone();
            tokio::spawn(async move {
                let _lease = buffer.oneshot(()).await.unwrap();
                sleep(Duration::from_millis(10)).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((pool.stats().acquired_total, pool.stats().size), (8, 2));
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_is_ready_to_fail_asks_anew_when_it_is_asked_again() {
    let pool = Manager::default().pool(config(1).acquire_timeout(Duration::from_secs(1)));
    let held = pool.acquire().await.unwrap();
    let mut late = pool.clone();
    late.ready().await.unwrap();
    assert_eq!(pool.stats().waiting, 1, "its call would fail");
    drop(held);
    assert!(is_ready(&mut late).await);
    assert_eq!(pool.stats().timed_out_total, 1);
    late.call(()).await.unwrap();
    assert_all_adds_up(&pool.stats());
}
