//! Over PostgreSQL: reads are spread, and `kill -9` of a standby under load fails nobody.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use escala_examples::enterprise::store::Node;
use serde_json::Value;
use testkit::{FaultProxy, PgCluster, PgNode};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::api::{Answer, Server, order};
use crate::process::{Enterprise, command, output};

const TOKEN: &str = "0123456789abcdef";

fn node<'a>(status: &'a Value, name: &str) -> &'a Value {
    let nodes = status["database"]["nodes"].as_array().expect("nodes");
    nodes.iter().find(|node| node["name"] == name).expect(name)
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[tokio::test]
async fn kill_9_of_a_standby_fails_no_operation() {
    let folder = tempfile::tempdir().expect("folder");
    let cluster = PgCluster::start(3).await.expect("cluster");
    let mut enterprise = command(folder.path());
    enterprise.env("DATABASE_URL", cluster.primary().url());
    for n in 0..3 {
        enterprise.env(format!("DB_READ_REPLICA_{}", n + 1), cluster.standby(n).url());
    }
    let server = Enterprise::start(enterprise).await;

    let json = folder.path().join("r.json");
    let mut load = Command::new(env!("CARGO_BIN_EXE_thousand-users"));
    load.args(["--users", "200", "--duration", "5s", "--target"]);
    load.arg(format!("http://{}", server.address)).arg("--json").arg(&json);
    load.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let load = tokio::spawn(output(load));

    // In the middle of the run: the standby has answered some reads.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (_, status) = server.get("/api/enterprise/cluster/status").await;
        if node(&status, "replica-2")["succeeded_total"].as_u64() >= Some(20) {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!load.is_finished(), "the load ended before the standby was killed");
    cluster.kill_standby(1).expect("killed");

    let (exit, out, err) = load.await.expect("load");
    assert!(exit.success(), "{out}{err}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("json")).expect("json");
    assert_eq!(report["sustained"]["failed"], 0, "{out}");
    assert_eq!(report["consistency"], "ok");
    let (_, status) = server.get("/api/enterprise/cluster/status").await;
    assert_eq!(node(&status, "replica-2")["healthy"], false, "{status}");
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn postgres_and_redis_everything_succeeds_and_reads_are_spread() {
    let folder = tempfile::tempdir().expect("folder");
    let json = folder.path().join("r.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_thousand-users"));
    command.args(["--database", "postgres", "--redis", "--users", "100", "--duration", "3s"]);
    command.arg("--json").arg(&json).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (status, out, err) = output(command).await;
    assert!(status.success(), "{out}{err}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("json")).expect("json");
    let share = |name: &str| {
        let nodes = report["database_nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| node["name"] == name).expect(name);
        node["read_share_percent"].as_f64().expect("share")
    };
    // The strategy keeps what is in flight at 3:3:2; a standby that answers more slowly on a busy
    // machine therefore counts somewhat less than its weight.
    let shares = ["replica-1", "replica-2", "replica-3"].map(share);
    for (found, expected) in shares.into_iter().zip([37.5, 37.5, 25.0]) {
        assert!((found - expected).abs() < 12.0, "{shares:?} instead of 37.5, 37.5, 25");
    }
    assert!(shares[2] < shares[0] && shares[2] < shares[1], "{shares:?}: weights have no effect");
    // Each read and write has a reason: those of clients that wrote, on replicas too, their tokens.
    let picks = |name: &str, reason: &str| {
        let nodes = report["database_nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| node["name"] == name).expect(name);
        let all: u64 = node["reasons"].as_object().expect("reasons").values().map(count).sum();
        assert_eq!(all, count(&node["operations"]), "{node}");
        count(&node["reasons"][reason])
    };
    assert!(picks("primary", "write") > 0, "{report}");
    for name in ["replica-1", "replica-2", "replica-3"] {
        assert!(picks(name, "balanced") > 0 && picks(name, "ryw_token") > 0, "{report}");
    }
    assert!(out.contains("by reason") && out.contains("ryw_token"), "{out}");
}

/// A server over a primary and three standbys that apply everything two seconds late.
async fn lagging() -> (PgCluster, Server) {
    let builder = PgCluster::builder().standbys(3);
    let cluster = builder.setting("recovery_min_apply_delay", "2s").start().await.expect("cluster");
    let server = over(&cluster, &[]).await;
    (cluster, server)
}

/// A server over all nodes of a cluster, as they were at first.
async fn over(cluster: &PgCluster, others: &[&str]) -> Server {
    let urls = cluster.standbys().iter().map(PgNode::url);
    let primary = cluster.primary().url();
    let fixed = ["--database-url", &primary, "--admin-token", TOKEN];
    let mut arguments = fixed.map(str::to_owned).to_vec();
    for (n, url) in urls.enumerate() {
        arguments.extend([format!("--db-read-replica-{}", n + 1), url]);
    }
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).chain(others.iter().copied()).collect();
    Server::start(&arguments).await
}

/// What an administrator asks for.
async fn administer(server: &Server, method: &str, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("Authorization", format!("Bearer {TOKEN}")).body(Body::empty());
    server.send(request.expect("request")).await
}

async fn is_placed(server: &Server) {
    let answer = server.post("/api/trading/orders", None, order(7, "S0001", 1)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
}

/// A client that keeps its cookie, if it has one.
struct Client<'a> {
    server: &'a Server,
    cookie: Option<String>,
}

impl Client<'_> {
    async fn get(&self, path: &str) -> Answer {
        let mut request = Request::get(path);
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        self.server.send(request.body(Body::empty()).expect("request")).await
    }

    async fn order(&mut self, user: i64, symbol: &str) -> Value {
        let answer = self.server.post("/api/trading/orders", None, order(user, symbol, 1)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        let cookie = answer.headers[header::SET_COOKIE].to_str().expect("text");
        self.cookie = cookie.split(';').next().map(str::to_owned);
        answer.json
    }

    async fn cash(&self, user: i64) -> (i64, String) {
        let answer = self.get(&format!("/api/financial/balance/{user}")).await;
        (answer.json["cash_cents"].as_i64().expect("cash"), node_of(&answer))
    }
}

/// Who served it, and why.
fn node_of(answer: &Answer) -> String {
    let header = |name: &str| answer.headers[name].to_str().expect("text").to_owned();
    format!("{} {}", header("x-escala-node"), header("x-escala-reason"))
}

#[tokio::test]
async fn a_client_sees_its_own_order_while_every_replica_lags() {
    let (_cluster, server) = lagging().await;
    let mut mine = Client { server: &server, cookie: None };
    let other = Client { server: &server, cookie: None };
    // The seed has arrived everywhere before the server starts.
    let (seeded, _) = other.cash(7).await;
    let mut cash = seeded;
    for _ in 0..20 {
        let placed = mine.order(7, "S0001").await;
        cash -= placed["cost_cents"].as_i64().expect("cost");
        let path = format!("/api/trading/orders/{}", placed["id"]);
        let seen = mine.get(&path).await;
        assert_eq!(seen.status, StatusCode::OK, "{}", seen.text);
        assert_eq!(node_of(&seen), "primary ryw_token");
        assert_eq!(mine.cash(7).await, (cash, "primary ryw_token".to_owned()));
        // The page of the quote was removed by the order, and filled anew.
        let quote = mine.get("/api/trading/quotes/S0001").await;
        assert_eq!(quote.json["volume"], placed["volume"]);
        // Somebody else who was told its number.
        let told = other.get(&path).await;
        assert_eq!(told.status, StatusCode::OK);
    }
    // Somebody else reads on a replica, and sees none of it for two seconds.
    let (stale, node) = other.cash(7).await;
    assert!(stale > cash && node.starts_with("replica-"), "{stale} {cash} {node}");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (seen, node) = mine.cash(7).await;
        assert_eq!(seen, cash);
        if node.starts_with("replica-") {
            assert!(node.ends_with(" ryw_token"), "{node}");
            break;
        }
        assert!(Instant::now() < deadline, "the replicas never had it");
        sleep(Duration::from_millis(100)).await;
    }
    let status = server.get("/api/enterprise/cluster/status").await.json;
    assert_eq!(status["sessions"]["refused_total"], 0, "{status}");
    assert_eq!(status["sessions"]["issued_total"], 20, "{status}");
    let lags = status["replication"]["nodes"].as_array().expect("nodes").len();
    assert_eq!(lags, 4, "{status}");
}

#[tokio::test]
async fn a_price_changed_by_hand_reaches_who_reads_the_quote() {
    let folder = tempfile::tempdir().expect("folder");
    let cluster = PgCluster::start(0).await.expect("cluster");
    let mut enterprise = command(folder.path());
    enterprise.env("DATABASE_URL", cluster.primary().url());
    let server = Enterprise::start(enterprise).await;
    let path = "/api/trading/quotes/S0001";
    let (status, before) = server.get(path).await;
    assert_eq!(status, 200, "{before}");
    let sql = "update symbols set price_cents = 123456 where symbol = 'S0001'";
    // Until the server listens, nobody hears of it.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        cluster.sql(cluster.primary(), sql).await.expect("changed");
        let (_, now) = server.get(path).await;
        if now["bid_cents"].as_i64() > Some(120_000) {
            break;
        }
        assert!(Instant::now() < deadline, "{before} stays in the cache: {now}");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn orders_are_copied_out_within_the_deadline_of_the_request() {
    let cluster = PgCluster::start(0).await.expect("cluster");
    let url = cluster.primary().url();
    let server = Server::start(&["--database-url", &url, "--admin-token", TOKEN]).await;
    let body = order(7, "S0007", 2);
    assert_eq!(server.post("/api/trading/orders", None, body).await.status, StatusCode::CREATED);
    let export = |timeout: &'static str| {
        let request =
            Request::get("/api/enterprise/orders.csv").header("x-request-timeout", timeout);
        request.header("Authorization", format!("Bearer {TOKEN}")).body(Body::empty())
    };
    let answer = server.send(export("20S").expect("request")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let (head, rows) = answer.text.split_once('\n').expect("lines");
    assert_eq!(head, "id,user,symbol,quantity,price_cents,cost_cents,settled");
    assert!(rows.starts_with("1,7,S0007,2,") && rows.lines().count() == 1, "{rows}");
    // An embedded file only can be copied so.
    let backup = server.post("/api/enterprise/backup", None, "").await;
    assert_eq!(backup.status, StatusCode::NOT_FOUND);
    // All connections are in use, for longer than the request waits.
    let (_, Node::Postgres(primary)) = &server.app.nodes[0] else { unreachable!("a server") };
    let mut leases = Vec::new();
    for _ in 0..primary.pool().stats().max_size {
        leases.push(primary.pool().acquire().await.expect("a lease"));
    }
    let late = server.send(export("20").expect("request")).await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT, "{}", late.text);
    drop(leases);
}

#[tokio::test]
async fn what_an_administrator_removed_is_not_filled_from_a_standby_that_lags() {
    let (cluster, server) = lagging().await;
    let path = "/api/trading/quotes/S0001";
    let before = server.get(path).await;
    assert!(before.json["bid_cents"].as_i64() < Some(120_000), "{}", before.text);
    let sql = "update symbols set price_cents = 123456 where symbol = 'S0001'";
    cluster.sql(cluster.primary(), sql).await.expect("changed");
    let removed = administer(&server, "DELETE", "/cache/tags/quote:S0001").await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT, "{}", removed.text);
    let after = server.get(path).await;
    assert!(after.json["bid_cents"].as_i64() > Some(120_000), "{}", after.text);
}

#[tokio::test]
async fn an_order_that_nobody_knows_to_be_placed_leaves_no_stale_quote() {
    let cluster = PgCluster::start(0).await.expect("cluster");
    let direct = cluster.primary();
    let proxy = FaultProxy::start(direct.addr()).await.expect("proxy");
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let server = Server::start(&["--database-url", &url]).await;
    let path = "/api/trading/quotes/S0001";
    assert_eq!(server.get(path).await.json["volume"], 0);
    assert!(server.get("/api/affiliate/1/report").await.json["orders"] == 0);

    // The commit of an order waits until there is a row.
    let sql = "create table gate (id int);
        create function wait_for_gate() returns trigger language plpgsql as $$ begin
            while not exists (select from gate) loop perform pg_sleep(0.01); end loop;
            return null;
        end $$;
        create constraint trigger wait_for_gate after insert on orders
            deferrable initially deferred for each row execute function wait_for_gate()";
    cluster.sql(direct, sql).await.expect("trigger");
    let until = async |sql: &str, expected: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while cluster.sql(direct, sql).await.expect("asked").trim() != expected {
            assert!(Instant::now() < deadline, "{sql}");
        }
    };
    let cut = async {
        until("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1").await;
        proxy.blackhole(true);
        cluster.sql(direct, "insert into gate values (1)").await.expect("opened");
        until("select count(*) from orders", "1").await;
        // The commit shows before its answer is on the way into the hole.
        let answering = "select count(*) from pg_stat_activity
            where application_name = 'escala-enterprise' and wait_event is distinct from 'ClientRead'";
        until(answering, "0").await;
        proxy.heal();
    };
    let (answer, ()) =
        tokio::join!(server.post("/api/trading/orders", None, order(2, "S0001", 1)), cut);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
    assert!(answer.headers.contains_key(header::SET_COOKIE), "its session must see the order");
    let quote = server.get(path).await;
    assert_eq!(quote.json["volume"], 1, "{}", quote.text);
    assert_eq!(server.get("/api/affiliate/1/report").await.json["orders"], 1);
}

