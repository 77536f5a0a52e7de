//! What one client address and one tenant may ask for, and who is told to come again.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use serde_json::json;

use crate::api::{Answer, Server};

const QUOTE: &str = "/api/trading/quotes/S0001";

/// A request of this peer.
fn request(peer: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let peer: SocketAddr = format!("{peer}:1").parse().expect("address");
    let mut request = Request::get(QUOTE).extension(ConnectInfo(peer));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).expect("request")
}

impl Answer {
    fn is_limited(&self, by: &str) {
        self.is_problem(429, &["too many requests"]);
        assert_eq!(self.json["violated-policies"], json!([by]));
        let wait = self.headers["retry-after"].to_str().expect("ascii").parse::<u64>();
        assert!(wait.expect("seconds") >= 1);
        assert!(self.headers.contains_key("ratelimit"), "{:?}", self.headers);
    }
}

#[tokio::test]
async fn a_tenant_over_its_limit_is_told_so_while_another_goes_on() {
    let limits = ["--tenants", "acme,globex", "--rate-limit-tenant", "3/hour"];
    let server = Server::start(&limits).await;
    let ask = |tenant| server.send(request("192.0.2.1", &[("x-tenant", tenant)]));
    for _ in 0..3 {
        assert_eq!(ask("acme").await.status, 200);
    }
    for _ in 0..5 {
        ask("acme").await.is_limited("tenant");
    }
    for _ in 0..3 {
        assert_eq!(ask("globex").await.status, 200);
    }
    // Who made a name up is nobody's, and has the limit of the address alone.
    for _ in 0..5 {
        assert_eq!(ask("made-up").await.status, 200);
    }
    let status = server.get("/api/enterprise/cluster/status").await.json;
    let limits = &status["rate_limits"]["limits"];
    assert_eq!((&limits[1]["name"], &limits[1]["limited_total"]), (&json!("tenant"), &json!(5)));
    assert_eq!(limits[1]["allowed_total"], 6, "{limits}");
    assert_eq!(limits[0]["limited_total"], 0, "what a tenant is refused its address has not used");
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("rate_limit_limited_total{limit=\"tenant\"} 5"), "{metrics}");
    let services = server.get("/dashboard/services").await.json;
    let shown = &services["services"]["rate_limit"];
    assert!(shown.as_array().is_some_and(|figures| !figures.is_empty()), "{shown}");
}

#[tokio::test]
async fn an_address_is_that_of_the_client_as_far_as_proxies_are_ours() {
    let limits = ["--rate-limit-ip", "2/hour", "--trusted-proxies", "10.0.0.0/8,192.0.2.99"];
    let server = Server::start(&limits).await;
    let forwarded = |peer, value| server.send(request(peer, &[("x-forwarded-for", value)]));
    // A header that anybody can send changes nothing.
    assert_eq!(forwarded("192.0.2.1", "198.51.100.1").await.status, 200);
    assert_eq!(forwarded("192.0.2.1", "198.51.100.2").await.status, 200);
    forwarded("192.0.2.1", "198.51.100.3").await.is_limited("ip");
    // Nor does what the client wrote before our proxy added its address.
    for spoofed in ["203.0.113.1, 198.51.100.1", "203.0.113.2, 198.51.100.1"] {
        assert_eq!(forwarded("10.1.2.3", spoofed).await.status, 200);
    }
    forwarded("10.1.2.3", "203.0.113.3, 198.51.100.1").await.is_limited("ip");
    forwarded("192.0.2.99", "198.51.100.1").await.is_limited("ip");
    assert_eq!(forwarded("10.1.2.3", "198.51.100.2").await.status, 200);
}

#[tokio::test]
async fn a_tenant_is_named_by_our_proxies_alone() {
    let limits = ["--tenants", "acme", "--rate-limit-tenant", "2/hour"];
    let server = Server::start(&[&limits[..], &["--trusted-proxies", "10.0.0.0/8"]].concat()).await;
    let ask = |peer| server.send(request(peer, &[("x-tenant", "acme")]));
    for _ in 0..5 {
        assert_eq!(ask("192.0.2.1").await.status, 200, "it is nobody's, and uses nothing up");
    }
    for _ in 0..2 {
        assert_eq!(ask("10.1.2.3").await.status, 200);
    }
    ask("10.1.2.3").await.is_limited("tenant");
    assert_eq!(ask("192.0.2.1").await.status, 200);
}

