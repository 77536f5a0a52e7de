//! What is served from the caches, and what takes it out of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use escala_examples::enterprise::domain::{Dated, Quote};
use serde_json::{Value, json};

use crate::api::{Answer, Server, order};

const TOKEN: &str = "0123456789abcdef";
const QUOTE: &str = "/api/trading/quotes/S0007";

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn is_hit(&self) -> bool {
        self.header("cache-status").contains("pages;hit")
    }
}

impl Server {
    async fn send_as(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request =
            fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::empty()).expect("request")).await
    }

    async fn get_as(&self, path: &str, name: &str, value: &str) -> Answer {
        self.send_as("GET", path, &[(name, value)]).await
    }

    async fn buys(&self, symbol: &str) {
        let placed = self.post("/api/trading/orders", None, order(42, symbol, 3)).await;
        assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.json);
    }

    async fn database_reads(&self) -> u64 {
        self.get("/cache/stats").await.json["database_reads"].as_u64().expect("a number")
    }

    /// Somebody changes the file past the server.
    fn changes_by_hand(&self) {
        let file = self.folder.path().join("enterprise.sqlite");
        let connection = rusqlite::Connection::open(file).expect("open");
        let changed =
            connection.execute("update symbols set volume = 77 where symbol = 'S0007'", []);
        assert_eq!(changed.expect("update"), 1);
    }
}

#[tokio::test]
async fn a_quote_is_a_page_until_an_order_changes_it() {
    let server = Server::start(&[]).await;
    let first = server.get(QUOTE).await;
    assert!(first.header("cache-status").contains("fwd="), "{:?}", first.headers);
    assert_eq!(first.header("cache-control"), "no-cache");
    assert_eq!(first.header("surrogate-key"), "");
    server.get("/api/trading/quotes/S0008").await;
    let second = server.get(QUOTE).await;
    assert!(second.is_hit(), "{:?}", second.headers);
    assert_eq!((&second.json, &second.json["volume"]), (&first.json, &json!(0)));
    let same = server.get_as(QUOTE, "if-none-match", first.header("etag")).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);

    server.buys("S0007").await;
    let changed = server.get_as(QUOTE, "if-none-match", first.header("etag")).await;
    assert_eq!((changed.status, &changed.json["volume"]), (StatusCode::OK, &json!(3)));
    assert!(!changed.is_hit() && server.get(QUOTE).await.is_hit());
    assert!(server.get("/api/trading/quotes/S0008").await.is_hit(), "another symbol's page");
}

#[tokio::test]
async fn the_catalogue_is_read_page_by_page_and_orders_leave_it_alone() {
    let server = Server::start(&["--admin-token", TOKEN]).await;
    let mut path = "/api/trading/symbols".to_owned();
    let mut symbols = Vec::new();
    loop {
        let page = server.get(&path).await;
        symbols.extend(page.json["symbols"].as_array().expect("symbols").clone());
        let Some(next) = page.json["next"].as_str() else { break };
        path = format!("/api/trading/symbols?after={next}");
    }
    assert_eq!(symbols.len(), 1_000);
    assert_eq!(symbols[0], json!({ "symbol": "S0001", "bid_cents": 810, "ask_cents": 812 }));
    assert_eq!(symbols[999]["symbol"], "S1000");

    server.buys("S0001").await;
    assert!(server.get("/api/trading/symbols").await.is_hit());
    let bearer = format!("Bearer {TOKEN}");
    let fields = [("authorization", &*bearer)];
    let removed = server.send_as("DELETE", "/cache/tags/catalogue", &fields).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert!(!server.get("/api/trading/symbols").await.is_hit());
    for wrong in ["?after=a%20b", "?before=S0001", "?after=S1&after=S2"] {
        let answer = server.get(&format!("/api/trading/symbols{wrong}")).await;
        assert!(answer.status.is_client_error(), "{wrong}: {}", answer.status);
    }
}

