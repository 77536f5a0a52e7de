//! One whole load test, from starting the server to the verdict.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use super::measure::Outcome;
use super::options::Options;
use super::plan::Operation;
use super::report::{Machine, Report};
use super::server::Server;
use super::user::User;
use super::{alone, consistency, phases, report};

const CLUSTER_STATUS: &str = "/api/enterprise/cluster/status";
const CACHES: &str = "/cache/stats";
const TICK: Duration = Duration::from_millis(100);

/// Runs the load test and prints its table; true if everything succeeded and adds up.
///
/// # Errors
/// The server cannot be started, reached or stopped, or a file cannot be written.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let started = Instant::now();
    let server = Server::start(options).await?;
    super::wait_until_ready(server.address()).await?;
    let start = started.elapsed();

    let caches_before = fetch(&server, CACHES).await?;
    let mut crowd = phases::connect(server.address(), options.users as usize, options.seed).await?;
    let burst = phases::burst(&mut crowd, |index, user| {
        let id = user.id();
        Operation::of_burst(index, &mut user.chance, id)
    })
    .await?;
    let cluster_after_burst = fetch(&server, CLUSTER_STATUS).await?;
    let before = server.usage()?;
    let sustained = sustained(options, &mut crowd).await?;
    let after = server.usage()?;
    let machine = before.zip(after).map(|(before, after)| Machine {
        cpu_percent: percent(after.cpu.saturating_sub(before.cpu), &sustained),
        peak_memory_mib: after.peak_mib,
    });

    let mut report = Report::new(options, start, &burst, sustained.as_ref(), machine);
    report.cluster_after_burst = cluster_after_burst;
    report.cluster = fetch(&server, CLUSTER_STATUS).await?;
    report.caches_before = caches_before;
    report.caches = fetch(&server, CACHES).await?;
    report.consistency = match settle(server, crowd, &mut report).await {
        Ok(differences) => differences,
        Err(error) => vec![format!("{error:#}")],
    };

    std::io::stdout().write_all(report::table(&report).as_bytes())?;
    if let Some(path) = &options.json {
        let json = serde_json::to_vec_pretty(&report.json())?;
        std::fs::write(path, json).with_context(|| format!("--json {}", path.display()))?;
    }
    if let Some(path) = &options.html {
        let page = report::html(&report, &burst, sustained.as_ref());
        std::fs::write(path, page).with_context(|| format!("--html {}", path.display()))?;
    }
    Ok(report.passed())
}

/// Lets the lanes finish, measures one user alone, and checks the books.
async fn settle(
    server: Server,
    mut crowd: Vec<User>,
    report: &mut Report,
) -> anyhow::Result<Vec<String>> {
    report.queues = consistency::empty_lanes(&server).await?;
    if let Some(user) = crowd.first_mut() {
        report.alone = Some(alone::measure(user).await.context("one user alone")?);
    }
    consistency::check(server, crowd).await
}

async fn sustained(options: &Options, crowd: &mut Vec<User>) -> anyhow::Result<Option<Outcome>> {
    if options.duration.is_zero() {
        return Ok(None);
    }
    let progress = Arc::new(AtomicU64::new(0));
    let shown = tokio::spawn(show(Arc::clone(&progress), options.duration));
    let outcome = phases::sustained(crowd, options.duration, options.think, &progress).await;
    shown.abort();
    outcome.map(Some)
}

/// A bar that runs for the duration; nothing where no terminal shows it.
async fn show(progress: Arc<AtomicU64>, duration: Duration) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let total = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("{bar:40.cyan} {percent:>3}%  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style);
    let began = Instant::now();
    while began.elapsed() < duration {
        bar.set_position(u64::try_from(began.elapsed().as_millis()).unwrap_or(total));
        bar.set_message(format!("{} operations", progress.load(Ordering::Relaxed)));
        tokio::time::sleep(TICK).await;
    }
    bar.finish_and_clear();
}

fn percent(cpu: Duration, sustained: &Option<Outcome>) -> f64 {
    let wall = sustained.as_ref().map_or(Duration::ZERO, |outcome| outcome.total);
    100.0 * cpu.as_secs_f64() / wall.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// A status document; `null` where a server that is not ours keeps it to itself.
async fn fetch(server: &Server, path: &str) -> anyhow::Result<Value> {
    let (status, body) = super::get(server.address(), path).await?;
    if !status.is_success() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))
}
