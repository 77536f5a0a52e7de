//! Every route with good and bad input, in process; what is refused leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use clap::Parser as _;
use escala_examples::enterprise::domain::Audit;
use escala_examples::enterprise::{App, BODY_LIMIT, Settings, router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) struct Server {
    pub(crate) app: App,
    router: Router,
    pub(crate) folder: Arc<TempDir>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::on(Arc::new(tempfile::tempdir().expect("folder")), arguments).await
    }

    /// Another server on the same data.
    pub(crate) async fn again(&self, arguments: &[&str]) -> Self {
        Self::on(Arc::clone(&self.folder), arguments).await
    }

    async fn on(folder: Arc<TempDir>, arguments: &[&str]) -> Self {
        let data_dir = folder.path().to_str().expect("utf-8");
        let fixed = ["enterprise", "--data-dir", data_dir];
        let settings = Settings::try_parse_from(fixed.iter().chain(arguments)).expect("settings");
        let app = App::open(settings).await.expect("open");
        Self { router: router(&app), app, folder }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("body").to_bytes();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, json, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("request")).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        key: Option<&str>,
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        self.send(request.body(body.into()).expect("request")).await
    }

    async fn audit(&self) -> Audit {
        serde_json::from_value(self.get("/api/enterprise/audit").await.json).expect("audit")
    }
}

pub(crate) fn order(user: i64, symbol: &str, quantity: i64) -> String {
    json!({ "user": user, "symbol": symbol, "quantity": quantity }).to_string()
}

pub(crate) fn transfer(from: i64, to: i64, amount_cents: i64) -> String {
    json!({ "from": from, "to": to, "amount_cents": amount_cents }).to_string()
}

impl Answer {
    pub(crate) fn is_problem(&self, status: u16, mentions: &[&str]) {
        assert_eq!(self.status.as_u16(), status, "{}", self.json);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(self.json["status"], status);
        let detail = self.json["detail"].as_str().expect("detail");
        for text in mentions {
            assert!(detail.contains(text), "{text:?} is not in {detail:?}");
        }
    }
}

#[tokio::test]
async fn reads_answer_what_the_seed_holds() {
    let server = Server::start(&[]).await;
    let quote = server.get("/api/trading/quotes/S0001").await;
    assert_eq!(
        quote.json,
        json!({ "symbol": "S0001", "bid_cents": 810, "ask_cents": 812, "volume": 0 })
    );
    let balance = server.get("/api/financial/balance/100000").await;
    assert_eq!(balance.json, json!({ "user": 100_000, "cash_cents": 100_000_000 }));
    let report = server.get("/api/affiliate/1/report").await;
    assert_eq!(report.json["referred_users"], 110);
    for path in [
        "/health",
        "/health/live",
        "/health/ready",
        "/api/v1/health",
        "/api/enterprise/cluster/status",
        "/api/enterprise/metrics",
        "/api/enterprise/queues/status",
        "/dashboard",
        "/dashboard/memory",
        "/dashboard/services",
        "/cache/stats",
        "/pool/stats",
        "/metrics",
    ] {
        let answer = server.get(path).await;
        // No background task runs here, so readiness is not reached; the document is there.
        let waits = path.contains("ready") || path.ends_with("health");
        let expected = if waits { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        assert!([StatusCode::OK, expected].contains(&answer.status), "{path}: {}", answer.status);
        assert!(!waits || answer.json["status"].is_string(), "{path}: {}", answer.json);
    }
}

#[tokio::test]
async fn an_order_is_seen_at_once_and_repeated_only_as_an_answer() {
    let server = Server::start(&[]).await;
    server.get("/api/trading/quotes/S0007").await;
    let first = server.post("/api/trading/orders", Some("k1"), order(42, "S0007", 3)).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.json);
    assert_eq!(first.json["volume"], 3);
    assert_eq!(server.get("/api/trading/quotes/S0007").await.json["volume"], 3);
    let location = first.headers[header::LOCATION].to_str().expect("ascii").to_owned();
    assert_eq!(server.get(&location).await.json["id"], first.json["id"]);

    let again = server.post("/api/trading/orders", Some("k1"), order(42, "S0007", 3)).await;
    assert_eq!((again.status, &again.json["id"]), (StatusCode::OK, &first.json["id"]));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = server.post("/api/trading/orders", Some("k1"), order(42, "S0007", 4)).await;
    other.is_problem(422, &["Idempotency-Key", "k1", "another body"]);
    let audit = server.audit().await;
    assert_eq!((audit.orders, audit.volume_gap), (1, 0));
}