#[tokio::test]
async fn a_handler_that_has_worked_in_vain_has_used_the_limit() {
    // Nobody listens there.
    let outside = ["--exchange-rates-url", "http://127.0.0.1:1/latest"];
    let server = Server::start(&[&outside[..], &["--rate-limit-ip", "8/hour"]].concat()).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let answer = server.get("/api/financial/rates/EUR").await;
        assert!(answer.headers.contains_key("retry-after"));
        statuses.push(answer.status.as_u16());
    }
    // Also those for which the breaker has spoken: the handler has asked it.
    assert_eq!(statuses, [[503; 8].as_slice(), &[429; 2]].concat());
}

#[tokio::test]
async fn health_metrics_and_dashboard_are_answered_whatever_was_used() {
    let server = Server::start(&["--rate-limit-ip", "1/hour"]).await;
    assert_eq!(server.get(QUOTE).await.status, 200);
    server.get(QUOTE).await.is_limited("ip");
    for path in ["/health/live", "/metrics", "/dashboard", "/dashboard/services"] {
        for _ in 0..3 {
            assert_eq!(server.get(path).await.status, 200, "{path}");
        }
    }
    server.get(QUOTE).await.is_limited("ip");
    let none = Server::start(&["--rate-limit-ip", "none", "--rate-limit-tenant", "none"]).await;
    let answer = none.get(QUOTE).await;
    assert_eq!((answer.status.as_u16(), answer.headers.contains_key("ratelimit")), (200, false));
}

mod redis {
    use std::time::Duration;

    use testkit::Redis;
    use tokio::time::Instant;

    use super::QUOTE;
    use crate::process::{Enterprise, command, output};

    /// Asks both in turns; how many answers had which status.
    async fn ask(servers: [&Enterprise; 2], times: usize) -> Vec<(u16, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for server in servers.iter().cycle().take(times) {
            *counts.entry(server.get(QUOTE).await.0).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    #[tokio::test]
    async fn two_processes_on_one_redis_share_a_limit_and_its_parts_without_it() {
        let redis = Redis::start().await.expect("redis");
        let folders = [0, 1].map(|_| tempfile::tempdir().expect("folder"));
        let start = |n: usize| {
            let mut command = command(folders[n].path());
            command.env("REDIS_URL", redis.url()).env("RATE_LIMIT_IP", "20/hour");
            command.env("RATE_LIMIT_PROCESSES", "2");
            // However busy the machine is: one that is away refuses connections at once.
            command.env("RATE_LIMIT_TIMEOUT", "10s");
            Enterprise::start(command)
        };
        let (one, two) = tokio::join!(start(0), start(1));
        assert_eq!(ask([&one, &two], 30).await, [(200, 20), (429, 10)]);
        let (_, services) = one.get("/dashboard/services").await;
        let shown = &services["services"]["rate_limit_redis"];
        assert!(shown.as_array().is_some_and(|figures| !figures.is_empty()), "{shown}");

        redis.kill().expect("killed");
        // Each remembers for a second that Redis refused; then it gives its half of the limit.
        let end = Instant::now() + Duration::from_secs(60);
        let mut allowed = 0;
        while allowed < 20 {
            allowed += usize::from(one.get(QUOTE).await.0 == 200);
            allowed += usize::from(two.get(QUOTE).await.0 == 200);
            assert!(Instant::now() < end, "{allowed}");
        }
        assert_eq!(ask([&one, &two], 20).await, [(429, 20)]);

        // It comes back empty.
        redis.restart().await.expect("restarted");
        let end = Instant::now() + Duration::from_secs(30);
        while one.get(QUOTE).await.0 == 429 {
            assert!(Instant::now() < end);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(one.terminate().await.success() && two.terminate().await.success());
    }

    #[tokio::test]
    async fn a_redis_that_refuses_the_script_ends_the_start() {
        let redis = Redis::start().await.expect("redis");
        // All that the caches need, and what they ask of the limits nobody may.
        let rules = ["ACL", "SETUSER", "app", "on", ">hunter2", "~*", "&*", "+@all", "-evalsha"];
        redis.cli(&rules).await.expect("user");
        let folder = tempfile::tempdir().expect("folder");
        let mut command = command(folder.path());
        command.env("REDIS_URL", redis.url().replace("//", "//app:hunter2@"));
        let (status, out, err) = output(command).await;
        assert!(!status.success(), "{out}");
        assert!(err.contains("REDIS_URL") && err.contains("evalsha"), "{err}");
        assert!(!err.contains("hunter2") && !out.contains("hunter2"), "{err}");
    }
}
