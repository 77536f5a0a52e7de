//! Traffic split between groups, moved by degrees, and moved back.

use std::collections::BTreeSet;

use super::{Client, Gateway, Upstream};

async fn name(client: &mut Client, path: &str, headers: &[(&str, &str)]) -> String {
    let answer = client.get(path, headers).await;
    assert_eq!(answer.status, 200);
    let seen: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    seen["name"].as_str().expect("name").to_owned()
}

#[tokio::test]
async fn a_split_is_exact_to_a_few_requests_and_keeps_users_if_told() {
    let (old, new) = (Upstream::start("old").await, Upstream::start("new").await);
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.old]
        servers = [{{ address = "{}" }}]
        [upstreams.new]
        servers = [{{ address = "{}" }}]
        [[routes]]
        path = "/"
        split = {{ old = 90, new = 10 }}
        [[routes]]
        path = "/sticky"
        split = {{ old = 50, new = 50 }}
        sticky = "cookie:sid"
        "#,
        old.address, new.address
    ))
    .await;
    let mut client = gateway.client().await;
    for _ in 0..500 {
        let _ = name(&mut client, "/", &[]).await;
    }
    assert!(new.requests().abs_diff(50) <= 2, "{}", new.requests());
    let mut sides = BTreeSet::new();
    for user in 0..20 {
        let cookie = format!("sid=user-{user}");
        let headers = [("Cookie", cookie.as_str())];
        let first = name(&mut client, "/sticky", &headers).await;
        for _ in 0..3 {
            assert_eq!(name(&mut client, "/sticky/more", &headers).await, first);
        }
        sides.insert(first);
    }
    assert_eq!(sides.len(), 2);
}

#[tokio::test]
async fn a_route_moves_by_degrees_and_back_at_once() {
    let (old, new) = (Upstream::start("old").await, Upstream::start("new").await);
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.old]
        servers = [{{ address = "{}" }}]
        [upstreams.new]
        servers = [{{ address = "{}" }}]
        [[routes]]
        path = "/"
        upstream = "old"
        [[routes]]
        path = "/pdf"
        upstream = "old"
        toggle = {{ upstream = "new", percent = 20.0, sticky = "cookie:sid", header = {{ name = "x-pdf", value = "new" }} }}
        "#,
        old.address, new.address
    ))
    .await;
    let mut client = gateway.client().await;
    let mut moved = async || {
        let mut moved = BTreeSet::new();
        for user in 0..200 {
            let cookie = format!("a=b; sid=user-{user}");
            let headers = [("Cookie", cookie.as_str())];
            if name(&mut client, "/pdf/1", &headers).await == "new" {
                moved.insert(user);
            }
        }
        moved
    };
    let fifth = moved().await;
    assert!((20..=60).contains(&fifth.len()), "{}", fifth.len());
    assert_eq!(moved().await, fifth, "a user stays");

    gateway.edit("percent = 20.0", "percent = 60.0");
    assert_eq!(gateway.reload().await["generation"], 2);
    let most = moved().await;
    assert!((90..=150).contains(&most.len()), "{}", most.len());
    assert!(most.is_superset(&fifth), "who has moved is not moved back");

    gateway.edit("percent = 60.0", "percent = 0.0");
    assert_eq!(gateway.reload().await["generation"], 3);
    assert!(moved().await.is_empty(), "rolled back at once");
    let mut client = gateway.client().await;
    assert_eq!(name(&mut client, "/pdf", &[("X-Pdf", "new")]).await, "new");
    assert_eq!(name(&mut client, "/pdf", &[("X-Pdf", "old")]).await, "old");
    assert_eq!(name(&mut client, "/pdfs", &[("X-Pdf", "new")]).await, "old");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_a_watched_one_is_read_by_itself() {
    let (old, new) = (Upstream::start("old").await, Upstream::start("new").await);
    let rest = format!(
        r#"
        [upstreams.old]
        servers = [{{ address = "{}" }}]
        [upstreams.new]
        servers = [{{ address = "{}" }}]
        [[routes]]
        path = "/"
        upstream = "old"
        "#,
        old.address, new.address
    );
    let gateway = Gateway::start_with("watch = \"50ms\"", "", &rest).await;
    let mut client = gateway.client().await;
    assert_eq!(name(&mut client, "/", &[]).await, "old");
    for (right, wrong, told) in [
        ("upstream = \"old\"", "upstream = \"odl\"", "routes[0].upstream is \"odl\""),
        ("path = \"/\"", "path = \"pdf\"", "routes[0].path is \"pdf\""),
        ("[[routes]]", "[[routes", "gateway.toml"),
        ("threads = 2", "threads = 3", "stay as it is"),
    ] {
        let before = gateway.stats().await["file"]["refused_total"].as_u64();
        gateway.edit(right, wrong);
        let stats = gateway.stats_when(|s| s["file"]["refused_total"].as_u64() > before).await;
        let error = stats["file"]["last_error"].as_str().expect("an error");
        assert!(error.contains(told), "{error}");
        assert_eq!(name(&mut client, "/", &[]).await, "old");
        gateway.edit(wrong, right);
        gateway.stats_when(|stats| stats["file"]["last_error"].is_null()).await;
    }
    let before = old.requests();
    gateway.edit("upstream = \"old\"", "upstream = \"new\"");
    while name(&mut client, "/", &[]).await != "new" {}
    assert!(old.requests() >= before);
    // Its group was the same in every file: its figures went on.
    let stats = gateway.stats().await;
    let succeeded = &stats["upstreams"]["old"]["servers"]["nodes"][0]["succeeded_total"];
    assert_eq!(succeeded.as_u64(), Some(old.requests()));
}

#[tokio::test]
async fn hosts_have_their_own_routes_and_what_nobody_serves_is_not_found() {
    let (shop, other) = (Upstream::start("shop").await, Upstream::start("other").await);
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.shop]
        servers = [{{ address = "{}" }}]
        [upstreams.other]
        servers = [{{ address = "{}" }}]
        [[routes]]
        host = "*.shop.example"
        path = "/"
        upstream = "shop"
        [[routes]]
        path = "/only"
        upstream = "other"
        "#,
        shop.address, other.address
    ))
    .await;
    let mut client = gateway.client().await;
    assert_eq!(name(&mut client, "/a", &[("Host", "de.Shop.Example:80")]).await, "shop");
    assert_eq!(name(&mut client, "/only", &[("Host", "b")]).await, "other");
    let answer = client.get("/a", &[("Host", "b")]).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    // The target's own host counts, whatever `Host` says beside it.
    client.send("GET http://de.shop.example/only HTTP/1.1\r\nHost: b\r\n\r\n").await;
    let answer = client.answer(false).await;
    assert!(answer.text().contains(r#""name":"shop""#), "{}", answer.text());
}
