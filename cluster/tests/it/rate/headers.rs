//! The headers of responses, read as a client reads them: by a parser of structured fields.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use escala_cluster::{
    KeyBy, Quota, RateLimitConfig, RateLimitHeaders, RateLimitLayer, RateLimiter,
};
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use sfv::{BareItem, List, ListEntry, Parser};

use super::http::{ask, limiter};

/// Names with their parameters, in order.
type Items = Vec<(String, Vec<(String, i64)>)>;

fn items(response: &Response<Body>, name: &str) -> Items {
    let lines = response.headers().get_all(name).iter();
    let whole = lines.map(|line| line.to_str().expect("ascii")).collect::<Vec<_>>().join(",");
    let list = Parser::new(&whole).parse::<List>().expect("a structured field");
    let item = |entry| {
        let ListEntry::Item(item) = entry else { panic!("an inner list") };
        let BareItem::String(name) = &item.bare_item else { panic!("no string") };
        let parameter = |(name, value): (&sfv::Key, &BareItem)| {
            (name.as_str().to_owned(), i64::from(value.as_integer().expect("an integer")))
        };
        (name.as_str().to_owned(), item.params.iter().map(parameter).collect())
    };
    list.into_iter().map(item).collect()
}

fn expected(items: &[(&str, &[(&str, i64)])]) -> Items {
    let parameters = |list: &[(&str, i64)]| {
        list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    };
    items.iter().map(|(name, list)| ((*name).to_owned(), parameters(list))).collect()
}

async fn get_a(router: &Router) -> Response<Body> {
    ask(router, Request::get("/a").body(Body::empty()).expect("valid")).await
}

fn router(limiters: &[RateLimiter], headers: RateLimitHeaders) -> Router {
    let mut layer = RateLimitLayer::http().headers(headers);
    for limiter in limiters {
        layer = layer.limit(limiter.by(KeyBy::everyone()));
    }
    Router::new().route("/a", get(|| async { "a" })).layer(layer)
}

#[tokio::test(start_paused = true)]
async fn every_response_tells_the_policies_and_what_is_left() {
    let burst = limiter("burst", Quota::per_second(1).burst(3));
    let daily = limiter("the \"day\" \\", Quota::per(4, Duration::from_secs(86_400)));
    let router = router(&[burst, daily], RateLimitHeaders::Standard);
    let policies =
        [("burst", &[("q", 3), ("w", 3)][..]), ("the \"day\" \\", &[("q", 4), ("w", 86_400)])];
    let day = |left, next| ("the \"day\" \\", [("r", left), ("t", next)]);
    for (left, next) in [(2, 1), (1, 1), (0, 1)] {
        let response = get_a(&router).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(items(&response, "ratelimit-policy"), expected(&policies));
        let (name, day) = day(left + 1, 21_600);
        let limits = [("burst", &[("r", left), ("t", next)][..]), (name, &day)];
        assert_eq!(items(&response, "ratelimit"), expected(&limits));
        assert!(!response.headers().contains_key("x-ratelimit-limit"));
        assert!(!response.headers().contains_key("retry-after"));
    }

    // Refused by the first: the second was not asked.
    let refused = get_a(&router).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(items(&refused, "ratelimit-policy"), expected(&policies[..1]));
    assert_eq!(items(&refused, "ratelimit"), expected(&[("burst", &[("r", 0), ("t", 1)])]));

    // Refused by the second: the first has got back what it had taken.
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(get_a(&router).await.status(), StatusCode::OK);
    let refused = get_a(&router).await;
    assert_eq!(refused.headers()["retry-after"], "21598");
    let (name, day) = day(0, 21_598);
    let limits = [("burst", &[("r", 1), ("t", 1)][..]), (name, &day)];
    assert_eq!(items(&refused, "ratelimit"), expected(&limits));
}

