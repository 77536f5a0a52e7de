//! A memory queue forgets its jobs, the database does not.

use std::time::Duration;

use escala_examples::enterprise::domain::Audit;
use tokio::time::{Instant, sleep};

use crate::process::{Enterprise, command};

#[tokio::test]
async fn after_kill_9_every_acknowledged_order_is_there_and_settles() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Enterprise::start(command(folder.path())).await;
    let target = format!("http://{}", server.address);
    let mut load = tokio::process::Command::new(env!("CARGO_BIN_EXE_thousand-users"));
    load.args(["--target", &target, "--users", "100", "--duration", "30s"]).kill_on_drop(true);
    let mut load = load.stdout(std::process::Stdio::null()).spawn().expect("spawn");
    let deadline = Instant::now() + Duration::from_secs(20);
    let acknowledged = loop {
        let (_, audit) = server.get("/api/enterprise/audit").await;
        let audit: Audit = serde_json::from_value(audit).expect("audit");
        if audit.orders >= 200 {
            break audit.orders;
        }
        assert!(Instant::now() < deadline, "{audit:?}");
        sleep(Duration::from_millis(10)).await;
    };
    server.kill().await;
    load.kill().await.expect("killed");

    let server = Enterprise::start(command(folder.path())).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (_, audit) = server.get("/api/enterprise/audit").await;
        let audit: Audit = serde_json::from_value(audit).expect("audit");
        assert!(audit.orders >= acknowledged, "{audit:?}");
        if audit.differences().is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{:?}", audit.differences());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(server.terminate().await.success());
}
