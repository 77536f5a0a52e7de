//! What a limit makes of a Redis that does not answer.

use std::time::Duration;

use escala_cluster::{
    Decision, Quota, RateLimitConfig, RedisRateConfig, RedisRateLimiter, RedisRateStore, Refusal,
    State, StoreFailure,
};
use testkit::Redis;
use tokio::time::Instant;

use super::{SLACK, TIMEOUT, hasty, store};

/// Nothing comes back while a test runs.
fn slow(burst: u32) -> Quota {
    Quota::per_hour(1).burst(burst)
}

fn limiter(store: &RedisRateStore, name: &str, failure: StoreFailure) -> RedisRateLimiter {
    let config = RateLimitConfig::new(slow(40)).store_failure(failure);
    RedisRateLimiter::new(name, config, store).unwrap()
}

#[tokio::test]
async fn each_limit_does_what_it_is_set_to_when_redis_is_away() {
    let redis = Redis::start().await.unwrap();
    let well = store(&redis.url());
    let store = hasty(&redis.url());
    let open = limiter(&store, "open", StoreFailure::Allow);
    let closed = limiter(&store, "closed", StoreFailure::Reject);
    let local = limiter(&store, "local", StoreFailure::Local { processes: 4 });
    for limit in [&open, &closed, &local] {
        let limit = limiter(&well, limit.name(), StoreFailure::Reject);
        let decision = limit.check("key").await.unwrap().unwrap();
        assert!(matches!(decision, Decision::Allowed { remaining: 39, .. }), "{decision:?}");
    }
    redis.freeze().unwrap();
    for _ in 0..60 {
        let begun = Instant::now();
        assert_eq!(open.check("key").await, Ok(None));
        let refused = closed.check("key").await.unwrap_err();
        assert_eq!(refused.refusal, Refusal::StoreFailed);
        assert!(refused.is_retryable());
        assert!(begun.elapsed() < 2 * TIMEOUT + SLACK, "{:?}", begun.elapsed());
    }
    // A fourth of the burst, whatever Redis has given before.
    let mut allowed = 0;
    for _ in 0..60 {
        allowed += u32::from(local.check("key").await.unwrap().unwrap().is_allowed());
    }
    assert_eq!(allowed, 10);
    assert!(local.check_n("another", 40).await.unwrap().unwrap().is_allowed(), "not too costly");
    assert!(!local.check("another").await.unwrap().unwrap().is_allowed());
    assert_eq!((open.stats().errors_total, open.stats().allowed_total), (60, 0));
    let stats = local.stats();
    assert_eq!((stats.errors_total, stats.allowed_total, stats.limited_total), (62, 11, 51));
    assert_eq!(stats.keys, 2);
    redis.thaw().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while open.check("key").await != Ok(None) || store.breaker().state() != State::Closed {
        if let Ok(Some(decision)) = open.check("key").await {
            assert!(
                decision.remaining() >= 30,
                "{decision:?}: what was let through is not counted"
            );
            break;
        }
        assert!(Instant::now() < end, "{:?}", store.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_waited_for_redis_is_judged_by_the_time_it_is_then() {
    let redis = Redis::start().await.unwrap();
    let store = hasty(&redis.url());
    // A whole burst is back within a fifth of the timeout.
    let config = RateLimitConfig::new(Quota::per_second(500).burst(10))
        .store_failure(StoreFailure::Local { processes: 1 });
    let limiter = RedisRateLimiter::new("local", config, &store).unwrap();
    limiter.check("key").await.unwrap();
    redis.freeze().unwrap();
    let waits = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.check("key").await }
    });
    while store.stats().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(TIMEOUT / 2).await;
    store.breaker().force_open();
    assert!(limiter.check("key").await.unwrap().unwrap().is_allowed());
    assert!(waits.await.unwrap().unwrap().unwrap().is_allowed());
}

#[tokio::test]
async fn a_limit_that_only_watches_lets_through_whatever_fails() {
    let store = RedisRateStore::new(RedisRateConfig::new("redis://127.0.0.1:1")).unwrap();
    let config = RateLimitConfig::new(slow(1)).store_failure(StoreFailure::Reject).shadow(true);
    let limiter = RedisRateLimiter::new("shadow", config, &store).unwrap();
    assert_eq!(limiter.check("key").await, Ok(None));
    limiter.set_shadow(false);
    assert!(limiter.check("key").await.is_err());
}

#[tokio::test]
async fn two_handles_of_one_name_are_one_limit_and_others_are_not() {
    let redis = Redis::start().await.unwrap();
    let (one, other) = (store(&redis.url()), store(&redis.url()));
    let a = RedisRateLimiter::new("exports", slow(3), &one).unwrap();
    let b = RedisRateLimiter::new("exports", slow(3), &other).unwrap();
    let c = RedisRateLimiter::new("imports", slow(3), &one).unwrap();
    assert_eq!(a.check("k").await.unwrap().unwrap().remaining(), 2);
    assert_eq!(b.check("k").await.unwrap().unwrap().remaining(), 1);
    assert_eq!(c.check("k").await.unwrap().unwrap().remaining(), 2);
    assert_eq!(b.check_n("k", 0).await.unwrap().unwrap().remaining(), 1, "a look takes nothing");
    let costly = a.check_n("k", 4).await.unwrap().unwrap();
    assert!(matches!(costly, Decision::Limited { retry_after: None, .. }), "{costly:?}");
    b.give_back("k", 2);
    let end = Instant::now() + Duration::from_secs(20);
    while a.check_n("k", 0).await.unwrap().unwrap().remaining() != 3 {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(b.stats().refunded_total, 1);
    // A quota that is changed goes on with what was used.
    a.check_n("k", 2).await.unwrap();
    a.set_quota(slow(5)).unwrap();
    assert_eq!(a.check_n("k", 0).await.unwrap().unwrap().remaining(), 3);
}

#[test]
fn settings_that_cannot_be_are_named_and_no_secret_with_them() {
    let good = RedisRateConfig::new("redis://user:secret@127.0.0.1:6379/3");
    assert_eq!(good.validate(), Ok(()));
    assert!(!format!("{good:?}").contains("secret"));
    let bad = |config: RedisRateConfig| {
        let error = config.validate().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        error.field()
    };
    let zero = Duration::ZERO;
    assert_eq!(bad(RedisRateConfig::new("http://secret@127.0.0.1")), "url");
    assert_eq!(bad(RedisRateConfig::new("rediss://:secret@127.0.0.1/#insecure")), "url");
    assert_eq!(bad(good.clone().namespace("")), "namespace");
    assert_eq!(bad(good.clone().namespace("x".repeat(65))), "namespace");
    assert_eq!(bad(good.clone().timeout(zero)), "timeout");
    assert_eq!(bad(good.clone().timeout(Duration::from_secs(11))), "timeout");
    assert_eq!(bad(good.clone().connect_timeout(zero)), "connect_timeout");
    assert_eq!(bad(good.clone().denials(1_000_001)), "denials");
    assert_eq!(bad(good.clone().denial_max(Duration::from_secs(3_601))), "denial_max");
    let breaker = good.breaker.clone().half_open_permits(0);
    assert_eq!(bad(good.breaker(breaker)), "half_open_permits");
    let local = RateLimitConfig::new(slow(1)).store_failure(StoreFailure::Local { processes: 0 });
    assert_eq!(local.validate().unwrap_err().field(), "store_failure.local.processes");
}
