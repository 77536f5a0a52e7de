//! Database, Redis and the service outside fail for real: callers are answered at once, nothing that
//! is our own fault or a client's opens a circuit, and all of it is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use escala_cluster::{Breaker, State as Circuit};
use http_body_util::Channel;
use parking_lot::Mutex;
use serde_json::json;
use testkit::{PgCluster, Redis};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::api::{Answer, Server, order, transfer};

/// A circuit whose time is over, and that is tried, counts as closed when this says so.
async fn closes(breaker: &Breaker, mut call: impl AsyncFnMut()) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while breaker.state() != Circuit::Closed {
        assert!(Instant::now() < deadline, "{:?}", breaker.stats());
        call().await;
        sleep(Duration::from_millis(50)).await;
    }
}

/// Refused without asking anybody.
async fn is_refused_at_once(call: impl Future<Output = Answer>) {
    let answer = timeout(Duration::from_millis(900), call).await.expect("at once");
    answer.is_problem(503, &["away"]);
    let seconds = answer.headers[header::RETRY_AFTER].to_str().expect("text").parse::<u64>();
    assert!((1..=13).contains(&seconds.expect("whole seconds")));
}

/// The figures of one breaker as the dashboard shows them.
async fn shown(server: &Server, breaker: &str, figure: &str) -> f64 {
    let services = server.get("/dashboard/services").await.json;
    let figures = services["services"]["breaker"].as_array().expect("figures").clone();
    let found = figures
        .iter()
        .find(|it| it["name"] == figure && it["labels"]["breaker"] == breaker)
        .unwrap_or_else(|| panic!("{breaker} {figure} is not in {figures:?}"));
    found["value"].as_f64().expect("number")
}

/// What the service outside does.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Well,
    Broken,
    Overloaded,
    CutsOff,
    Garbled,
    Hangs,
}

#[derive(Clone)]
struct Outside {
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicU32>,
}

