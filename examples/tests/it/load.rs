//! The load test itself: its verdict, its JSON, its page.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

fn thousand_users() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thousand-users"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn embedded_everything_succeeds_and_adds_up() {
    let folder = tempfile::tempdir().expect("folder");
    let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
    let mut command = thousand_users();
    command.args(["--users", "200", "--duration", "2s"]);
    command.arg("--json").arg(&json).arg("--html").arg(&html);
    let (status, out, err) = crate::process::output(command).await;
    assert!(status.success(), "{out}{err}");
    assert!(out.contains("consistency: ok") && out.ends_with("passed\n"), "{out}");

    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("json")).expect("json");
    for phase in ["burst", "sustained"] {
        let phase = &report[phase];
        for field in [
            "users",
            "operations",
            "succeeded",
            "failed",
            "peak_concurrent",
            "throughput_per_second",
            "mean_ms",
            "p50_ms",
            "p90_ms",
            "p99_ms",
            "p999_ms",
            "total_seconds",
        ] {
            assert!(phase[field].is_number(), "{field}: {phase}");
        }
        assert_eq!((&phase["users"], &phase["failed"]), (&200.into(), &0.into()));
        assert_eq!(phase["succeeded"], phase["operations"]);
    }
    assert_eq!(report["burst"]["operations"], 200);
    assert_eq!(report["consistency"], "ok");
    assert!(report["health_score"].is_number(), "{report}");
    let page = std::fs::read_to_string(html).expect("page");
    assert!(page.contains("<polyline") && !page.contains("http://") && !page.contains("src="));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_clear_failure() {
    let mut command = thousand_users();
    command.args(["--target", "http://127.0.0.1:1", "--users", "2"]);
    let (status, _, err) = crate::process::output(command).await;
    assert!(!status.success() && err.contains("connect"), "{err}");
}