#[tokio::test]
async fn a_report_follows_the_orders_it_sums() {
    let server = Server::start(&[]).await;
    // User 20 was brought in by 2, who was brought in by 1.
    assert_eq!(server.get("/api/affiliate/2/report").await.json["orders"], 0);
    assert_eq!(server.get("/api/affiliate/1/report").await.json["orders"], 0);
    server.post("/api/trading/orders", None, order(20, "S0001", 1_000)).await;
    let first = server.get("/api/affiliate/2/report").await.json;
    assert_eq!((&first["orders"], &first["volume_cents"]), (&json!(1), &json!(812_000)));
    assert_eq!(first["commission_cents"], 812);
    assert_eq!(server.get("/api/affiliate/1/report").await.json["commission_cents"], 406);
    let rebuild = server.post("/api/affiliate/2/report", None, Body::empty()).await;
    assert_eq!(rebuild.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn money_moves_once() {
    let server = Server::start(&[]).await;
    let sent = server.post("/api/financial/transfers", Some("t"), transfer(1, 2, 500)).await;
    assert_eq!(sent.status, StatusCode::CREATED, "{}", sent.json);
    let again = server.post("/api/financial/transfers", Some("t"), transfer(1, 2, 500)).await;
    assert_eq!((again.status, &again.json["id"]), (StatusCode::OK, &sent.json["id"]));
    assert_eq!(server.get("/api/financial/balance/1").await.json["cash_cents"], 99_999_500);
    assert_eq!(server.get("/api/financial/balance/2").await.json["cash_cents"], 100_000_500);
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_leaves_nothing() {
    let server = Server::start(&[]).await;
    let orders = "/api/trading/orders";
    let before = server.audit().await;
    server.post(orders, None, order(0, "S0001", 1)).await.is_problem(422, &["user", "0"]);
    server
        .post(orders, None, order(1, "S0001", 0))
        .await
        .is_problem(422, &["quantity", "0", "1 to 1000000"]);
    server.post(orders, None, order(1, "NOPE", 1)).await.is_problem(404, &["symbol", "NOPE"]);
    server.post(orders, None, order(1, "S\0", 1)).await.is_problem(404, &["symbol"]);
    server
        .post(orders, None, order(100_001, "S0001", 1))
        .await
        .is_problem(404, &["user", "100001"]);
    server
        .post(orders, None, order(1, "S0001", 900_000))
        .await
        .is_problem(422, &["user 1", "100000000", "730800000"]);
    server.post(orders, None, "{\"user\": 1,").await.is_problem(400, &["EOF"]);
    server
        .post(orders, None, "{\"user\": 1, \"symbol\": \"S0001\"}")
        .await
        .is_problem(400, &["quantity"]);
    server
        .post(orders, None, "{\"user\": 1, \"symbol\": \"S0001\", \"quantity\": 1, \"price\": 1}")
        .await
        .is_problem(400, &["price"]);
    server.post(orders, None, "x".repeat(BODY_LIMIT + 1)).await.is_problem(413, &["16384"]);
    server
        .post(orders, Some(&"k".repeat(129)), order(1, "S0001", 1))
        .await
        .is_problem(422, &["Idempotency-Key", "128"]);
    let untyped = Request::post(orders).body(Body::from(order(1, "S0001", 1))).expect("request");
    server.send(untyped).await.is_problem(415, &["application/json"]);

    let transfers = "/api/financial/transfers";
    server.post(transfers, None, transfer(1, 1, 5)).await.is_problem(422, &["to", "1", "differ"]);
    server.post(transfers, None, transfer(1, 2, -5)).await.is_problem(422, &["amount_cents", "-5"]);
    server.post(transfers, None, transfer(1, 2, 100_000_001)).await.is_problem(422, &["100000001"]);
    server
        .post(transfers, None, transfer(1, 100_001, 5))
        .await
        .is_problem(404, &["user", "100001"]);

    server.get("/api/trading/quotes/NOPE").await.is_problem(404, &["NOPE"]);
    server.get("/api/trading/quotes/a%20b").await.is_problem(404, &["symbol"]);
    server.get("/api/trading/orders/one").await.is_problem(422, &["order", "one"]);
    server.get("/api/trading/orders/9").await.is_problem(404, &["order", "9"]);
    server.get("/api/financial/balance/-1").await.is_problem(422, &["user", "-1"]);
    server.get("/api/affiliate/100001/report").await.is_problem(404, &["user", "100001"]);
    server
        .post("/api/affiliate/100001/report", None, Body::empty())
        .await
        .is_problem(404, &["100001"]);
    server.get("/nowhere").await.is_problem(404, &["/nowhere"]);
    server.get("/api/trading/orders").await.is_problem(405, &["GET"]);
    assert_eq!(server.audit().await, before, "something was left behind");
}

#[tokio::test]
async fn status_pages_ask_for_the_credentials() {
    let server = Server::start(&["--metrics-user", "ops", "--metrics-password", "hunter2"]).await;
    for path in [
        "/metrics",
        "/dashboard",
        "/dashboard/memory",
        "/dashboard/services",
        "/cache/stats",
        "/pool/stats",
        "/api/enterprise/cluster/status",
        "/api/enterprise/metrics",
        "/api/enterprise/queues/status",
        "/api/enterprise/audit",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE), "{path}");
        // ops:hunter2
        let request = Request::get(path).header(header::AUTHORIZATION, "Basic b3BzOmh1bnRlcjI=");
        let answer = server.send(request.body(Body::empty()).expect("request")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        // ops:wrong
        let request = Request::get(path).header(header::AUTHORIZATION, "Basic b3BzOndyb25n");
        let answer = server.send(request.body(Body::empty()).expect("request")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(server.get("/api/trading/quotes/S0001").await.status, StatusCode::OK);
    assert_eq!(server.get("/health/live").await.status, StatusCode::OK);
}

#[tokio::test]
async fn metrics_can_be_switched_off() {
    let server = Server::start(&["--use-prometheus", "false"]).await;
    assert_eq!(server.get("/metrics").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_half_order() {
    let folder = tempfile::tempdir().expect("folder");
    let server = crate::process::Enterprise::start(crate::process::command(folder.path())).await;
    // From at once, when the server may not have read the request yet, to when it has answered.
    for n in 0..50 {
        hang_up(&server, n, Duration::from_millis(n % 10)).await;
    }
    // Orders go on arriving for a while. In the end every one of them is settled and shows in the
    // quote: a removal that was lost with its client would leave the quote behind for ever.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (_, audit) = server.get("/api/enterprise/audit").await;
        let audit: Audit = serde_json::from_value(audit).expect("audit");
        let (_, quote) = server.get("/api/trading/quotes/S0009").await;
        let whole = audit.orders > 0 && audit.differences().is_empty();
        if whole && quote["volume"] == 2 * audit.orders {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{audit:?} {quote}");
        if audit.orders == 0 {
            // A busy machine: all were gone before the server came to them.
            hang_up(&server, 50, Duration::from_millis(500)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(server.terminate().await.success());
}

/// Sends an order and goes away after `patience` without reading the answer.
async fn hang_up(server: &crate::process::Enterprise, n: u64, patience: Duration) {
    let body = order(7, "S0009", 2);
    let request = format!(
        "POST /api/trading/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         idempotency-key: hang-{n}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("connect");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("write");
    tokio::time::sleep(patience).await;
}
