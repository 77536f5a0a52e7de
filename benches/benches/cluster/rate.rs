//! A rate limit that is never met: the check alone, and a whole layer in front of an axum service.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum_governor::extractor::PeerIp;
use escala_cluster::{ClientIp, KeyBy, RateLimitHeaders, RateLimitLayer};
use governor::{Quota, RateLimiter};
use tower::util::ServiceFn;
use tower::{Layer as _, Service, service_fn};

use crate::subject::{Subject, scattered};
use crate::{Effort, table};

/// One per nanosecond: no call comes earlier than its turn.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(1_000_000_000).expect("not zero");
/// Clients of the layers.
const CLIENTS: u64 = 1_024;

pub(crate) fn run_checks(effort: Effort) -> anyhow::Result<()> {
    let mut subjects = vec![Subject::looped("bare, an address of 1,024", || {
        |number| ready(address(number, CLIENTS).is_ipv4())
    })];
    // One in a microsecond at most, and all of a run at once.
    let quota = escala_cluster::Quota::per_second(1_000_000).burst(u32::MAX);
    let ours = || escala_cluster::RateLimiter::new("bench", quota);
    let limiter = ours()?;
    subjects.push(Subject::looped("escala, no key", move || {
        let limiter = limiter.clone();
        move |_| ready(limiter.check("").is_allowed())
    }));
    for keys in [1, 1_024, 100_000] {
        let limiter = ours()?;
        subjects.push(Subject::looped(format!("escala, keys: {keys}"), move || {
            let limiter = limiter.clone();
            move |number| ready(limiter.check(&address(number, keys)).is_allowed())
        }));
    }
    let direct = Arc::new(RateLimiter::direct(Quota::per_second(PER_SECOND)));
    subjects.push(Subject::looped("governor, no key", move || {
        let limiter = Arc::clone(&direct);
        move |_| ready(limiter.check().is_ok())
    }));
    for keys in [1, 1_024, 100_000] {
        let limiter = Arc::new(RateLimiter::keyed(Quota::per_second(PER_SECOND)));
        let name = format!("governor, keys: {keys}");
        subjects.push(Subject::looped(name, move || {
            let limiter = Arc::clone(&limiter);
            move |number| ready(limiter.check_key(&address(number, keys)).is_ok())
        }));
    }
    table::run("Rate limit in memory, the check alone, keyed by IP address", &subjects, effort)
}

pub(crate) fn run_layers(effort: Effort) -> anyhow::Result<()> {
    let mut subjects = vec![through("bare service and its request", inner())];
    subjects.extend(ours()?);
    let config = tower_governor::governor::GovernorConfigBuilder::default()
        .per_nanosecond(1)
        .burst_size(u32::MAX)
        .finish()
        .context("not zero")?;
    let layer = tower_governor::GovernorLayer::<_, _, Body>::new(Arc::new(config));
    subjects.push(through("tower_governor", layer.layer(inner())));
    let config = tower_governor::governor::GovernorConfigBuilder::default()
        .per_nanosecond(1)
        .burst_size(u32::MAX)
        .use_headers()
        .finish()
        .context("not zero")?;
    let layer = tower_governor::GovernorLayer::<_, _, Body>::new(Arc::new(config));
    subjects.push(through("tower_governor, headers", layer.layer(inner())));
    for most in [None, Some(100_000)] {
        let config = axum_governor::GovernorConfigBuilder::default()
            .with_extractor(PeerIp::default())
            .expect_connect_info()
            .quota_default(axum_governor::Quota::requests_per_second(PER_SECOND))
            // Its collector would want a runtime; no key grows old here.
            .gc_disable();
        let (name, config) = match most {
            None => ("axum-governor, headers", config),
            Some(most) => ("axum-governor, headers, 100,000 keys at most", config.max_keys(most)),
        };
        let layer = axum_governor::GovernorLayer::new(config.finish()?);
        subjects.push(through(name, layer.layer(inner())));
    }
    let heading = "Rate limit, the whole layer around an axum service, 1,024 client addresses";
    table::run(heading, &subjects, effort)
}

fn ours() -> anyhow::Result<Vec<Subject>> {
    let quota = escala_cluster::Quota::per_second(1_000_000).burst(u32::MAX);
    let layer = |headers| {
        let limiter = escala_cluster::RateLimiter::new("bench", quota)?;
        let limit = limiter.by(KeyBy::client_ip(ClientIp::default()));
        anyhow::Ok(RateLimitLayer::http().headers(headers).limit(limit))
    };
    Ok(vec![
        through("escala", layer(RateLimitHeaders::Off)?.layer(inner())),
        through(
            "escala, nothing given back",
            layer(RateLimitHeaders::Off)?.never_refund().layer(inner()),
        ),
        through("escala, headers", layer(RateLimitHeaders::Standard)?.layer(inner())),
    ])
}

type Answer = Ready<Result<Response, Infallible>>;

fn inner() -> ServiceFn<fn(Request) -> Answer> {
    service_fn((|_| ready(Ok(Response::new(Body::empty())))) as fn(Request) -> Answer)
}

fn through<S>(name: &str, service: S) -> Subject
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let request = |number| {
        let mut request = Request::new(Body::empty());
        let peer = SocketAddr::new(address(number, CLIENTS), 7_000);
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    };
    let right = |_, answer: &Result<Response, S::Error>| {
        answer.as_ref().is_ok_and(|response| response.status().is_success())
    };
    Subject::service(name, service, request, right)
}

fn address(number: u64, clients: u64) -> IpAddr {
    let client = u32::try_from(scattered(number, clients)).unwrap_or(u32::MAX);
    IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 | client))
}