impl Outside {
    /// On a free port; its address for `EXCHANGE_RATES_URL`.
    async fn start() -> (Self, String) {
        let outside = Self { mood: Arc::new(Mutex::new(Mood::Well)), asked: Arc::default() };
        let router = Router::new().route("/latest", get(latest)).with_state(outside.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/latest", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (outside, url)
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn latest(
    State(outside): State<Outside>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Response {
    outside.asked.fetch_add(1, Ordering::SeqCst);
    let mood = *outside.mood.lock();
    match (mood, query.as_deref()) {
        (Mood::Well, Some("base=USD&symbols=EUR")) => {
            axum::Json(json!({ "base": "USD", "rates": { "EUR": 0.92 } })).into_response()
        }
        (Mood::Well, Some("base=USD&symbols=CHF")) => {
            axum::Json(json!({ "base": "USD", "rates": { "CHF": 0.88 } })).into_response()
        }
        (Mood::Well, _) => StatusCode::NOT_FOUND.into_response(),
        (Mood::Broken, _) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        (Mood::Overloaded, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")]).into_response()
        }
        (Mood::CutsOff, _) => {
            let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
            tokio::spawn(async move {
                let _ = sender.send_data("{\"rates\"".into()).await;
                sender.abort(std::io::Error::other("gone"));
            });
            Body::new(body).into_response()
        }
        (Mood::Garbled, _) => "<html>".into_response(),
        (Mood::Hangs, _) => std::future::pending().await,
    }
}

async fn rate(server: &Server, currency: &str) -> Answer {
    server.get(&format!("/api/financial/rates/{currency}")).await
}

#[tokio::test]
async fn rates_are_asked_for_outside_and_the_last_one_stands_in() {
    let (outside, url) = Outside::start().await;
    let server = Server::start(&["--exchange-rates-url", &url]).await;
    let breaker = &server.app.breakers.rates;
    let well = rate(&server, "EUR").await.json;
    assert_eq!((&well["rate"], &well["stale"]), (&json!(0.92), &json!(false)));
    assert_eq!((&well["base"], &well["currency"]), (&json!("USD"), &json!("EUR")));

    // What clients get wrong is answered by the service, or never reaches it.
    for _ in 0..20 {
        rate(&server, "XXX").await.is_problem(404, &["XXX"]);
        rate(&server, "eur").await.is_problem(422, &["eur", "EUR"]);
    }
    assert_eq!((breaker.state(), outside.asked()), (Circuit::Closed, 21));

    // Each way to fail is one. What was said last stands in, and without it there is nothing.
    for mood in [Mood::Broken, Mood::CutsOff, Mood::Garbled, Mood::Broken] {
        outside.set(mood);
        let old = rate(&server, "EUR").await.json;
        assert_eq!((&old["rate"], &old["stale"]), (&json!(0.92), &json!(true)), "{mood:?}");
    }
    assert_eq!(breaker.state(), Circuit::Closed);
    rate(&server, "GBP").await.is_problem(503, &["away"]);
    assert_eq!(breaker.state(), Circuit::Open);
    let asked = outside.asked();
    assert_eq!(rate(&server, "EUR").await.json["stale"], true);
    is_refused_at_once(rate(&server, "GBP")).await;
    assert_eq!(outside.asked(), asked, "it is left alone");
    assert_eq!(shown(&server, "exchange rates", "state").await, 2.0);
    assert_eq!(shown(&server, "exchange rates", "rejected_total").await, 2.0);
    // Of the area's own breaker it is no failure.
    assert_eq!(shown(&server, "financial", "failed_total").await, 0.0);

    outside.set(Mood::Well);
    breaker.reset();
    assert_eq!(rate(&server, "CHF").await.json["rate"], 0.88);
}

#[tokio::test]
async fn the_service_outside_says_when_to_come_back() {
    let (outside, url) = Outside::start().await;
    let server = Server::start(&["--exchange-rates-url", &url]).await;
    outside.set(Mood::Overloaded);
    for _ in 0..5 {
        rate(&server, "EUR").await.is_problem(503, &["away"]);
    }
    let answer = rate(&server, "EUR").await;
    let seconds: u64 =
        answer.headers[header::RETRY_AFTER].to_str().expect("text").parse().expect("seconds");
    assert!((25..=36).contains(&seconds), "{seconds} instead of 30 and a little");
    assert_eq!(outside.asked(), 5);
}

#[tokio::test]
async fn a_service_outside_that_hangs_costs_two_seconds_five_times() {
    let (outside, url) = Outside::start().await;
    let server = Arc::new(Server::start(&["--exchange-rates-url", &url]).await);
    outside.set(Mood::Hangs);
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let server = Arc::clone(&server);
        calls.spawn(async move { rate(&server, "EUR").await.is_problem(503, &["away"]) });
    }
    calls.join_all().await;
    assert_eq!(server.app.breakers.rates.state(), Circuit::Open);
    is_refused_at_once(rate(&server, "EUR")).await;
    assert_eq!(outside.asked(), 5);
}

/// Longer than what a breaker takes for the haste of a client, by its default.
const HASTE: Duration = Duration::from_millis(600);

#[tokio::test]
async fn clients_that_hang_up_close_no_area_and_no_service_to_others() {
    let (outside, url) = Outside::start().await;
    let server = Arc::new(Server::start(&["--exchange-rates-url", &url]).await);
    outside.set(Mood::Hangs);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let server = Arc::clone(&server);
        calls.spawn(async move { timeout(HASTE, rate(&server, "EUR")).await.is_err() });
    }
    let hung_up = calls.join_all().await.into_iter().filter(|hung_up| *hung_up).count();
    assert!(hung_up >= 10, "{hung_up}");
    let breakers = &server.app.breakers;
    for breaker in [&breakers.rates, &breakers.financial] {
        let stats = breaker.stats();
        assert_eq!((stats.abandoned_total, stats.opened_total), (0, 0), "{stats:?}");
    }
    outside.set(Mood::Well);
    assert_eq!(rate(&server, "EUR").await.json["rate"], 0.92);
    assert_eq!(server.get("/api/financial/balance/7").await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_a_service_for_rates_there_are_none() {
    let server = Server::start(&[]).await;
    rate(&server, "EUR").await.is_problem(404, &["exchange rates"]);
    let services = server.get("/dashboard/services").await.json;
    let figures = services["services"]["breaker"].as_array().expect("figures");
    let names = |name: &str| figures.iter().any(|it| it["labels"]["breaker"] == name);
    for name in ["database reads", "database writes", "trading", "financial", "affiliate"] {
        assert!(names(name), "{name}");
    }
    assert!(!names("exchange rates") && !names("redis"));
}

#[tokio::test]
async fn what_clients_get_wrong_is_no_failure_of_the_database() {
    let server = Server::start(&[]).await;
    for n in 0..30 {
        server.get(&format!("/api/financial/balance/{}", 900_000 + n)).await.is_problem(404, &[]);
        server.get(&format!("/api/trading/quotes/NONE{n}")).await.is_problem(404, &[]);
        let poor = server.post("/api/financial/transfers", None, transfer(1, 2, i64::MAX)).await;
        poor.is_problem(422, &["cents"]);
    }
    for breaker in [&server.app.breakers.reads, &server.app.breakers.writes] {
        let stats = breaker.stats();
        assert_eq!((stats.failed_total, stats.ignored_total), (0, 0), "{stats:?}");
        assert!(stats.succeeded_total >= 30, "{stats:?}");
    }
}

mod postgres {
    use super::*;

    async fn over(cluster: &PgCluster, others: &[&str]) -> Arc<Server> {
        let url = cluster.primary().url();
        let fixed = ["--database-url", &url];
        Arc::new(
            Server::start(&fixed.into_iter().chain(others.iter().copied()).collect::<Vec<_>>())
                .await,
        )
    }

    async fn balance(server: &Server) -> Answer {
        server.get("/api/financial/balance/7").await
    }

    async fn buy(server: &Server) -> Answer {
        server.post("/api/trading/orders", None, order(7, "S0001", 1)).await
    }

    /// So many at once, each with its status.
    async fn at_once(server: &Arc<Server>, count: usize, write: bool) -> Vec<u16> {
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let server = Arc::clone(server);
            calls.spawn(async move {
                let answer = if write { buy(&server).await } else { balance(&server).await };
                answer.status.as_u16()
            });
        }
        calls.join_all().await
    }

    #[tokio::test]
    async fn a_database_that_is_down_is_left_alone_until_it_is_back() {
        let cluster = PgCluster::start(0).await.expect("cluster");
        let server = over(&cluster, &["--replica-health-check-interval", "200"]).await;
        let breakers = &server.app.breakers;
        assert_eq!(buy(&server).await.status, StatusCode::CREATED);
        cluster.kill_primary().expect("killed");
        // Each waits a while for a primary; together they are enough.
        assert!(at_once(&server, 8, true).await.iter().all(|status| *status == 503));
        assert!(at_once(&server, 8, false).await.iter().all(|status| *status == 503));
        for (breaker, name) in
            [(&breakers.writes, "database writes"), (&breakers.reads, "database reads")]
        {
            assert!(breaker.stats().opened_total >= 1, "{:?}", breaker.stats());
            assert!(shown(&server, name, "opened_total").await >= 1.0);
            breaker.force_open();
        }
        is_refused_at_once(buy(&server)).await;
        is_refused_at_once(balance(&server)).await;
        for breaker in [&breakers.writes, &breakers.reads] {
            breaker.reset();
        }
        assert_eq!(shown(&server, "trading", "failed_total").await, 0.0);
        assert_eq!(shown(&server, "financial", "failed_total").await, 0.0);
        at_once(&server, 8, true).await;
        assert_ne!(breakers.writes.state(), Circuit::Closed);

        cluster.start_primary().await.expect("started");
        closes(&breakers.writes, async || drop(buy(&server).await)).await;
        assert_eq!(buy(&server).await.status, StatusCode::CREATED);
    }

    /// Locks a table for so many seconds, in a session of its own; the lock is held on return.
    async fn locks(
        cluster: &Arc<PgCluster>,
        table: &'static str,
        seconds: f64,
    ) -> JoinHandle<Result<String, testkit::Error>> {
        let lock =
            format!("lock table {table} in access exclusive mode; select pg_sleep({seconds})");
        let holder = Arc::clone(cluster);
        let holder = tokio::spawn(async move { holder.sql(holder.primary(), &lock).await });
        let held = format!(
            "select count(*) from pg_locks
             where relation = '{table}'::regclass and mode = 'AccessExclusiveLock' and granted"
        );
        let deadline = Instant::now() + Duration::from_secs(30);
        while cluster.sql(cluster.primary(), &held).await.expect("asked") != "1" {
            assert!(Instant::now() < deadline, "{table} is not locked");
        }
        holder
    }

    #[tokio::test]
    async fn a_pool_that_is_busy_is_no_failure() {
        let cluster = Arc::new(PgCluster::start(0).await.expect("cluster"));
        let server = over(&cluster, &["--db-pool-size", "2"]).await;
        // Longer than anybody waits for a connection, shorter than a server may think.
        let lock = locks(&cluster, "orders", 6.5).await;
        let statuses = at_once(&server, 80, true).await;
        lock.await.expect("no panic").expect("held");
        let busy = statuses.iter().filter(|status| **status == 503).count();
        assert!(busy >= 20, "{statuses:?}");
        let stats = server.app.breakers.writes.stats();
        assert_eq!((stats.failed_total, stats.opened_total), (0, 0), "{stats:?}");
        assert!(stats.ignored_total >= 20, "{stats:?}");
        assert_eq!(shown(&server, "trading", "failed_total").await, 0.0);
        assert_eq!(buy(&server).await.status, StatusCode::CREATED);
    }

    #[tokio::test]
    async fn clients_that_hang_up_while_the_pool_is_busy_are_no_failure() {
        let cluster = Arc::new(PgCluster::start(0).await.expect("cluster"));
        let server = over(&cluster, &["--db-pool-size", "2"]).await;
        let lock = locks(&cluster, "users", 4.0).await;
        let mut calls = JoinSet::new();
        for _ in 0..40 {
            let server = Arc::clone(&server);
            calls.spawn(async move { timeout(HASTE, balance(&server)).await.is_err() });
        }
        let hung_up = calls.join_all().await.into_iter().filter(|hung_up| *hung_up).count();
        assert!(hung_up >= 20, "{hung_up}");
        for breaker in [&server.app.breakers.reads, &server.app.breakers.financial] {
            let stats = breaker.stats();
            assert_eq!((stats.abandoned_total, stats.opened_total), (0, 0), "{stats:?}");
        }
        lock.await.expect("no panic").expect("held");
        assert_eq!(balance(&server).await.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_database_that_is_frozen_is_left_alone_though_no_call_fails() {
        let cluster = PgCluster::start(0).await.expect("cluster");
        let server = over(&cluster, &[]).await;
        assert_eq!(balance(&server).await.status, StatusCode::OK);
        cluster.freeze_node(cluster.primary()).expect("frozen");
        let frozen = Instant::now();
        let stuck = tokio::spawn({
            let server = Arc::clone(&server);
            async move { at_once(&server, 60, false).await }
        });
        let reads = &server.app.breakers.reads;
        while reads.state() == Circuit::Closed {
            assert!(frozen.elapsed() < Duration::from_secs(30), "{:?}", reads.stats());
            sleep(Duration::from_millis(100)).await;
        }
        is_refused_at_once(balance(&server)).await;
        cluster.thaw_node(cluster.primary()).expect("thawed");
        closes(reads, async || drop(balance(&server).await)).await;
        assert_eq!(balance(&server).await.status, StatusCode::OK);
        stuck.await.expect("no panic");
    }
}

mod redis {
    use super::*;

    #[tokio::test]
    async fn redis_that_is_frozen_is_left_alone_and_nobody_notices() {
        let redis = Redis::start().await.expect("redis");
        let server = Server::start(&["--redis-url", &redis.url()]).await;
        let breaker = &server.app.breakers.redis;
        let mut symbols = (1..).map(|n| format!("/api/trading/quotes/S{n:04}"));
        let mut quote = async || {
            let path = symbols.next().expect("endless");
            assert_eq!(server.get(&path).await.status, StatusCode::OK, "{path}");
        };
        quote().await;
        assert_eq!(breaker.state(), Circuit::Closed);
        redis.freeze().expect("frozen");
        let deadline = Instant::now() + Duration::from_secs(30);
        while breaker.state() == Circuit::Closed {
            assert!(Instant::now() < deadline, "{:?}", breaker.stats());
            quote().await;
        }
        assert!(shown(&server, "redis", "opened_total").await >= 1.0);
        // Without waiting for Redis: its timeouts alone would be seconds.
        let before = breaker.stats().failed_total;
        for _ in 0..50 {
            quote().await;
        }
        assert!(breaker.stats().failed_total <= before + 6, "{:?}", breaker.stats());
        redis.thaw().expect("thawed");
        closes(breaker, async || quote().await).await;
    }
}
