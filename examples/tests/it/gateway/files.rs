//! Files that cannot be are refused with field, value and rule.

use std::process::Stdio;

use super::process::command;
use crate::process::output;

const GOOD: &str = r#"
listen = "127.0.0.1:0"
[upstreams.app]
servers = [{ address = "127.0.0.1:3000", weight = 2 }]
[[routes]]
path = "/"
upstream = "app"
"#;

async fn check(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, text).expect("write");
    let mut command = command(&file);
    command.arg("--check").stderr(Stdio::piped());
    let (status, out, err) = output(command).await;
    (status.success(), format!("{out}{err}"))
}

#[tokio::test]
async fn a_good_file_is_said_to_be_one() {
    let (good, said) = check(GOOD).await;
    assert!(good && said.contains("1 routes, 1 upstreams"), "{said}");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    for (right, wrong, told) in [
        ("path = \"/\"", "path = \"pdf\"", r#"routes[0].path is "pdf", but must begin with /"#),
        ("upstream = \"app\"", "upstream = \"apt\"", r#"routes[0].upstream is "apt""#),
        ("upstream = \"app\"", "split = { app = 0 }", "routes[0].split"),
        ("upstream = \"app\"", "", r#"routes[0] is "neither""#),
        ("weight = 2", "weight = 0", r#"upstreams.app.servers[0].weight is "0""#),
        ("weight = 2", "wieght = 2", "unknown field `wieght`"),
        ("weight = 2", "backup = true", "upstreams.app.servers[0].backup"),
        ("127.0.0.1:3000", "https://a:1", r#"upstreams.app.servers[0].address is "https://a:1""#),
        (
            "127.0.0.1:3000",
            "127.0.0.1:70000",
            r#"upstreams.app.servers[0].address is "127.0.0.1:70000""#,
        ),
        ("127.0.0.1:3000", "localhost:", r#"upstreams.app.servers[0].address is "localhost:""#),
        (
            "[upstreams.app]",
            "[upstreams.app]\nhealth = { path = \"/a b\" }",
            "upstreams.app.health.path",
        ),
        (
            "[upstreams.app]",
            "[upstreams.app]\nproxy.trusted_proxies = [\"10.0.0.0/8\"]",
            "upstreams.app.proxy.trusted_proxies",
        ),
        (
            "[upstreams.app]",
            "[response_headers]\ncontent-length = \"1\"\n[upstreams.app]",
            "response_headers.content-length",
        ),
        ("[upstreams.app]", "[upstreams.app]\nfail_timeout = \"0s\"", "upstreams.app.fail_timeout"),
        ("[upstreams.app]", "[upstreams.app]\nstrategy = \"magic\"", "magic"),
        (
            "[upstreams.app]",
            "[upstreams.app]\nproxy.attempts = 0",
            r#"upstreams.app.proxy.attempts is "0""#,
        ),
        (
            "[upstreams.app]",
            "[upstreams.app]\nconnection.connect_timeout = \"soon\"",
            "connect_timeout",
        ),
        (
            "[upstreams.app]",
            "[server]\nidle_timeout = \"0s\"\n[upstreams.app]",
            "server.idle_timeout",
        ),
        ("[upstreams.app]", "[limits]\nmax_headers = 0\n[upstreams.app]", "limits.max_headers"),
        ("listen = \"127.0.0.1:0\"", "listen = \"here\"", "here"),
        ("listen =", "trusted_proxies = [\"ten\"]\nlisten =", "ten"),
        (
            "[upstreams.app]",
            "[response_headers]\n\"a b\" = \"c\"\n[upstreams.app]",
            "response_headers.a b",
        ),
        (
            "[[routes]]",
            "[[routes]]\npath = \"/\"\nupstream = \"app\"\n[[routes]]",
            "routes[1].path",
        ),
        (
            "upstream = \"app\"",
            "upstream = \"app\"\ntoggle = { upstream = \"app\", percent = 101.0 }",
            r#"routes[0].toggle.percent is "101", but must be from 0 to 100"#,
        ),
    ] {
        assert!(GOOD.contains(right));
        let (good, said) = check(&GOOD.replacen(right, wrong, 1)).await;
        assert!(!good && said.contains(told), "{wrong}: {told} is not in: {said}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = command(&folder.path().join("none.toml"));
    command.stderr(Stdio::piped());
    let (status, _, err) = output(command).await;
    assert!(!status.success() && err.contains("none.toml"), "{err}");
}
