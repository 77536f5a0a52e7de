//! The store on a real Redis, while that is well and while it is not.

mod faults;

use std::time::Duration;

use testkit::{FaultProxy, Redis};
use tokio::time::timeout;

use super::*;
use crate::State;
use crate::clock::Moment;
use crate::limit::rate::Quota;

const SECOND: Duration = Duration::from_secs(1);
/// Of the stores that are to run out of it.
const TIMEOUT: Duration = Duration::from_millis(100);
/// Of those that are not, however busy the machine is.
const LONG: Duration = Duration::from_secs(10);
/// A bound on what comes by itself, and on what should take the timeout: without one a server that
/// stands still keeps its clients waiting for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing comes back while a test runs.
fn slow(burst: u32) -> Quota {
    Quota::per_hour(1).burst(burst)
}

fn config(url: &str) -> RedisRateConfig {
    let breaker = RedisRateConfig::default().breaker.open_for(SECOND / 5).open_for_max(SECOND / 5);
    let config = RedisRateConfig::new(url).namespace("test").breaker(breaker);
    config.timeout(LONG).connect_timeout(LONG)
}

fn store(url: &str) -> RedisRateStore {
    RedisRateStore::new(config(url)).unwrap()
}

/// A store with a short timeout, whose connection stands.
async fn hasty(url: &str) -> RedisRateStore {
    let config = config(url).timeout(TIMEOUT).connect_timeout(SECOND / 2);
    let store = RedisRateStore::new(config).unwrap();
    recovers(&store).await;
    store
}

fn url(proxy: &FaultProxy) -> String {
    format!("redis://{}", proxy.addr())
}

fn claim(key: &str, cost: u32, quota: Quota) -> Claim {
    Claim { key: key.to_owned(), cost, quota, shadow: false, at: Moment::exact() }
}

async fn check_all(store: &RedisRateStore, claims: &[Claim]) -> Verdicts {
    match store.remote.check(claims) {
        Answer::Now(verdicts) => verdicts,
        Answer::Later(later) => later.await,
    }
}

async fn check_n(store: &RedisRateStore, key: &str, cost: u32, quota: Quota) -> Verdict {
    check_all(store, &[claim(key, cost, quota)]).await[0]
}

async fn check(store: &RedisRateStore, key: &str, quota: Quota) -> Verdict {
    check_n(store, key, 1, quota).await
}

fn is_allowed(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Decided(decision) if decision.is_allowed())
}

fn is_limited(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Decided(decision) if !decision.is_allowed())
}

/// Checks of keys of their own until one is decided; none may take longer than it is allowed to.
async fn recovers(store: &RedisRateStore) {
    let end = Instant::now() + PATIENCE;
    for n in 0.. {
        let begun = Instant::now();
        let verdict = check(store, &format!("recovers {n}"), slow(1)).await;
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        if is_allowed(verdict) {
            return;
        }
        assert!(Instant::now() < end, "{:?}", store.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Many checks at once: none is decided, none takes longer than it is allowed to.
async fn fails(store: &RedisRateStore) {
    let checks: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let verdict = check(&store, &format!("fails {n}"), slow(1)).await;
                (verdict, begun.elapsed())
            })
        })
        .collect();
    for task in checks {
        let (verdict, took) = task.await.unwrap();
        assert_eq!(verdict, Verdict::Failed);
        assert!(took < PATIENCE, "{took:?}");
    }
}

fn adds_up(store: &RedisRateStore) -> RedisRateStats {
    let stats = store.stats();
    let ended = stats.allowed_total
        + stats.limited_total
        + stats.denied_locally_total
        + stats.timeouts_total
        + stats.errors_total
        + stats.skipped_total
        + stats.cancelled_total;
    assert_eq!(stats.checks_total, ended + stats.in_flight, "{stats:?}");
    stats
}

async fn scripts_run(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]).await.unwrap();
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(":calls=")?.split(',').next()?.parse::<u64>().ok()
    };
    calls("cmdstat_evalsha").unwrap_or(0)
}