#[tokio::test(start_paused = true)]
async fn the_older_headers_tell_of_the_limit_with_the_least_left() {
    let limiters = [
        limiter("wide", Quota::per_minute(60)),
        limiter("narrow", Quota::per_minute(2)),
        limiter("wider", Quota::per_hour(3_600)),
    ];
    for (headers, legacy, standard) in [
        (RateLimitHeaders::Legacy, true, false),
        (RateLimitHeaders::Both, true, true),
        (RateLimitHeaders::Off, false, false),
    ] {
        let router = router(&limiters, headers);
        let response = get_a(&router).await;
        assert_eq!(response.headers().contains_key("ratelimit"), standard);
        assert_eq!(response.headers().contains_key("x-ratelimit-limit"), legacy);
        if legacy {
            assert_eq!(response.headers()["x-ratelimit-limit"], "2");
            assert_eq!(response.headers()["x-ratelimit-remaining"], "1");
            assert_eq!(response.headers()["x-ratelimit-reset"], "30");
        }
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    // Switched off or not: when to come again is always said.
    let router = router(&limiters, RateLimitHeaders::Off);
    let mut last = get_a(&router).await;
    while last.status() == StatusCode::OK {
        last = get_a(&router).await;
    }
    assert_eq!(last.headers()["retry-after"], "30");
}

#[tokio::test(start_paused = true)]
async fn inner_and_outer_limits_are_one_list() {
    let inner = limiter("inner", Quota::per_minute(5));
    let outer = limiter("outer", Quota::per_minute(9));
    let layer =
        RateLimitLayer::http().headers(RateLimitHeaders::Both).limit(outer.by(KeyBy::everyone()));
    let router = router(&[inner], RateLimitHeaders::Both).layer(layer);
    let response = get_a(&router).await;
    let limits = [("inner", &[("r", 4), ("t", 12)][..]), ("outer", &[("r", 8), ("t", 7)])];
    assert_eq!(items(&response, "ratelimit"), expected(&limits));
    assert_eq!(response.headers()["x-ratelimit-remaining"], "4");
    assert_eq!(response.headers().get_all("x-ratelimit-remaining").iter().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_in_shadow_mode_says_that_nothing_is_left_and_lets_through() {
    let trial = limiter("trial", RateLimitConfig::new(Quota::per_minute(1)).shadow(true));
    let router = router(&[trial], RateLimitHeaders::Standard);
    assert_eq!(get_a(&router).await.status(), StatusCode::OK);
    let response = get_a(&router).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(items(&response, "ratelimit"), expected(&[("trial", &[("r", 0), ("t", 60)])]));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_gives_a_limit_in_shadow_mode_nothing_it_has_not() {
    let trial = limiter("trial", RateLimitConfig::new(Quota::per_minute(1)).shadow(true));
    let user = limiter("user", Quota::per_minute(3));
    let router = router(&[trial, user], RateLimitHeaders::Standard);
    for _ in 0..3 {
        assert_eq!(get_a(&router).await.status(), StatusCode::OK);
    }
    let refused = get_a(&router).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let limits = [("trial", &[("r", 0), ("t", 60)][..]), ("user", &[("r", 0), ("t", 20)])];
    assert_eq!(items(&refused, "ratelimit"), expected(&limits));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_name_and_quota_make_fields_that_can_be_read(
        name in "[ -~]{1,64}",
        count in 1..1_000_000_u32,
        period in prop_oneof![1..100_u64, 1..31_000_000_u64],
        share in 1..=1_000_u64,
    ) {
        // Up to what comes back within a year.
        let most = 366 * 86_400 * u64::from(count) / period;
        let burst = u32::try_from(most * share / 1_000).unwrap_or(u32::MAX).max(1);
        let quota = Quota::per(count, Duration::from_secs(period)).burst(burst);
        prop_assume!(quota.validate().is_ok());
        let limiter = RateLimiter::new(name.as_str(), quota).expect("valid");
        let router = router(&[limiter], RateLimitHeaders::Standard);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let response = runtime.block_on(get_a(&router));
        let policy = items(&response, "ratelimit-policy");
        prop_assert_eq!(&policy[0].0, &name);
        let window = (u128::from(burst) * u128::from(period)).div_ceil(u128::from(count));
        let [(_, q), (_, w)] = &policy[0].1[..] else { panic!("q and w") };
        prop_assert_eq!(*q, i64::from(burst));
        // Each unit's time is rounded up to a nanosecond.
        let most = window + u128::from(burst).div_ceil(1_000_000_000) + 1;
        prop_assert!(u128::try_from(*w).is_ok_and(|w| (window..=most).contains(&w)));
        let left = items(&response, "ratelimit");
        prop_assert_eq!(left[0].1[0].1, i64::from(burst) - 1);
    }
}