#[tokio::test]
async fn administrators_read_past_every_cache_and_remove_from_them() {
    let server = Server::start(&["--admin-token", TOKEN]).await;
    server.get(QUOTE).await;
    server.changes_by_hand();
    let bearer = format!("Bearer {TOKEN}");
    let truth = server.get_as(QUOTE, "authorization", &bearer).await;
    assert_eq!(truth.json["volume"], 77);
    assert_eq!(truth.header("cache-control"), "private, no-store");
    for forged in ["Bearer 0123456789abcdeF", "Bearer", "Basic b3BzOmh1bnRlcjI="] {
        let answer = server.get_as(QUOTE, "authorization", forged).await;
        assert_eq!(answer.json["volume"], 0, "{forged}");
    }
    assert!(server.get(QUOTE).await.is_hit(), "what administrators read is not stored");

    let tag = "/cache/tags/quote:S0007";
    for fields in [&[][..], &[("authorization", "Bearer 0123456789abcdeF")]] {
        server.send_as("DELETE", tag, fields).await.is_problem(403, &["ADMIN_TOKEN"]);
    }
    assert_eq!(server.get(QUOTE).await.json["volume"], 0);
    let removed = server.send_as("DELETE", tag, &[("authorization", &bearer)]).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(server.get(QUOTE).await.json["volume"], 77);
}

#[tokio::test]
async fn without_a_token_nobody_is_an_administrator() {
    let server = Server::start(&[]).await;
    let removed = server.send_as("DELETE", "/cache/tags/market", &[("authorization", "Bearer ")]);
    removed.await.is_problem(403, &["ADMIN_TOKEN"]);
}

#[tokio::test]
async fn tenants_share_no_page_and_an_order_reaches_all_of_them() {
    let server = Server::start(&["--tenants", "acme,globex"]).await;
    for tenant in ["acme", "globex"] {
        assert!(!server.get_as(QUOTE, "x-tenant", tenant).await.is_hit(), "{tenant}");
        assert!(server.get_as(QUOTE, "x-tenant", tenant).await.is_hit(), "{tenant}");
    }
    assert!(!server.get(QUOTE).await.is_hit(), "nobody's");
    assert!(server.get_as(QUOTE, "x-tenant", "made-up").await.is_hit(), "nobody's");
    server.buys("S0007").await;
    for tenant in ["acme", "globex", "made-up"] {
        let answer = server.get_as(QUOTE, "x-tenant", tenant).await;
        assert_eq!(answer.json["volume"], 3, "{tenant}");
    }
}

#[tokio::test]
async fn a_symbol_that_is_not_there_is_looked_for_once() {
    let server = Server::start(&[]).await;
    let before = server.database_reads().await;
    for _ in 0..3 {
        server.get("/api/trading/quotes/NOPE").await.is_problem(404, &["symbol", "NOPE"]);
        server.get("/api/affiliate/100001/report").await.is_problem(404, &["user", "100001"]);
    }
    assert_eq!(server.database_reads().await - before, 2);
}

#[tokio::test]
async fn a_list_of_quotes_is_one_read_of_what_is_not_cached() {
    let server = Server::start(&[]).await;
    server.get("/api/trading/quotes/S0002").await;
    let before = server.database_reads().await;
    let path = "/api/trading/quotes?symbols=S0003,NOPE,S0001,S0002,a%20b,S0001";
    for _ in 0..2 {
        let list = server.get(path).await;
        let names: Vec<&Value> =
            list.json["quotes"].as_array().expect("quotes").iter().map(|q| &q["symbol"]).collect();
        assert_eq!(names, ["S0003", "S0001", "S0002", "S0001"]);
        assert_eq!(list.json["unknown"], json!(["NOPE", "a b"]));
    }
    assert_eq!(server.database_reads().await - before, 1);
    server.buys("S0001").await;
    assert_eq!(server.get(path).await.json["quotes"][1]["volume"], 3);
    assert_eq!(server.database_reads().await - before, 2);

    server.get("/api/trading/quotes").await.is_problem(400, &["symbols"]);
    let long = vec!["S0001"; 51].join(",");
    let long = server.get(&format!("/api/trading/quotes?symbols={long}")).await;
    long.is_problem(422, &["symbols", "51", "50"]);
}

#[tokio::test]
async fn what_is_one_persons_is_no_page() {
    let server = Server::start(&[]).await;
    server.buys("S0001").await;
    for path in ["/api/financial/balance/1", "/api/affiliate/2/report", "/api/trading/orders/1"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("cache-control"), "private, no-store", "{path}");
        assert!(!answer.headers.contains_key("cache-status"), "{path}");
    }
    assert_eq!(server.get("/cache/stats").await.json["pages"]["http"]["requests"], 0);
}

