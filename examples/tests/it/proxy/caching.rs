//! What the cache does for many clients at once, and what an operator can do to it.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Client, Reply};
use crate::rfc9111::{Scene, passing, reply};

const FRESH: &str = "cache-control: max-age=60";
const TOKEN: &str = "a-token-of-enough-bytes";

#[tokio::test]
async fn cache_status_says_what_happened() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let status = |answer: &super::Answer| answer.header("cache-status").unwrap_or_default();
    let first = scene.fetch(&path, "", reply(200, FRESH, "x")).await;
    let told = status(&first);
    assert!(told.starts_with("cache-proxy;") && told.contains("fwd=uri-miss"), "{told}");
    assert!(told.contains("stored"), "{told}");
    let told = status(&scene.get(&path, "").await);
    assert!(told.starts_with("cache-proxy;") && told.contains("hit"), "{told}");
    assert!(told.contains("ttl="), "{told}");

    let path = scene.path();
    let stale = "cache-control: max-age=10 | age: 20 | etag: \"a\" | cache-status: origin; hit";
    scene.fetch(&path, "", reply(200, stale, "x")).await;
    let told = status(&scene.fetch(&path, "", Reply::new(304).header("ETag", "\"a\"")).await);
    // The caches nearer to the origin come first (RFC 9211, section 2).
    assert!(told.starts_with("origin; hit, cache-proxy;fwd=stale"), "{told}");
    assert!(told.contains("fwd-status=304"), "{told}");
    scene.origin.script(&path, [passing("x")]);
    let told = status(&scene.request("POST", &path, "").await);
    assert!(told.contains("fwd=method"), "{told}");
}

#[tokio::test]
async fn fifty_clients_of_one_cold_target_are_one_request_to_the_origin() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let go = Arc::new(Semaphore::new(0));
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nabc";
    scene.origin.script(&path, [Reply::raw(head).wait(&go).bytes("def")]);
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let (path, mut client) = (path.clone(), scene.proxy.client().await);
        clients.spawn(async move {
            let request = format!("GET {path} HTTP/1.1\r\nHost: origin.test\r\n\r\n");
            client.send(request).await;
            assert_eq!(client.head().await.status, 200);
            // All of them have the first part before there is a second.
            assert_eq!(client.exactly(3).await, b"abc");
            client
        });
    }
    let clients: Vec<Client> = clients.join_all().await;
    go.add_permits(1);
    for mut client in clients {
        assert_eq!(client.exactly(3).await, b"def");
    }
    assert_eq!(scene.asked(&path), 1);
    assert_eq!(scene.get(&path, "").await.text(), "abcdef");
    assert_eq!(scene.asked(&path), 1);
}

#[tokio::test]
async fn clients_of_what_is_not_stored_do_not_wait_for_each_other() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "", passing("first")).await;
    let go = Arc::new(Semaphore::new(0));
    let held = || Reply::raw("").wait(&go).bytes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    scene.origin.script(&path, std::iter::repeat_with(held).take(20));
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let (path, mut client) = (path.clone(), scene.proxy.client().await);
        clients.spawn(async move { client.get(&path, &[]).await.text().to_owned() });
    }
    // None is answered before all have come.
    scene.until("all of them are at the origin", async || scene.asked(&path) == 21).await;
    go.add_permits(20);
    assert!(clients.join_all().await.iter().all(|text| text == "ok"));
}

