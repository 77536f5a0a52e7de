//! Section 4.4: a request that changes something makes what is stored about it invalid.

use super::{Scene, passing, reply};
use crate::proxy::Reply;

const FRESH: &str = "cache-control: max-age=60";

#[tokio::test]
async fn a_method_that_is_not_safe_invalidates_its_target_unless_it_fails() {
    let scene = Scene::rfc().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "WHATEVER"] {
        for (status, invalid) in
            [(200, true), (201, true), (204, true), (303, true), (404, false), (500, false)]
        {
            let path = scene.path();
            scene.fetch(&path, "", reply(200, FRESH, "stored")).await;
            scene.origin.script(&path, [Reply::new(status).header("Content-Length", "0")]);
            assert_eq!(scene.request(method, &path, "").await.status, status);
            scene.origin.script(&path, [passing("new")]);
            let expected = if invalid { "new" } else { "stored" };
            assert_eq!(scene.get(&path, "").await.text(), expected, "{method} {status}");
        }
    }
}

#[tokio::test]
async fn a_safe_method_invalidates_nothing() {
    let scene = Scene::rfc().await;
    for method in ["OPTIONS", "PROPFIND", "REPORT", "SEARCH"] {
        let path = scene.path();
        scene.fetch(&path, "", reply(200, FRESH, "stored")).await;
        scene.origin.script(&path, [passing("")]);
        scene.request(method, &path, "").await;
        assert_eq!(scene.get(&path, "").await.text(), "stored", "{method}");
    }
}

#[tokio::test]
async fn every_variant_of_the_target_is_invalid() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let line = "cache-control: max-age=60 | vary: foo";
    for value in ["1", "2"] {
        scene.fetch(&path, &format!("foo: {value}"), reply(200, line, value)).await;
    }
    scene.origin.script(&path, [passing("done")]);
    assert_eq!(scene.request("POST", &path, "foo: 1").await.text(), "done");
    for value in ["1", "2"] {
        let answer = scene.fetch(&path, &format!("foo: {value}"), passing("new")).await;
        assert_eq!(answer.text(), "new", "{value}");
    }
}

#[tokio::test]
async fn other_targets_are_invalid_only_if_they_are_of_the_same_origin() {
    let scene = Scene::rfc().await;
    for (name, prefix, invalid) in [
        ("Location", "", true),
        ("Content-Location", "", true),
        ("Location", "http://origin.test", true),
        ("Location", "http://other.test", false),
        ("Content-Location", "http://other.test", false),
        ("Location", "http://origin.test:81", false),
        ("Location", "ftp://origin.test", false),
    ] {
        let (path, other) = (scene.path(), scene.path());
        scene.fetch(&other, "", reply(200, FRESH, "stored")).await;
        let done = Reply::new(201).header(name, &format!("{prefix}{other}"));
        scene.origin.script(&path, [done.body("")]);
        assert_eq!(scene.request("POST", &path, "").await.status, 201);
        scene.origin.script(&other, [passing("new")]);
        let expected = if invalid { "new" } else { "stored" };
        assert_eq!(scene.get(&other, "").await.text(), expected, "{name}: {prefix}");
    }
}

#[tokio::test]
async fn one_host_invalidates_nothing_of_another() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    scene.fetch(&path, "host: a.test", reply(200, FRESH, "stored")).await;
    let done = Reply::new(201).header("Location", &format!("http://a.test{path}")).body("");
    scene.origin.script(&path, [done]);
    assert_eq!(scene.request("POST", &path, "host: b.test").await.status, 201);
    assert_eq!(scene.get(&path, "host: a.test").await.text(), "stored");
}
