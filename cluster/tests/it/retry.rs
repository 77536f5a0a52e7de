//! The retry policy under tower's own `Retry`: what is sent again, when, and how much of it.

use std::collections::VecDeque;
use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escala_cluster::{
    BoxError, Breaker, BreakerConfig, BreakerLayer, ConcurrencyConfig, ConcurrencyLimit, EmptyBody,
    HttpRetry, Open, Retry, RetryConfig, RetryPolicy, RetryRules, RetryStats, RetryWhen,
};
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::retry::RetryLayer;
use tower::{Layer, Service, ServiceExt};

type Answer = Result<Response<&'static str>, BoxError>;

/// A server that answers from a list, and takes down when it was asked.
#[derive(Clone)]
struct Server {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Server {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self { answers, asked: Arc::default() }
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }

    /// Between the attempts.
    fn pauses(&self) -> Vec<Duration> {
        self.asked.lock().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

impl<B> Service<Request<B>> for Server {
    type Response = Response<&'static str>;
    type Error = BoxError;
    type Future = std::future::Ready<Answer>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        self.asked.lock().push(Instant::now());
        std::future::ready(self.answers.lock().pop_front().expect("not asked again"))
    }
}

fn status(code: u16) -> Answer {
    Ok(Response::builder().status(code).body("").expect("valid"))
}

fn after(code: u16, retry_after: &str) -> Answer {
    Ok(Response::builder().status(code).header("retry-after", retry_after).body("").expect("valid"))
}

fn failed(kind: ErrorKind) -> Answer {
    Err(Box::new(std::io::Error::from(kind)))
}

fn request(method: &Method) -> Request<String> {
    Request::builder().method(method).uri("/").body("body".to_owned()).expect("valid")
}

fn rules() -> HttpRetry<escala_cluster::CloneBody, impl Fn(&BoxError) -> Retry + Clone> {
    HttpRetry::new().errors(|error: &BoxError| Retry::for_error(&**error))
}

fn policy<R>(config: RetryConfig, rules: R) -> RetryPolicy<R> {
    RetryPolicy::new("test", config, rules).expect("valid")
}

/// Sends one request by the default configuration; the final status, if any, and the figures.
async fn send(
    method: &Method,
    answers: impl IntoIterator<Item = Answer>,
) -> (Option<u16>, Server, RetryStats) {
    let (server, policy) = (Server::new(answers), policy(RetryConfig::default(), rules()));
    let service = RetryLayer::new(policy.clone()).layer(server.clone());
    let result = service.oneshot(request(method)).await;
    (result.ok().map(|response| response.status().as_u16()), server, policy.stats())
}

#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_and_what_may_not_is_not() {
    for (method, answer, retried) in [
        (Method::GET, status(503), true),
        (Method::HEAD, status(502), true),
        (Method::PUT, status(504), true),
        (Method::DELETE, status(429), true),
        (Method::OPTIONS, status(503), true),
        (Method::TRACE, status(503), true),
        (Method::POST, status(503), false),
        (Method::PATCH, status(503), false),
        (Method::GET, status(500), false),
        (Method::GET, status(404), false),
        (Method::GET, failed(ErrorKind::ConnectionReset), true),
        (Method::POST, failed(ErrorKind::ConnectionReset), false),
        (Method::POST, failed(ErrorKind::ConnectionRefused), true),
        // A connection that was made ends so as well when its server dies, and the request may have
        // been carried out.
        (Method::PATCH, failed(ErrorKind::HostUnreachable), false),
        (Method::GET, failed(ErrorKind::HostUnreachable), true),
    ] {
        let first = answer.as_ref().ok().map(|response| response.status().as_u16());
        let (last, server, stats) = send(&method, [answer, status(200)]).await;
        assert_eq!(server.asked() == 2, retried, "{method} {first:?}");
        assert_eq!(last == Some(200), retried, "{method} {first:?}");
        let recovered = u64::from(retried);
        assert_eq!((stats.retries_total, stats.recovered_total), (recovered, recovered));
        assert_eq!((stats.requests_total, stats.attempts_total), (1, 1 + recovered));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_makes_a_post_repeatable_and_so_does_saying_so() {
    let answers = || [status(503), status(200)];
    let server = Server::new(answers());
    let mut post = request(&Method::POST);
    post.headers_mut().insert("idempotency-key", "7".parse().expect("valid"));
    let layer = RetryLayer::new(policy(RetryConfig::default(), rules()));
    let response = layer.layer(server.clone()).oneshot(post).await.expect("retried");
    assert_eq!((response.status(), server.asked()), (StatusCode::OK, 2));

    let server = Server::new(answers());
    let layer = RetryLayer::new(policy(RetryConfig::default(), rules().any_method()));
    let response = layer.layer(server.clone()).oneshot(request(&Method::POST)).await;
    assert_eq!((response.expect("retried").status(), server.asked()), (StatusCode::OK, 2));
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_after_so_many_attempts_with_the_last_result() {
    let (last, server, stats) =
        send(&Method::GET, [status(503), failed(ErrorKind::ConnectionRefused), status(502)]).await;
    assert_eq!((last, server.asked()), (Some(502), 3));
    assert_eq!((stats.out_of_attempts_total, stats.recovered_total), (1, 0));
    assert_eq!((stats.attempts_total, stats.retries_total), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn waits_are_random_and_grow() {
    let mut first = Vec::new();
    for _ in 0..200 {
        let (_, server, _) = send(&Method::GET, [status(503), status(503), status(200)]).await;
        let pauses = server.pauses();
        // The timer of tokio is exact to a millisecond.
        assert!(pauses[0] <= Duration::from_millis(51) && pauses[1] <= Duration::from_millis(101));
        first.push(pauses[0]);
    }
    // tower's ExponentialBackoff waits at least 50 ms, and by clones of one maker equally long.
    assert!(first.iter().any(|pause| *pause < Duration::from_millis(15)));
    assert!(first.iter().any(|pause| *pause > Duration::from_millis(35)));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_asks_for_is_kept_to() {
    let (last, server, _) = send(&Method::GET, [after(503, "3"), status(200)]).await;
    assert_eq!(last, Some(200));
    let pause = server.pauses()[0];
    assert!((Duration::from_secs(3)..Duration::from_millis(3_060)).contains(&pause), "{pause:?}");

    let (last, server, stats) = send(&Method::GET, [after(429, "10"), status(200)]).await;
    assert_eq!((last, server.asked()), (Some(429), 1), "later than the deadline: at once");
    assert_eq!(stats.out_of_time_total, 1);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_begun_after_the_deadline() {
    let config = RetryConfig::default().max_attempts(100);
    let server = Server::new((0..100).map(|_| after(503, "1")));
    let policy = policy(config, rules());
    let begun = Instant::now();
    let layer = RetryLayer::new(policy.clone());
    let response = layer.layer(server.clone()).oneshot(request(&Method::GET)).await;
    assert_eq!(response.expect("the last").status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!((4..=10).contains(&server.asked()), "{}", server.asked());
    assert_eq!(policy.stats().out_of_time_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_sent_once() {
    let server = Server::new([status(503), status(503), status(200)]);
    let policy = policy(RetryConfig::default(), rules().body(EmptyBody));
    let service = RetryLayer::new(policy.clone()).layer(server.clone());
    let full = request(&Method::GET);
    let response = service.clone().oneshot(full).await.expect("the first");
    assert_eq!((response.status().as_u16(), server.asked()), (503, 1));
    let empty = Request::new(String::new());
    let response = service.oneshot(empty).await.expect("the second");
    assert_eq!((response.status().as_u16(), server.asked()), (200, 3));
    let stats = policy.stats();
    assert_eq!((stats.not_copied_total, stats.requests_total, stats.retries_total), (1, 2, 1));
}

#[cfg(feature = "axum")]
#[test]
fn an_empty_body_of_axum_can_be_copied_and_a_stream_cannot() {
    use axum::body::Body;

    fn copy(body: Body) -> bool {
        let rules = HttpRetry::new().body(EmptyBody);
        let request = Request::builder().uri("/").header("a", "b").body(body).expect("valid");
        let copy: Option<Request<Body>> =
            RetryRules::<_, Response<Body>, BoxError>::copy(&rules, &request);
        copy.is_some_and(|copy| copy.headers() == request.headers())
    }
    assert!(copy(Body::empty()));
    assert!(!copy(Body::from("once")));
}

/// So many requests a second that all fail; what the backend sees of them.
async fn storm(config: RetryConfig, per_second: u32, seconds: u32) -> (u64, RetryStats) {
    let seen = Arc::new(AtomicU64::new(0));
    let backend = {
        let seen = Arc::clone(&seen);
        tower::service_fn(move |_: u32| {
            seen.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err::<(), BoxError>("down".into()))
        })
    };
    let rules = RetryWhen(|_: &u32, result: Result<&(), &BoxError>| match result {
        Ok(()) => Retry::No,
        Err(error) => Retry::for_error(&**error),
    });
    let policy = policy(config, rules);
    // Each request by a clone of its own, as axum's routes and its clients have it.
    let service = RetryLayer::new(policy.clone()).layer(backend);
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..per_second * seconds {
        requests.spawn(service.clone().oneshot(number));
        tokio::time::sleep(Duration::from_secs(1) / per_second).await;
    }
    while requests.join_next().await.is_some() {}
    (seen.load(Ordering::Relaxed), policy.stats())
}

// Without a budget three attempts are three times the load, when the backend can bear it least.
#[tokio::test(start_paused = true)]
async fn in_a_storm_the_backend_sees_a_fifth_more_and_ten_a_second() {
    for (per_second, seconds) in [(500, 30), (50, 60)] {
        let requests = u64::from(per_second * seconds);
        let (seen, stats) = storm(RetryConfig::default(), per_second, seconds).await;
        // The reserve of ten a second is kept for ten seconds.
        let most = requests + requests / 5 + 10 * (u64::from(seconds) + 10);
        assert!(seen <= most, "{seen} of {most}");
        assert!(seen > requests + requests / 6, "and it is used: {seen}");
        assert_eq!((stats.attempts_total, stats.requests_total), (seen, requests));
        assert!(stats.out_of_budget_total > requests / 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_earned_is_not_spent() {
    let (seen, stats) = storm(RetryConfig::default().budget(0, 0), 100, 5).await;
    assert_eq!((seen, stats.out_of_budget_total), (500, 500));
    // tower's budget, asked for one in three, would round to one in two.
    for requests_per_retry in [3, 7, 49] {
        let config = RetryConfig::default().budget(requests_per_retry, 0);
        let (seen, _) = storm(config, 100, 5).await;
        let retries = 500 / u64::from(requests_per_retry);
        assert!((retries.saturating_sub(1)..=retries).contains(&(seen - 500)), "{seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_client_is_retried_although_it_earns_little() {
    let (seen, stats) = storm(RetryConfig::default(), 2, 20).await;
    assert_eq!((seen, stats.out_of_budget_total), (120, 0));
}

#[test]
fn errors_tell_whether_anything_was_sent() {
    #[derive(Debug, thiserror::Error)]
    #[error("client error")]
    struct Outer(#[source] BoxError);

    let of = |error: BoxError| Retry::for_error(&Outer(error) as &(dyn Error + 'static));
    let io = |kind| Box::new(std::io::Error::from(kind)) as BoxError;
    for (kind, unsent) in [
        (ErrorKind::ConnectionRefused, true),
        (ErrorKind::HostUnreachable, false),
        (ErrorKind::NetworkUnreachable, false),
        (ErrorKind::NetworkDown, false),
        (ErrorKind::ConnectionReset, false),
        (ErrorKind::BrokenPipe, false),
        (ErrorKind::TimedOut, false),
    ] {
        let expected = if unsent { Retry::Always(None) } else { Retry::IfIdempotent(None) };
        assert_eq!(of(io(kind)), expected);
    }
    assert_eq!(of("anything".into()), Retry::IfIdempotent(None));

    let config = ConcurrencyConfig::fixed(1).retry_after(Duration::from_secs(4));
    let limit = ConcurrencyLimit::new("full", config).expect("valid");
    let _held = limit.try_acquire().expect("free");
    let refused = limit.try_acquire().expect_err("full");
    assert_eq!(of(refused.into()), Retry::No);
}

// With a wait for as long as the breaker says, they would be held, and come to it all at once at the
// moment it asks its backend again.
#[tokio::test(start_paused = true)]
async fn what_a_breaker_refuses_is_answered_at_once() {
    let breaker = Breaker::new("open", BreakerConfig::default()).expect("valid");
    breaker.force_open();
    let inner = BreakerLayer::new(breaker.clone()).layer(Server::new([]));
    let policy = policy(RetryConfig::default(), rules());
    let service = RetryLayer::new(policy.clone()).layer(inner);
    let begun = Instant::now();
    for _ in 0..100 {
        let result = service.clone().oneshot(request(&Method::GET)).await;
        assert!(result.expect_err("refused").is::<Open>());
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let stats = policy.stats();
    assert_eq!((stats.requests_total, stats.attempts_total), (100, 100));
    // Nothing was paid for them, and nothing is due.
    assert_eq!((stats.out_of_budget_total, stats.out_of_time_total), (0, 0));
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn what_a_layer_in_a_router_refuses_is_answered_at_once_and_a_handlers_503_is_asked_again() {
    use axum::{Router, body::Body, routing::get};

    let breaker = Breaker::new("open", BreakerConfig::default()).expect("valid");
    breaker.force_open();
    let router = Router::new()
        .route("/refused", get(async || "never"))
        .route_layer(BreakerLayer::http(breaker))
        .route("/busy", get(async || StatusCode::SERVICE_UNAVAILABLE));
    for (path, attempts) in [("/refused", 1), ("/busy", 3)] {
        let policy = policy(RetryConfig::default(), HttpRetry::new().body(EmptyBody));
        let service = RetryLayer::new(policy.clone()).layer(router.clone());
        let request = Request::get(path).body(Body::empty()).expect("valid");
        let response = service.oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(policy.stats().attempts_total, attempts, "{path}");
        assert_eq!(policy.stats().recovered_total, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_defect_after_a_retry_is_no_recovery() {
    let (last, server, stats) = send(&Method::GET, [status(503), status(500)]).await;
    assert_eq!((last, server.asked(), stats.recovered_total), (Some(500), 2, 0));
}

#[test]
fn statuses_can_be_chosen_and_every_figure_is_handed_out() {
    let rules = HttpRetry::new().statuses([StatusCode::INTERNAL_SERVER_ERROR]);
    let judge = |code| {
        let response = status(code).expect("a response");
        let result: Result<_, &BoxError> = Ok(&response);
        RetryRules::<_, _, _>::judge(&rules, &request(&Method::GET), result)
    };
    assert_eq!((judge(503), judge(500)), (Retry::No, Retry::IfIdempotent(None)));

    let policy = RetryPolicy::http("figures", RetryConfig::default()).expect("valid");
    let mut figures = Vec::new();
    policy.stats().visit(&mut |name, labels, value| {
        assert_eq!((labels, value), (&[("policy", "figures")][..], 0.0));
        figures.push(name.to_owned());
    });
    assert_eq!(figures.len(), 9);
    assert!(figures.iter().all(|name| name.ends_with("_total")));
    assert!(format!("{policy:?}").contains("figures"));
    assert_eq!(policy.name(), "figures");
}

#[cfg(feature = "serde")]
#[test]
fn a_policy_is_configured_by_a_file() {
    let text = r#"{"max_attempts": 2, "deadline": "3s", "retries_per_second": 1}"#;
    let config: RetryConfig = serde_json::from_str(text).expect("valid");
    let expected =
        RetryConfig::default().max_attempts(2).deadline(Duration::from_secs(3)).budget(5, 1);
    assert_eq!(config, expected);
    assert!(serde_json::from_str::<RetryConfig>(r#"{"max_attempt": 2}"#).is_err());
}