#[tokio::test]
async fn while_the_database_is_away_old_quotes_are_served_and_old_reports_are_not() {
    let server = Server::start(&[]).await;
    let caches = &server.app.caches;
    for path in [QUOTE, "/api/trading/symbols", "/api/affiliate/2/report"] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    // Their time is over: the value of one, the page of the other; and the report's.
    caches.quotes.expire("S0007").await;
    caches.pages.purge_tag(None, "quote:S0007").await;
    caches.pages.soft_purge_tag(None, "catalogue").await;
    caches.reports.expire(&2).await;
    for (_, node) in &server.app.nodes {
        node.close().await;
    }
    let quote = server.get(QUOTE).await;
    assert_eq!((quote.status, &quote.json["volume"]), (StatusCode::OK, &json!(0)));
    assert_eq!(caches.quotes.stats().stale_serves, 1);
    let catalogue = server.get("/api/trading/symbols").await;
    assert_eq!(catalogue.status, StatusCode::OK, "{}", catalogue.json);
    assert_eq!(caches.pages.stats().stale, 1);
    assert!(server.get("/api/affiliate/2/report").await.status.is_server_error());
    assert!(server.get("/api/trading/quotes/S0009").await.status.is_server_error());
}

#[tokio::test]
async fn an_old_quote_becomes_no_page_that_outlives_it() {
    let server = Server::start(&[]).await;
    let value: Quote = serde_json::from_value(server.get(QUOTE).await.json).expect("a quote");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    for (age, control) in [(590, "max-age="), (700, "no-store")] {
        let read_ms = u64::try_from((now - Duration::from_secs(age)).as_millis()).expect("fits");
        let dated = Arc::new(Dated { value: value.clone(), read_ms });
        server.app.caches.quotes.insert("S0007".to_owned(), dated).await;
        server.app.caches.pages.clear().await;
        let answer = server.get(QUOTE).await;
        let told = answer.header("enterprise-cache-control");
        assert!(told.starts_with(control), "{told}");
        let seconds = told.strip_prefix("max-age=").map_or(0, |rest| rest.parse().expect("number"));
        assert!(seconds <= 10, "{told}");
    }
    assert!(!server.get(QUOTE).await.is_hit(), "older than any page may be");
}

#[tokio::test]
async fn every_cache_tells_its_figures() {
    let server = Server::start(&[]).await;
    server.get(QUOTE).await;
    server.get(QUOTE).await;
    let stats = server.get("/cache/stats").await.json;
    assert_eq!(stats["quotes"]["memory"]["capacity"], 1_000);
    assert_eq!(stats["reports"]["memory"]["capacity"], 1_000);
    assert_eq!(stats["pages"]["store"]["memory"]["capacity"], 1_000);
    let pages = &stats["pages"]["http"];
    assert_eq!(
        (&pages["hits"], &pages["misses"], &pages["stored"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let metrics =
        server.send_as("GET", "/metrics", &[(header::ACCEPT.as_str(), "text/plain")]).await;
    for cache in ["quotes", "reports", "pages"] {
        assert!(metrics.text.contains(&format!("cache=\"{cache}\"")), "{cache}");
    }
    assert!(metrics.text.contains("http_cache_requests_total"), "{}", metrics.text);
}

mod redis {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test]
    async fn an_order_on_one_server_takes_the_page_from_another() {
        let redis = testkit::Redis::start().await.expect("redis");
        let url = redis.url();
        let one = Server::start(&["--redis-url", &url]).await;
        let two = one.again(&["--redis-url", &url]).await;
        for _ in 0..2 {
            assert_eq!(two.get(QUOTE).await.json["volume"], 0);
        }
        assert!(two.get(QUOTE).await.is_hit());
        one.buys("S0007").await;
        assert_eq!(one.get(QUOTE).await.json["volume"], 3, "at once where the order was placed");
        let deadline = Instant::now() + Duration::from_secs(30);
        while two.get(QUOTE).await.json["volume"] != 3 {
            assert!(Instant::now() < deadline, "{}", two.get("/cache/stats").await.json);
            sleep(Duration::from_millis(5)).await;
        }
        let coherent = |cache: &Value| {
            cache["coherence"]["up"] == true && cache["coherence"]["received"].as_u64() > Some(0)
        };
        loop {
            let stats = two.get("/cache/stats").await.json;
            if coherent(&stats["quotes"]) && coherent(&stats["pages"]["store"]) {
                break;
            }
            assert!(Instant::now() < deadline, "{stats}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}