#[tokio::test]
async fn two_stores_share_what_a_key_has_and_keys_and_namespaces_do_not() {
    let redis = Redis::start().await.unwrap();
    let (one, other) = (store(&redis.url()), store(&redis.url()));
    for _ in 0..2 {
        assert!(is_allowed(check(&one, "k", slow(4)).await));
        assert!(is_allowed(check(&other, "k", slow(4)).await));
    }
    assert!(is_limited(check(&one, "k", slow(4)).await));
    assert!(is_limited(check(&other, "k", slow(4)).await));
    assert!(is_allowed(check(&one, "K", slow(4)).await));
    let elsewhere = RedisRateStore::new(config(&redis.url()).namespace("te:st")).unwrap();
    assert!(is_allowed(check(&elsewhere, "k", slow(4)).await));
    let mut keys: Vec<_> =
        redis.cli(&["KEYS", "*"]).await.unwrap().lines().map(str::to_owned).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["te%3Ast:rate:k", "test:rate:K", "test:rate:k"]);
    let stats = adds_up(&one);
    assert_eq!((stats.allowed_total, stats.limited_total, stats.connections_total), (3, 1, 1));
}

#[tokio::test]
async fn a_key_that_was_refused_is_refused_without_asking_until_it_fits() {
    let redis = Redis::start().await.unwrap();
    let store = RedisRateStore::new(config(&redis.url()).denial_max(LONG)).unwrap();
    let quota = Quota::per(1, 5 * SECOND).burst(1);
    assert!(is_allowed(check(&store, "k", quota).await));
    let refused = Instant::now();
    assert!(is_limited(check(&store, "k", quota).await));
    let asked = scripts_run(&redis).await;
    let mut local = 0;
    loop {
        let begun = Instant::now();
        let verdict = check(&store, "k", quota).await;
        if is_allowed(verdict) {
            break;
        }
        local += 1;
        let Verdict::Decided(Decision::Limited { retry_after: Some(wait), remaining: 0, reset }) =
            verdict
        else {
            panic!("{verdict:?}")
        };
        assert!(wait <= 5 * SECOND && reset >= wait, "{verdict:?}");
        assert!(begun < refused + PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It lasts no longer than Redis refuses, and ends a little before: the way to Redis takes its
    // time, and who comes in between is refused there once more.
    let stats = adds_up(&store);
    assert_eq!(scripts_run(&redis).await, asked + stats.limited_total);
    assert!(stats.limited_total <= 3, "{stats:?}");
    assert_eq!(stats.denied_locally_total + stats.limited_total - 1, local);
    assert!(local > 5, "{local}");
    assert_eq!(stats.denials, 0);
}

#[tokio::test]
async fn a_refusal_is_believed_no_longer_than_the_setting_says() {
    let redis = Redis::start().await.unwrap();
    let config = config(&redis.url()).denial_max(SECOND / 5);
    let store = RedisRateStore::new(config).unwrap();
    assert!(is_allowed(check(&store, "k", slow(1)).await));
    assert!(is_limited(check(&store, "k", slow(1)).await));
    redis.cli(&["DEL", "test:rate:k"]).await.unwrap();
    let begun = Instant::now();
    while !is_allowed(check(&store, "k", slow(1)).await) {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let never = RedisRateStore::new(self::config(&redis.url()).denials(0)).unwrap();
    for _ in 0..3 {
        assert!(is_limited(check(&never, "k", slow(1)).await));
    }
    assert_eq!(adds_up(&never).denied_locally_total, 0);
}

#[tokio::test]
async fn less_may_fit_where_more_was_refused() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    assert!(is_allowed(check_n(&store, "k", 3, slow(5)).await));
    for cost in [3, 3, 4] {
        assert!(is_limited(check_n(&store, "k", cost, slow(5)).await));
    }
    assert!(is_allowed(check_n(&store, "k", 2, slow(5)).await));
    assert_eq!(adds_up(&store).denied_locally_total, 2);
}

#[tokio::test]
async fn of_several_limits_one_that_is_known_to_refuse_is_answer_enough() {
    let redis = Redis::start().await.unwrap();
    let store = RedisRateStore::new(config(&redis.url()).denial_max(LONG)).unwrap();
    let claims = [claim("wide", 1, slow(10)), claim("narrow", 1, slow(1))];
    assert!(check_all(&store, &claims).await.into_iter().all(is_allowed));
    let second = check_all(&store, &claims).await;
    assert!(is_allowed(second[0]) && is_limited(second[1]), "{second:?}");
    let asked = scripts_run(&redis).await;
    for _ in 0..3 {
        let verdicts = check_all(&store, &claims).await;
        assert!(verdicts[0] == Verdict::Moot && is_limited(verdicts[1]), "{verdicts:?}");
    }
    assert_eq!(scripts_run(&redis).await, asked);
    // A shadow keeps nobody out, and is asked each time.
    let shadow = [claim("wide", 1, slow(10)), Claim { shadow: true, ..claims[1].clone() }];
    for left in (6..9).rev() {
        let verdicts = check_all(&store, &shadow).await;
        let Verdict::Decided(Decision::Allowed { remaining, .. }) = verdicts[0] else {
            panic!("{verdicts:?}")
        };
        assert_eq!(remaining, left);
        assert!(is_limited(verdicts[1]));
    }
    let stats = adds_up(&store);
    assert_eq!((stats.allowed_total, stats.limited_total, stats.denied_locally_total), (4, 1, 3));
}

#[tokio::test]
async fn what_is_given_back_can_be_used_at_once() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    assert!(is_allowed(check_n(&store, "k", 3, slow(3)).await));
    assert!(is_limited(check(&store, "k", slow(3)).await));
    store.remote.give_back(&claim("k", 2, slow(3)), Spent::UNKNOWN);
    let end = Instant::now() + PATIENCE;
    while store.stats().refunds_total == 0 {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(is_allowed(check_n(&store, "k", 2, slow(3)).await));
    assert!(is_limited(check(&store, "k", slow(3)).await));
    // Time has brought it back by itself.
    store.remote.give_back(&claim("k", 1, slow(3)), Spent { ago: SECOND, reset: SECOND });
    // All but half of it.
    let half = Duration::from_secs(1_800);
    store.remote.give_back(&claim("k", 1, slow(3)), Spent { ago: half, reset: 2 * half });
    while store.stats().refunds_total == 1 {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let Verdict::Decided(look) = check_n(&store, "k", 0, slow(3)).await else { panic!("decided") };
    let owed = look.reset().as_secs();
    assert!((8_900..=9_000).contains(&owed), "{owed}");
    let stats = adds_up(&store);
    assert_eq!((stats.refunds_total, stats.refunds_lost_total), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_whose_answer_is_lost_is_not_sent_again() {
    let redis = Redis::start().await.unwrap();
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let store = store(&url(&proxy));
    assert!(is_allowed(check_n(&store, "k", 6, slow(10)).await));
    redis.freeze().unwrap();
    store.remote.give_back(&claim("k", 2, slow(10)), Spent::UNKNOWN);
    // Time for it to reach Redis, which will do it once it can.
    tokio::time::sleep(SECOND / 2).await;
    proxy.half_close();
    let end = Instant::now() + PATIENCE;
    while store.stats().refunds_lost_total == 0 {
        assert!(Instant::now() < end && store.stats().refunds_total == 0, "{:?}", store.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
        // One that is sent again finds a Redis that answers.
        if proxy.accepted() > 1 {
            redis.thaw().unwrap();
        }
    }
    redis.thaw().unwrap();
    let direct = self::store(&redis.url());
    let Verdict::Decided(look) = check_n(&direct, "k", 0, slow(10)).await else {
        panic!("decided")
    };
    assert!(look.remaining() <= 6, "{look:?}: four were left, and two given back");
}

#[tokio::test]
async fn a_quota_that_is_raised_counts_at_once_for_who_was_refused() {
    let redis = Redis::start().await.unwrap();
    let config = config(&redis.url()).denial_max(Duration::from_secs(3_600));
    let store = RedisRateStore::new(config).unwrap();
    assert!(is_allowed(check_n(&store, "k", 2, slow(2)).await));
    assert!(is_limited(check(&store, "k", slow(2)).await));
    assert!(is_limited(check(&store, "k", slow(2)).await));
    assert_eq!(adds_up(&store).denied_locally_total, 1);
    assert!(is_allowed(check(&store, "k", slow(3)).await));
}

#[tokio::test]
async fn one_key_under_two_limits_is_charged_for_both_and_what_refuses_both_may_fit_one() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    let twice = [claim("k", 2, slow(5)), claim("k", 2, slow(5))];
    assert!(check_all(&store, &twice).await.into_iter().all(is_allowed));
    let claims = [claim("k", 1, slow(5)), claim("k", 1, slow(5))];
    let verdicts = check_all(&store, &claims).await;
    assert!(is_allowed(verdicts[0]) && is_limited(verdicts[1]), "{verdicts:?}");
    assert!(is_allowed(check(&store, "k", slow(5)).await));
    assert!(is_limited(check(&store, "k", slow(5)).await));
}

#[tokio::test]
async fn a_clock_of_the_client_that_jumps_changes_nothing() {
    let redis = Redis::start().await.unwrap();
    let store = store(&redis.url());
    assert!(is_allowed(check(&store, "k", slow(1)).await));
    for _ in 0..3 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(100 * 3_600)).await;
        tokio::time::resume();
        assert!(is_limited(check(&store, "k", slow(1)).await));
    }
    assert_eq!(adds_up(&store).denied_locally_total, 0, "each was asked");
}

#[tokio::test]
async fn a_password_is_nowhere_to_be_seen() {
    let redis = Redis::builder().password("the-password").start().await.unwrap();
    let with = |password: &str| redis.url().replace("//", &format!("//:{password}@"));
    let good = RedisRateStore::new(config(&with("the-password"))).unwrap();
    good.ping().await.unwrap();
    let bad = RedisRateStore::new(config(&with("not-the-password"))).unwrap();
    let error = bad.ping().await.unwrap_err();
    assert!(matches!(error, RedisRateError::Failed(_)), "{error:?}");
    let broken = config("redis://:the-password@:x:y").validate().unwrap_err();
    let shown = [
        format!("{error:?} {error}"),
        format!("{broken:?} {broken}"),
        format!("{:?} {:?}", good, config(&with("the-password"))),
    ];
    assert!(!shown.concat().contains("the-password"), "{shown:?}");
}

#[tokio::test]
async fn a_ping_tells_why_redis_cannot_be_used() {
    let redis = Redis::start().await.unwrap();
    let store = RedisRateStore::new(config(&redis.url()).connect_timeout(2 * SECOND)).unwrap();
    store.ping().await.unwrap();
    redis.freeze().unwrap();
    assert!(matches!(store.ping().await, Err(RedisRateError::TimedOut)));
    redis.kill().unwrap();
    assert!(matches!(store.ping().await, Err(RedisRateError::Failed(_))));
    assert_eq!(store.breaker().state(), State::Closed, "it was not told");
}

#[cfg(feature = "redis-tls")]
#[tokio::test]
async fn a_server_is_asked_by_tls_if_its_certificate_is_good() {
    let redis = Redis::builder().tls().start().await.unwrap();
    let url = redis.tls_url().unwrap();
    let authority = &redis.certificates().unwrap().authority;
    let good = RedisRateStore::new(config(&url).authority(authority)).unwrap();
    assert!(is_allowed(check(&good, "k", slow(2)).await));
    let system = RedisRateStore::new(config(&url)).unwrap();
    assert!(matches!(system.ping().await, Err(RedisRateError::Failed(_))));
    let missing = config(&url).authority("/no/such/file");
    assert_eq!(RedisRateStore::new(missing).unwrap_err().field(), "authority");
}

#[cfg(not(feature = "redis-tls"))]
#[test]
fn without_its_feature_tls_is_refused_and_not_left_out() {
    let error = RedisRateStore::new(config("rediss://127.0.0.1")).unwrap_err();
    assert_eq!(error.field(), "url");
    assert!(error.rule().contains("redis-tls"), "{error}");
}