#[tokio::test]
async fn an_answer_that_is_not_stored_is_for_one_client_alone() {
    let scene = Scene::rfc().await;
    for line in ["cache-control: no-store", "cache-control: private, max-age=60", "vary: *"] {
        let path = scene.path();
        let go = Arc::new(Semaphore::new(0));
        let head = |n: u32| format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 1\r\n\r\n{n}");
        let first = Reply::raw("").wait(&go).bytes(&head(0));
        scene.origin.script(&path, [first]);
        scene.origin.script(&path, (1..5).map(|n| Reply::raw(&head(n))));
        let mut clients = JoinSet::new();
        for _ in 0..5 {
            let (path, mut client) = (path.clone(), scene.proxy.client().await);
            clients.spawn(async move { client.get(&path, &[]).await.text().to_owned() });
        }
        // The others wait for the first one's answer, which is not for them.
        scene.until("one is at the origin", async || scene.asked(&path) >= 1).await;
        go.add_permits(1);
        let mut answers = clients.join_all().await;
        answers.sort();
        assert_eq!(answers, ["0", "1", "2", "3", "4"], "{line}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_whole_behind() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let go = Arc::new(Semaphore::new(0));
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nabc";
    scene.origin.script(&path, [Reply::raw(head).wait(&go).bytes("def"), passing("again")]);
    let mut client = scene.proxy.client().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: origin.test\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 200);
    drop(client);
    go.add_permits(1);
    assert_eq!(scene.get(&path, "").await.text(), "abcdef");
    assert_eq!(scene.asked(&path), 1);
}

#[tokio::test]
async fn a_body_too_long_to_store_is_served_all_the_same() {
    let scene = Scene::start("--profile rfc --max-body-bytes 1000").await;
    for (length, reused) in [(1_000, true), (1_001, false)] {
        let body = "x".repeat(length);
        assert_eq!(scene.reuses("", reply(200, FRESH, &body), "").await, reused, "{length}");
        // As a body that does not say how long it will be.
        let chunked = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
             {length:x}\r\n{body}\r\n0\r\n\r\n"
        );
        assert_eq!(scene.reuses("", Reply::raw(&chunked), "").await, reused, "{length} chunked");
    }
}

#[tokio::test]
async fn purge_is_for_who_has_the_token() {
    let scene = Scene::start(&format!("--profile rfc --purge-token {TOKEN}")).await;
    let bearer = format!("authorization: Bearer {TOKEN}");
    let path = scene.path();
    let line = "cache-control: max-age=60 | vary: foo";
    for value in ["1", "2"] {
        scene.fetch(&path, &format!("foo: {value}"), reply(200, line, value)).await;
    }
    for wrong in ["", "authorization: Bearer another-token-of-bytes", "authorization: Basic eDp5"] {
        assert_eq!(scene.request("PURGE", &path, wrong).await.status, 403, "{wrong}");
    }
    assert_eq!(scene.get(&path, "foo: 1").await.text(), "1");
    assert_eq!(scene.request("PURGE", &path, &bearer).await.status, 200);
    for value in ["1", "2"] {
        let new = scene.fetch(&path, &format!("foo: {value}"), reply(200, line, "new")).await;
        assert_eq!(new.text(), "new", "every variant is gone");
    }

    // By surrogate key, across targets; the key is not shown to clients.
    let paths = [scene.path(), scene.path(), scene.path()];
    for (path, keys) in paths.iter().zip(["a b", "b", "c"]) {
        let line = format!("{FRESH} | etag: \"e\" | surrogate-key: {keys}");
        let answer = scene.fetch(path, "", reply(200, &line, "old")).await;
        assert_eq!(answer.header("surrogate-key"), None);
    }
    let by_key = format!("{bearer} | surrogate-key: b");
    assert_eq!(scene.request("PURGE", "/", &by_key).await.status, 200);
    assert_eq!(scene.fetch(&paths[0], "", passing("new")).await.text(), "new");
    assert_eq!(scene.fetch(&paths[1], "", passing("new")).await.text(), "new");
    assert_eq!(scene.get(&paths[2], "").await.text(), "old");

    // Softly: it is asked about, and is still there.
    let softly = format!("{bearer} | purge-mode: soft");
    assert_eq!(scene.request("PURGE", &paths[2], &softly).await.status, 200);
    let confirmed = Reply::new(304).header("ETag", "\"e\"");
    assert_eq!(scene.fetch(&paths[2], "", confirmed).await.text(), "old");
}

