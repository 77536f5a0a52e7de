//! A setting that cannot be ends the program with a message that names it, its value and the rule.

use crate::process::{command, output};

async fn check(variables: &[(&str, &str)], told: &[&str], secret: Option<&str>) {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = command(folder.path());
    for (variable, value) in variables {
        command.env(variable, value);
    }
    let (status, out, err) = output(command).await;
    assert!(!status.success(), "{variables:?} was accepted: {out}");
    for text in told {
        assert!(err.contains(text), "{variables:?}: {text:?} is not in: {err}");
    }
    if let Some(secret) = secret {
        assert!(!err.contains(secret) && !out.contains(secret), "{variables:?} shows it: {err}");
    }
}

#[tokio::test]
async fn values_that_cannot_be() {
    check(&[("DB_POOL_SIZE", "many")], &["DB_POOL_SIZE", "many"], None).await;
    check(&[("DB_POOL_SIZE", "1")], &["DB_POOL_SIZE", "1 is not in 2..=1000"], None).await;
    check(&[("QUEUE_HIGH_WORKERS", "0")], &["QUEUE_HIGH_WORKERS", "0 is not in"], None).await;
    check(&[("SCALING_MODE", "magic")], &["SCALING_MODE", "magic", "native"], None).await;
    check(&[("USE_PROMETHEUS", "maybe")], &["USE_PROMETHEUS", "maybe", "true"], None).await;
    check(&[("PRE_STOP", "soon")], &["PRE_STOP", "soon"], None).await;
    check(&[("ADMIN_TOKEN", "hunter2")], &["ADMIN_TOKEN", "16"], Some("hunter2")).await;
    check(&[("SESSION_SECRET", "hunter2")], &["SESSION_SECRET", "32"], Some("hunter2")).await;
    check(&[("TENANTS", "acme,a b")], &["TENANTS", "a b", "visible"], None).await;
    check(&[("RATE_LIMIT_IP", "5/day")], &["RATE_LIMIT_IP", "5/day", "600/minute"], None).await;
    check(&[("RATE_LIMIT_TENANT", "0/second")], &["RATE_LIMIT_TENANT", "at least 1"], None).await;
    check(&[("RATE_LIMIT_WITHOUT_REDIS", "hope")], &["RATE_LIMIT_WITHOUT_REDIS", "share"], None)
        .await;
    check(&[("RATE_LIMIT_PROCESSES", "0")], &["RATE_LIMIT_PROCESSES", "0 is not in"], None).await;
    check(&[("RATE_LIMIT_TIMEOUT", "1h")], &["RATE_LIMIT_TIMEOUT", "1h", "10s"], None).await;
    check(&[("USE_EXTERNAL_LB", "true")], &["USE_EXTERNAL_LB", "TRUSTED_PROXIES"], None).await;
    check(&[("TRUSTED_PROXIES", "10.0.0.0/40")], &["TRUSTED_PROXIES", "10.0.0.0/40"], None).await;
    check(&[("METRICS_USER", "ops")], &["METRICS_PASSWORD"], None).await;
    check(&[("SCALE_DOWN_THRESHOLD", "80")], &["SCALE_DOWN_THRESHOLD", "80", "below"], None).await;
    for url in ["https://rates.example/", "rates.example", "http://h/latest?key=hunter2"] {
        check(&[("EXCHANGE_RATES_URL", url)], &["EXCHANGE_RATES_URL", "http://"], Some("hunter2"))
            .await;
    }
    check(&[("USE_EXTERNAL_REDIS", "true")], &["USE_EXTERNAL_REDIS", "REDIS_URL"], None).await;
    let both = [("MONITORING_CPU_WARNING", "90"), ("MONITORING_CPU_CRITICAL", "70")];
    check(&both, &["cpu", "90", "70"], None).await;
}

#[tokio::test]
async fn an_unreachable_database_is_named_and_its_password_is_not() {
    let url = "postgres://app:hunter2@127.0.0.1:1/app";
    check(&[("DATABASE_URL", url)], &["DATABASE_URL", "refused"], Some("hunter2")).await;
    check(
        &[("DATABASE_URL", "mysql://a:hunter2@b/c")],
        &["DATABASE_URL", "postgres://"],
        Some("hunter2"),
    )
    .await;
    let replica = [("DB_READ_REPLICA_1", url)];
    check(&replica, &["DB_READ_REPLICA", "DATABASE_URL"], Some("hunter2")).await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port().to_string();
    check(&[("PORT", &port)], &["PORT", &port, "in use"], None).await;
}

