//! What administrators may: all orders as a file, a copy of the database; and what the metrics tell
//! of the pools.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use escala_pool::{SqliteConfig, SqlitePool};

use crate::api::{Answer, Server, order};

const ORDERS: &str = "/api/enterprise/orders.csv";
const BACKUP: &str = "/api/enterprise/backup";
const TOKEN: &str = "0123456789abcdef";

async fn server() -> Server {
    Server::start(&["--admin-token", TOKEN]).await
}

async fn as_administrator(server: &Server, method: &str, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("Authorization", format!("Bearer {TOKEN}"));
    server.send(request.body(Body::empty()).expect("request")).await
}

#[tokio::test]
async fn all_orders_come_as_a_file() {
    let server = server().await;
    let empty = as_administrator(&server, "GET", ORDERS).await;
    assert_eq!(empty.text, "id,user,symbol,quantity,price_cents,cost_cents,settled\n");
    // More than one piece.
    for n in 0..1_001 {
        let body = order(1 + n % 50, "S0007", 2);
        let placed = server.post("/api/trading/orders", None, body).await;
        assert_eq!(placed.status, StatusCode::CREATED);
    }
    let answer = as_administrator(&server, "GET", ORDERS).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(answer.headers["cache-control"], "private, no-store");
    let lines: Vec<&str> = answer.text.lines().collect();
    assert_eq!(lines.len(), 1_002);
    assert!(lines[1].starts_with("1,1,S0007,2,"), "{}", lines[1]);
    assert!(lines[1_001].starts_with("1001,1,S0007,2,"), "{}", lines[1_001]);
}

#[tokio::test]
async fn a_copy_of_the_database_is_whole() {
    let server = server().await;
    server.post("/api/trading/orders", None, order(1, "S0001", 1)).await;
    let answer = as_administrator(&server, "POST", BACKUP).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let file = answer.json["file"].as_str().expect("a path").to_owned();
    assert_eq!(answer.json["bytes"], std::fs::metadata(&file).expect("a file").len());
    let copy = SqlitePool::open(SqliteConfig::new(&file).read_only()).await.expect("a database");
    let count = copy.query_one("select count(*) from orders", &[]).await.expect("orders");
    assert_eq!(count.get::<i64>(0), 1);
    copy.close().await;
    // The one before is replaced.
    assert_eq!(as_administrator(&server, "POST", BACKUP).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nobody_else_may() {
    let server = server().await;
    assert_eq!(server.get(ORDERS).await.status, StatusCode::FORBIDDEN);
    assert_eq!(server.post(BACKUP, None, "").await.status, StatusCode::FORBIDDEN);
    assert!(!server.folder.path().join("backup.sqlite").exists());
}

#[tokio::test]
async fn the_metrics_have_histograms_of_the_pools() {
    let server = server().await;
    assert_eq!(server.get("/api/financial/balance/7").await.status, StatusCode::OK);
    let metrics = server.get("/metrics").await.text;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect(line)
    };
    for kind in ["wait", "hold"] {
        let all = value(&format!("escala_pool_{kind}_seconds_bucket{{le=\"+Inf\"}}"));
        assert!(all >= 1.0, "{metrics}");
        assert!((value(&format!("escala_pool_{kind}_seconds_count")) - all).abs() < 0.5);
        assert!(value(&format!("escala_pool_{kind}_seconds_sum")) >= 0.0);
    }
}