#[tokio::test]
async fn the_figures_add_up() {
    let mut scene = Scene::start("--profile rfc --admin 127.0.0.1:0").await;
    let admin = scene.proxy.admin().await;
    let path = scene.path();
    scene.fetch(&path, "", reply(200, FRESH, "x")).await;
    for _ in 0..3 {
        scene.get(&path, "").await;
    }
    scene.origin.script(&path, [passing("x")]);
    scene.request("POST", &path, "").await;
    scene.get(&scene.path(), "cache-control: only-if-cached").await;

    let stats: serde_json::Value =
        serde_json::from_slice(&Client::connect(admin).await.get("/stats", &[]).await.body)
            .unwrap();
    let http = &stats["http"];
    for (figure, value) in
        [("requests", 6), ("hits", 3), ("misses", 2), ("unsatisfiable", 1), ("stored", 1)]
    {
        assert_eq!(http[figure], value, "{figure}: {http}");
    }
    let ends = [
        "hits",
        "stale",
        "revalidated",
        "coalesced",
        "misses",
        "bypassed",
        "unsatisfiable",
        "purges",
        "failed",
        "cancelled",
        "in_flight",
    ];
    let sum: u64 = ends.iter().map(|end| http[end].as_u64().expect("a figure")).sum();
    assert_eq!(http["requests"], sum, "{http}");
    assert_eq!(scene.get("/stats", "cache-control: only-if-cached").await.status, 504, "not here");
}

#[tokio::test]
async fn without_a_token_purge_is_a_method_as_any_other() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.origin.script(&path, [passing("the origin's own")]);
    assert_eq!(scene.request("PURGE", &path, "").await.text(), "the origin's own");
}

mod redis {
    use std::time::Duration;

    use testkit::Redis;

    use super::{FRESH, TOKEN, passing, reply};
    use crate::proxy::Proxy;
    use crate::rfc9111::Scene;

    #[tokio::test]
    async fn two_proxies_share_what_one_has_fetched_and_what_one_has_purged() {
        let redis = Redis::start().await.expect("redis");
        let options = format!("--profile rfc --purge-token {TOKEN} --redis {}", redis.url());
        let scene = Scene::start(&options).await;
        let other = Proxy::start(scene.origin.address, &options).await;
        let line = format!("{FRESH} | x-kept: 1");
        // The script is over, so the other can only have it from Redis, which is written behind the
        // client's back. What a Redis that stood still did not take is not sent again.
        let shared = async |path: &str| {
            scene.fetch(path, "", reply(200, &line, "stored")).await;
            for _ in 0..100 {
                if other.get(path).await.text() == "stored" {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            false
        };
        let mut path = scene.path();
        for attempt in 1.. {
            if shared(&path).await {
                break;
            }
            assert!(attempt < 10, "Redis never has it");
            path = scene.path();
        }
        assert_eq!(other.get(&path).await.header("x-kept").as_deref(), Some("1"));

        let bearer = format!("authorization: Bearer {TOKEN}");
        let purge = async || scene.request("PURGE", &path, &bearer).await.status == 200;
        scene.until("all are clear", purge).await;
        scene.origin.script(&path, [passing("new"), passing("new")]);
        assert_eq!(scene.get(&path, "").await.text(), "new");
        scene.until("the other one knows", async || other.get(&path).await.text() == "new").await;
    }

    #[tokio::test]
    async fn a_redis_that_goes_away_fails_no_request() {
        let redis = Redis::start().await.expect("redis");
        let scene = Scene::start(&format!("--profile rfc --redis {}", redis.url())).await;
        let path = scene.path();
        scene.fetch(&path, "", reply(200, FRESH, "stored")).await;
        redis.freeze().expect("frozen");
        assert_eq!(scene.get(&path, "").await.text(), "stored");
        let path = scene.path();
        assert_eq!(scene.fetch(&path, "", reply(200, FRESH, "new")).await.text(), "new");
        assert_eq!(scene.get(&path, "").await.text(), "new");
        assert_eq!(scene.asked(&path), 1);
        redis.thaw().expect("thawed");
    }
}
