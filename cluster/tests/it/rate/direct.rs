//! The limiter as calls.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use escala_cluster::{Decision, Quota, RateLimitConfig, RateLimiter};
use tokio::time::advance;

fn limiter(config: impl Into<RateLimitConfig>) -> RateLimiter {
    RateLimiter::new("direct", config).expect("valid")
}

fn retry_after(decision: Decision) -> Option<Duration> {
    match decision {
        Decision::Limited { retry_after, .. } => retry_after,
        other => panic!("limited: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_there_at_once_and_units_come_back_one_by_one() {
    let limiter = limiter(Quota::per_minute(6).burst(3));
    for left in [2, 1, 0] {
        let decision = limiter.check("tenant");
        assert!(decision.is_allowed());
        assert_eq!(decision.remaining(), left);
        assert_eq!(decision.reset(), Duration::from_secs(10 * u64::from(3 - left)));
    }
    assert_eq!(retry_after(limiter.check("tenant")), Some(Duration::from_secs(10)));
    advance(Duration::from_secs(4)).await;
    assert_eq!(retry_after(limiter.check("tenant")), Some(Duration::from_secs(6)));
    assert!(limiter.check("another").is_allowed(), "each key has its own");
    advance(Duration::from_secs(6)).await;
    assert!(limiter.check("tenant").is_allowed());
    assert!(!limiter.check("tenant").is_allowed());
    advance(Duration::from_secs(1_000)).await;
    assert_eq!(limiter.check("tenant").remaining(), 2, "never more than a burst");
}

#[tokio::test(start_paused = true)]
async fn what_costs_more_takes_more_and_all_or_nothing() {
    let limiter = limiter(Quota::per_second(10));
    assert_eq!(limiter.check_n("key", 7).remaining(), 3);
    let decision = limiter.check_n("key", 4);
    assert_eq!(retry_after(decision), Some(Duration::from_millis(100)));
    assert_eq!(decision.remaining(), 3, "nothing was taken");
    assert!(limiter.check_n("key", 3).is_allowed());
    // More than a burst is never there: no waiting helps.
    assert_eq!(retry_after(limiter.check_n("key", 11)), None);
    assert_eq!(limiter.stats().limited_total, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_there_again_and_never_more_than_was_used() {
    let limiter = limiter(Quota::per_minute(5));
    limiter.check_n("key", 4);
    limiter.give_back("key", 2);
    assert_eq!(limiter.check("key").remaining(), 2);
    limiter.give_back("key", 100);
    assert_eq!(limiter.check("key").remaining(), 4);
    limiter.give_back("unknown", 1);
    assert_eq!(limiter.check("unknown").remaining(), 4);
}

#[tokio::test(start_paused = true)]
async fn keys_are_of_many_kinds_and_several_parts() {
    let limiter = limiter(Quota::per_hour(1));
    let address: IpAddr = "203.0.113.7".parse().expect("an address");
    assert!(limiter.check("7").is_allowed());
    assert!(limiter.check(&7_u64).is_allowed(), "a number is no text");
    assert!(limiter.check(&address).is_allowed());
    assert!(limiter.check("203.0.113.7").is_allowed());
    assert!(limiter.check(&(address, "login")).is_allowed());
    assert!(limiter.check(&(address, String::from("export"))).is_allowed());
    assert!(!limiter.check(&(address, "login".to_owned())).is_allowed());
}

#[tokio::test(start_paused = true)]
async fn a_quota_changes_while_keys_are_in_use() {
    let limiter = limiter(Quota::per_minute(10));
    limiter.check_n("key", 8);
    limiter.set_quota(Quota::per_minute(20)).expect("valid");
    assert_eq!(limiter.check("key").remaining(), 11, "eight are used still");
    limiter.set_quota(Quota::per_minute(3)).expect("valid");
    assert_eq!(retry_after(limiter.check("key")), Some(Duration::from_secs(20)));
    assert!(limiter.set_quota(Quota::per_minute(0)).is_err());
    assert_eq!(limiter.quota(), Quota::per_minute(3));
}

#[tokio::test(start_paused = true)]
async fn in_shadow_mode_it_counts_and_refuses_nothing() {
    let limiter = limiter(RateLimitConfig::new(Quota::per_minute(1)).shadow(true));
    for _ in 0..3 {
        assert!(limiter.check("key").is_allowed());
    }
    let stats = limiter.stats();
    let counts = (stats.allowed_total, stats.limited_total, stats.shadow_limited_total);
    assert_eq!(counts, (1, 0, 2));
    limiter.set_shadow(false);
    assert!(!limiter.check("key").is_allowed());
    assert_eq!(limiter.stats().limited_total, 1);
}

#[test]
fn handles_are_one_limit_and_threads_share_it() {
    let limiter = limiter(Quota::per_hour(1_000));
    let taken: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let limiter = limiter.clone();
                scope.spawn(move || (0..500).filter(|_| limiter.check("key").is_allowed()).count())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert!((1_000..=1_001).contains(&taken), "{taken}");
    let stats = limiter.stats();
    assert_eq!(stats.allowed_total, taken as u64);
    assert_eq!(stats.allowed_total + stats.limited_total, 2_000);
}

#[test]
fn a_check_of_a_known_key_allocates_nothing() {
    let limiter = limiter(Quota::per_second(1_000_000));
    let long = "a tenant with quite a long name ".repeat(20);
    let address: IpAddr = "2001:db8::1".parse().expect("an address");
    let check = || {
        limiter.check(long.as_str());
        limiter.check(&(address, 7_u64));
    };
    check();
    let allocated = allocation_counter::measure(|| (0..1_000).for_each(|_| check()));
    assert_eq!(allocated.count_total, 0);
    assert_eq!(limiter.stats().keys, 2);
}

#[test]
fn configurations_that_cannot_be_meant_are_refused() {
    let quota = |quota: Quota| {
        RateLimiter::new("x", quota).map(drop).map_err(|error| {
            error.to_string().split(' ').next().map(str::to_owned).expect("a field")
        })
    };
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    assert_eq!(quota(Quota::per_second(0)), Err("burst".to_owned()));
    assert_eq!(quota(Quota::per_second(0).burst(1)), Err("count".to_owned()));
    assert_eq!(quota(Quota::per_second(1).burst(0)), Err("burst".to_owned()));
    assert_eq!(quota(Quota::per(1, Duration::ZERO)), Err("period".to_owned()));
    assert_eq!(quota(Quota::per_second(1_000_001)), Err("period".to_owned()));
    assert_eq!(quota(Quota::per(2, year * 2)), Err("period".to_owned()));
    assert_eq!(quota(Quota::per(1, year).burst(2)), Err("burst".to_owned()));
    assert_eq!(quota(Quota::per_second(u32::MAX)), Err("period".to_owned()));
    assert_eq!(quota(Quota::per(1, year)), Ok(()));
    assert_eq!(quota(Quota::per_second(1_000_000).burst(u32::MAX)), Ok(()));

    let config = |keys| RateLimitConfig::new(Quota::per_second(1)).max_keys(keys).validate();
    assert_eq!(config(0).expect_err("too few").field(), "max_keys");
    assert_eq!(config(usize::MAX).expect_err("too many").field(), "max_keys");

    for name in ["", "ä", "a\r\nb", &"x".repeat(65)] {
        let error = RateLimiter::new(name, Quota::per_second(1)).expect_err("a name for headers");
        assert_eq!(error.field(), "name");
        assert!(!error.to_string().contains('\r'));
    }
}

// Each change goes through the parts of the memory one by one. They must not overtake each other.
#[test]
fn quotas_set_at_once_leave_the_one_that_is_told() {
    for _ in 0..500 {
        let limiter = limiter(Quota::per_minute(5));
        let together = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            for burst in [10, 20] {
                let (limiter, together) = (&limiter, &together);
                scope.spawn(move || {
                    together.wait();
                    limiter.set_quota(Quota::per_minute(burst))
                });
            }
        });
        let told = limiter.quota().burst;
        for key in 0..200_u64 {
            assert_eq!(limiter.check(&key).remaining() + 1, told);
        }
    }
}

#[test]
fn figures_are_handed_out_by_name_with_the_limit_as_label() {
    let limiter = limiter(Quota::per_minute(1));
    limiter.check("a");
    limiter.check("a");
    let mut seen = Vec::new();
    limiter.stats().visit(&mut |name, labels, value| {
        assert_eq!(labels, [("limit", "direct")]);
        seen.push((name.to_owned(), value));
    });
    let expected = [
        ("keys", 1.0),
        ("allowed_total", 1.0),
        ("limited_total", 1.0),
        ("shadow_limited_total", 0.0),
        ("refunded_total", 0.0),
        ("keyless_total", 0.0),
        ("overflow_total", 0.0),
        ("evicted_total", 0.0),
        ("errors_total", 0.0),
    ];
    assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[cfg(feature = "serde")]
#[test]
fn a_limit_reads_from_a_file() {
    use escala_cluster::{MissingKey, Overflow, StoreFailure};

    let text = r#"{
        "quota": { "burst": 5, "count": 3, "period": "1m" },
        "overflow": "reject", "missing_key": "skip", "store_failure": "reject", "shadow": true
    }"#;
    let read: RateLimitConfig = serde_json::from_str(text).expect("valid");
    let expected = RateLimitConfig::new(Quota::per_minute(3).burst(5))
        .overflow(Overflow::Reject)
        .missing_key(MissingKey::Skip)
        .store_failure(StoreFailure::Reject)
        .shadow(true);
    assert_eq!(read, expected);
    let quota = r#"{"quota":{"burst":5,"count":3,"period":"1m"}}"#;
    let read: RateLimitConfig = serde_json::from_str(quota).expect("the rest has defaults");
    assert_eq!(read, RateLimitConfig::new(Quota::per_minute(3).burst(5)));
    assert!(serde_json::from_str::<RateLimitConfig>(r#"{"max_keys":1}"#).is_err());
}
