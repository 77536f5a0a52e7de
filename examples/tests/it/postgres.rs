//! Over PostgreSQL: reads are spread, and `kill -9` of a standby under load fails nobody.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use testkit::PgCluster;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::process::{Enterprise, command, output};

fn node<'a>(status: &'a Value, name: &str) -> &'a Value {
    let nodes = status["database"]["nodes"].as_array().expect("nodes");
    nodes.iter().find(|node| node["name"] == name).expect(name)
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
}