#[tokio::test]
async fn a_server_starts_after_a_failover_with_the_settings_of_before() {
    let cluster = PgCluster::start(1).await.expect("cluster");
    is_placed(&over(&cluster, &[]).await).await;
    // Replication is asynchronous: what a standby has not got dies with the primary.
    let orders = async || cluster.sql(cluster.standby(0), "select count(*) from orders").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    // Nor perhaps the table yet.
    while !matches!(orders().await, Ok(count) if count == "1") {
        assert!(Instant::now() < deadline, "the standby has not got the order");
    }
    cluster.kill_primary().expect("killed");
    cluster.promote(0).await.expect("promoted");
    let server = over(&cluster, &[]).await;
    is_placed(&server).await;
    let export = administer(&server, "GET", "/api/enterprise/orders.csv").await;
    assert_eq!(export.status, StatusCode::OK, "{}", export.text);
    assert_eq!(export.text.lines().count(), 3, "{}", export.text);
    drop(server);

    // What DATABASE_URL names is a standby now.
    cluster.rejoin(cluster.primary(), cluster.standby(0)).await.expect("rejoined");
    let server = over(&cluster, &[]).await;
    is_placed(&server).await;
    let status = server.get("/api/enterprise/cluster/status").await.json;
    assert_eq!(node(&status, "replica-1")["role"], "primary", "{status}");
}

