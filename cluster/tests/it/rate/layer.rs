//! Several limits in front of a tower service: what a request takes, and what it gets back.

use std::future::pending;
use std::time::Duration;

use escala_cluster::{
    BoxError, KeyBy, MissingKey, Quota, RateLimitConfig, RateLimitLayer, RateLimited, RateLimiter,
    Refusal,
};
use tower::{Layer, Service, ServiceExt, service_fn};

/// A request of a user in a tenant.
#[derive(Debug, Clone, Copy)]
struct Request {
    tenant: Option<u64>,
    user: u64,
    cost: u32,
}

fn request(tenant: u64, user: u64) -> Request {
    Request { tenant: Some(tenant), user, cost: 1 }
}

fn limiter(name: &'static str, config: impl Into<RateLimitConfig>) -> RateLimiter {
    RateLimiter::new(name, config).expect("valid")
}

fn by_user() -> KeyBy<Request> {
    KeyBy::from_fn(|request: &Request| Some(request.user))
}

fn by_tenant() -> KeyBy<Request> {
    KeyBy::from_fn(|request: &Request| request.tenant)
}

async fn answer(request: Request) -> Result<u64, BoxError> {
    Ok(request.user)
}

/// What the limit called so says no with.
async fn ask<S>(service: &mut S, request: Request) -> Result<u64, RateLimited>
where
    S: Service<Request, Response = u64, Error = BoxError>,
{
    let answer = service.ready().await.expect("ready").call(request).await;
    answer.map_err(|error| *error.downcast().expect("of the limits"))
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_later_limit_refuses_has_used_nothing_of_an_earlier_one() {
    let user = limiter("user", Quota::per_minute(10));
    let tenant = limiter("tenant", Quota::per_minute(2));
    let layer = RateLimitLayer::new().limit(user.by(by_user())).limit(tenant.by(by_tenant()));
    let mut service = layer.layer(service_fn(answer));
    for _ in 0..2 {
        ask(&mut service, request(1, 7)).await.expect("within both");
    }
    for _ in 0..100 {
        let refused = ask(&mut service, request(1, 7)).await.expect_err("the tenant's are used up");
        assert_eq!((&*refused.limit, refused.refusal), ("tenant", Refusal::Limited));
        assert_eq!(refused.retry_after, Some(Duration::from_secs(30)));
    }
    assert_eq!(user.check(&7_u64).remaining(), 7);
    let stats = user.stats();
    assert_eq!((stats.allowed_total, stats.refunded_total), (103, 100));
    assert_eq!(tenant.stats().limited_total, 100);

    // The other way round the later one is not even asked.
    let layer = RateLimitLayer::new().limit(tenant.by(by_tenant())).limit(user.by(by_user()));
    let mut service = layer.layer(service_fn(answer));
    assert_eq!(&*ask(&mut service, request(1, 7)).await.expect_err("used up").limit, "tenant");
    assert_eq!(user.stats().allowed_total, 103);
}

#[tokio::test(start_paused = true)]
async fn each_limit_has_a_cost_of_its_own() {
    let requests = limiter("requests", Quota::per_minute(10));
    let rows = limiter("rows", Quota::per_minute(100));
    let layer = RateLimitLayer::new()
        .limit(requests.by(by_user()))
        .limit(rows.by(by_user()).cost(|request: &Request| request.cost));
    let mut service = layer.layer(service_fn(answer));
    let mut ask_for = async |cost| ask(&mut service, Request { cost, ..request(1, 7) }).await;
    ask_for(60).await.expect("within");
    let refused = ask_for(60).await.expect_err("20 too many");
    assert_eq!(refused.retry_after, Some(Duration::from_secs(12)));
    ask_for(40).await.expect("within");
    ask_for(0).await.expect("costs nothing");
    let refused = ask_for(101).await.expect_err("more than there can be");
    assert_eq!((refused.refusal, refused.retry_after), (Refusal::TooCostly, None));
    assert!(!refused.is_retryable());
    assert_eq!(requests.check(&7_u64).remaining(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_gets_what_the_limit_says() {
    let nobody = Request { tenant: None, user: 7, cost: 1 };
    for (missing_key, expected) in [
        (MissingKey::Share, [Ok(7), Err(Refusal::Limited)]),
        (MissingKey::Skip, [Ok(7), Ok(7)]),
        (MissingKey::Reject, [Err(Refusal::NoKey), Err(Refusal::NoKey)]),
    ] {
        let config = RateLimitConfig::new(Quota::per_minute(1)).missing_key(missing_key);
        let tenant = limiter("tenant", config);
        let layer = RateLimitLayer::new().limit(tenant.by(by_tenant()));
        let mut service = layer.layer(service_fn(answer));
        for expected in expected {
            let answer = ask(&mut service, nobody).await;
            assert_eq!(answer.map_err(|refused| refused.refusal), expected);
        }
        ask(&mut service, request(1, 7)).await.expect("who has a key is not concerned");
        assert_eq!(tenant.stats().keyless_total, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_can_be_put_together() {
    let both = limiter("both", Quota::per_minute(1));
    let layer = RateLimitLayer::new().limit(both.by(by_tenant().and(by_user())));
    let mut service = layer.layer(service_fn(answer));
    for (tenant, user) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        ask(&mut service, request(tenant, user)).await.expect("each pair has its own");
    }
    for (tenant, user) in [(1, 1), (2, 1)] {
        assert!(ask(&mut service, request(tenant, user)).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_exempt_is_not_counted() {
    let user = limiter("user", Quota::per_minute(1));
    let layer = RateLimitLayer::new()
        .limit(user.by(by_user()))
        .exempt(|request: &Request| request.user == 0)
        .exempt(|request: &Request| request.tenant == Some(9));
    let mut service = layer.layer(service_fn(answer));
    for _ in 0..5 {
        ask(&mut service, request(1, 0)).await.expect("exempt");
        ask(&mut service, request(9, 7)).await.expect("exempt");
    }
    assert_eq!(user.stats().allowed_total, 0);
    ask(&mut service, request(1, 7)).await.expect("the first");
    assert!(ask(&mut service, request(1, 7)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_shadow_limit_counts_and_the_others_go_on() {
    let trial = limiter("trial", RateLimitConfig::new(Quota::per_minute(1)).shadow(true));
    let user = limiter("user", Quota::per_minute(3));
    let layer = RateLimitLayer::new().limit(trial.by(by_user())).limit(user.by(by_user()));
    let mut service = layer.layer(service_fn(answer));
    for _ in 0..3 {
        ask(&mut service, request(1, 7)).await.expect("the trial refuses nothing");
    }
    assert_eq!(&*ask(&mut service, request(1, 7)).await.expect_err("the fourth").limit, "user");
    let stats = trial.stats();
    assert_eq!((stats.allowed_total, stats.shadow_limited_total), (1, 3));
    assert_eq!((stats.limited_total, stats.refunded_total), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_says_nothing_was_done_is_given_back() {
    let user = limiter("user", Quota::per_minute(2));
    let layer = RateLimitLayer::new().limit(user.by(by_user())).refund(
        |result: Result<&u64, &BoxError>| matches!(result, Err(error) if error.is::<Full>()),
    );
    let inner = service_fn(|request: Request| async move {
        match request.tenant {
            Some(0) => Err(BoxError::from(Full)),
            Some(1) => Err("it failed after some work".into()),
            _ => Ok(request.user),
        }
    });
    let mut service = layer.layer(inner);
    let mut ask = async |tenant| {
        service
            .ready()
            .await
            .expect("ready")
            .call(request(tenant, 7))
            .await
            .map_err(|e| e.to_string())
    };
    for _ in 0..10 {
        assert_eq!(ask(0).await, Err("full".to_owned()));
    }
    assert_eq!(user.stats().refunded_total, 10);
    assert!(ask(1).await.expect_err("failed").contains("some work"));
    assert_eq!(ask(2).await, Ok(7));
    assert!(ask(2).await.expect_err("used up").contains("rate limit"));
}

#[derive(Debug, thiserror::Error)]
#[error("full")]
struct Full;

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_has_used_what_it_took() {
    let user = limiter("user", Quota::per_minute(2));
    let layer =
        RateLimitLayer::new().limit(user.by(by_user())).refund(|_: Result<&u64, &BoxError>| true);
    let mut service = layer.layer(service_fn(|_: Request| pending::<Result<u64, BoxError>>()));
    for _ in 0..2 {
        drop(service.ready().await.expect("ready").call(request(1, 7)));
    }
    let error = service.ready().await.expect("ready").call(request(1, 7)).await;
    assert!(error.expect_err("used up").is::<RateLimited>());
    assert_eq!(user.stats().refunded_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_on_the_way_through_the_limits_gives_back_what_was_taken() {
    let user = limiter("user", Quota::per_minute(2));
    let broken = limiter("broken", Quota::per_minute(2));
    let layer = RateLimitLayer::new()
        .limit(user.by(by_user()))
        .limit(broken.by(KeyBy::new(|_: &Request, _| panic!("a key function of the user's"))));
    let mut service = layer.layer(service_fn(answer));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(service.call(request(1, 7)));
    }));
    assert!(caught.is_err());
    let stats = user.stats();
    assert_eq!((stats.allowed_total, stats.refunded_total), (1, 1));
    assert_eq!(user.check_n(&7_u64, 2).remaining(), 0);
}