#[tokio::test]
async fn a_variable_that_is_empty_counts_as_absent() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = command(folder.path());
    command.arg("--check");
    for variable in ["RATE_LIMIT_IP", "RATE_LIMIT_PROCESSES", "DB_POOL_SIZE", "SCALING_MODE"] {
        command.env(variable, "");
    }
    for variable in ["DATABASE_URL", "REDIS_URL", "ADMIN_TOKEN", "TENANTS", "TRUSTED_PROXIES"] {
        command.env(variable, "");
    }
    let (_, out, err) = output(command).await;
    let environment = out.lines().find(|line| line.contains("environment")).unwrap_or_default();
    assert!(environment.starts_with("pass"), "{out}{err}");
    assert!(out.contains("embedded in"), "{out}");
}

#[tokio::test]
async fn help_names_every_variable() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = command(folder.path());
    command.arg("--help");
    let (status, out, _) = output(command).await;
    assert!(status.success());
    let documented = "DATABASE_URL DB_POOL_SIZE DB_READ_REPLICA_1 DB_READ_REPLICA_2 \
        DB_READ_REPLICA_3 REPLICA_HEALTH_CHECK_INTERVAL REDIS_URL EXCHANGE_RATES_URL QUEUE_HIGH_WORKERS \
        QUEUE_MEDIUM_WORKERS QUEUE_LOW_WORKERS QUEUE_BACKGROUND_WORKERS CLUSTER_MIN_WORKERS \
        CLUSTER_MAX_WORKERS SCALE_UP_THRESHOLD SCALE_DOWN_THRESHOLD SCALING_MODE \
        USE_EXTERNAL_REDIS USE_EXTERNAL_LB USE_K8S_SCALING USE_PROMETHEUS METRICS_USER \
        METRICS_PASSWORD ADMIN_TOKEN TENANTS SESSION_SECRET RATE_LIMIT_IP \
        RATE_LIMIT_TENANT RATE_LIMIT_WITHOUT_REDIS RATE_LIMIT_PROCESSES RATE_LIMIT_TIMEOUT TRUSTED_PROXIES MONITORING_ALERT_COOLDOWN \
        MONITORING_METRICS_INTERVAL MONITORING_CPU_WARNING MONITORING_MEMORY_CRITICAL \
        MONITORING_QUEUE_SIZE_WARNING";
    for variable in documented.split_whitespace() {
        assert!(out.contains(variable), "{variable} is not in the help");
    }
}

#[tokio::test]
async fn the_checklist_passes_embedded_and_says_what_to_do_otherwise() {
    let folder = tempfile::tempdir().expect("folder");
    let mut good = command(folder.path());
    good.arg("--check");
    let (status, out, err) = output(good).await;
    assert!(status.success(), "{out}{err}");
    for line in ["CPUs", "memory", "environment", "database", "port", "health", "load test", "stop"]
    {
        assert!(out.lines().any(|l| l.starts_with("pass") && l.contains(line)), "{line}: {out}");
    }

    let mut open = command(folder.path());
    open.arg("--check").env("ENVIRONMENT", "production").env("TENANTS", "acme");
    open.env("METRICS_USER", "ops").env("METRICS_PASSWORD", "hunter2");
    let (status, out, _) = output(open).await;
    assert!(!status.success(), "{out}");
    assert!(out.lines().any(|l| l.starts_with("FAIL") && l.contains("TRUSTED_PROXIES")), "{out}");

    let mut bad = command(folder.path());
    bad.arg("--check").env("ENVIRONMENT", "production");
    bad.env("DATABASE_URL", "postgres://app:hunter2@127.0.0.1:1/app");
    let (status, out, _) = output(bad).await;
    assert!(!status.success(), "{out}");
    assert!(out.lines().any(|l| l.starts_with("FAIL") && l.contains("METRICS_USER")), "{out}");
    assert!(out.lines().any(|l| l.starts_with("FAIL") && l.contains("DATABASE_URL")), "{out}");
    assert!(!out.contains("hunter2"), "{out}");
}