#[tokio::test]
async fn without_replicas_too_a_primary_that_refused_a_write_is_found_to_be_one_again() {
    let cluster = PgCluster::start(0).await.expect("cluster");
    let server = over(&cluster, &[]).await;
    let set = async |sql: &str| {
        for sql in [sql, "select pg_reload_conf()"] {
            cluster.sql(cluster.primary(), sql).await.expect("set");
        }
    };
    set("alter system set default_transaction_read_only = on").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let placed = async || {
        let answer = server.post("/api/trading/orders", None, order(7, "S0001", 1)).await;
        answer.status == StatusCode::CREATED
    };
    while placed().await {
        assert!(Instant::now() < deadline, "the setting has no effect");
    }
    set("alter system reset default_transaction_read_only").await;
    while !placed().await {
        assert!(Instant::now() < deadline, "it takes no writes any more");
    }
}

#[tokio::test]
async fn prices_are_heard_of_from_whoever_is_the_primary() {
    let folder = tempfile::tempdir().expect("folder");
    let cluster = PgCluster::start(1).await.expect("cluster");
    let mut enterprise = command(folder.path());
    enterprise.env("DATABASE_URL", cluster.primary().url());
    enterprise.env("DB_READ_REPLICA_1", cluster.standby(0).url());
    let server = Enterprise::start(enterprise).await;
    let path = "/api/trading/quotes/S0001";
    cluster.kill_primary().expect("killed");
    cluster.promote(0).await.expect("promoted");
    let deadline = Instant::now() + Duration::from_secs(60);
    // Each time a price that it cannot have by an earlier removal.
    for price in 123_456.. {
        let (_, before) = server.get(path).await;
        let sql = format!("update symbols set price_cents = {price} where symbol = 'S0001'");
        cluster.sql(cluster.standby(0), &sql).await.expect("changed");
        sleep(Duration::from_millis(200)).await;
        let (_, now) = server.get(path).await;
        let bid = now["bid_cents"].as_i64();
        if bid == Some(price - price / 1_000) {
            break;
        }
        assert!(Instant::now() < deadline, "{before} stays in the cache: {now}");
    }
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_replica_without_a_free_connection_fails_no_read_and_is_not_ejected() {
    let cluster = PgCluster::start(2).await.expect("cluster");
    let server = Arc::new(over(&cluster, &["--db-pool-size", "2"]).await);
    let (name, Node::Postgres(replica)) = &server.app.nodes[1] else { unreachable!("a server") };
    assert_eq!(*name, "replica-1");
    let mut leases = Vec::new();
    for _ in 0..replica.pool().stats().max_size {
        leases.push(replica.pool().acquire().await.expect("a lease"));
    }
    let mut reads = JoinSet::new();
    for user in 1..=40 {
        let server = Arc::clone(&server);
        reads.spawn(async move { server.get(&format!("/api/financial/balance/{user}")).await });
    }
    for answer in reads.join_all().await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    let refused = replica.pool().stats();
    assert!(refused.timed_out_total > 0, "no read met the full pool: {refused:?}");
    let status = server.get("/api/enterprise/cluster/status").await.json;
    for name in ["primary", "replica-1", "replica-2"] {
        let node = node(&status, name);
        assert_eq!(node["healthy"], true, "{node}");
        assert_eq!(
            (&node["ejections_total"], &node["failed_total"]),
            (&0.into(), &0.into()),
            "{node}"
        );
    }
    assert!(count(&node(&status, "replica-1")["succeeded_total"]) > 0, "{status}");
    drop(leases);
}
