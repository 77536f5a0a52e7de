//! The load test: many concurrent users, each its own connection, every answer checked.

mod alone;
mod client;
mod consistency;
mod documented;
mod measure;
mod options;
mod phases;
mod plan;
mod report;
mod run;
mod server;
mod user;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::http::StatusCode;
use clap::Parser;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use options::Options;
pub use run::run;

use client::{Answer, Client};
use plan::Operation;

use crate::enterprise::store::SYMBOLS;

/// First argument that turns `thousand-users` into the server it tests.
pub const SERVE: &str = "serve";

/// It listens already; only its first health checks are to come.
const READY_PATIENCE: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(20);

/// Runs the load test; the exit code is 0 only if every operation succeeded and the books balance.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            // Also prints `--help` and `--version`, to the stream and with the code they have.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    crate::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(&options)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "thousand-users: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One GET on a connection of its own.
///
/// # Errors
/// The server cannot be reached or breaks off.
pub async fn get(server: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let Answer { status, body, .. } = Client::connect(server).await?.get(path).await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Waits until a server that listens also says that it is ready.
///
/// # Errors
/// It cannot be reached, or is not ready in time: then with its health document.
pub async fn wait_until_ready(server: SocketAddr) -> anyhow::Result<()> {
    let path = "/health/ready";
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        let (status, body) = get(server, path).await?;
        if status.is_success() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{path}: {status}: {body}");
        tokio::time::sleep(READY_POLL).await;
    }
}

/// So many users read one quote each at the same moment; how many got a right answer.
///
/// # Errors
/// A connection cannot be opened.
pub async fn burst_of_reads(server: SocketAddr, users: usize) -> anyhow::Result<usize> {
    let mut crowd = phases::connect(server, users, 1).await?;
    let symbol = |user: &mut user::User| user.id() % SYMBOLS + 1;
    let choose = |_, user: &mut _| Operation::Quote { symbol: symbol(user) };
    let outcome = phases::burst(&mut crowd, choose).await?;
    Ok(outcome.succeeded())
}

/// What came of a [`closed_loop`] or of [`at_rate`].
#[derive(Debug)]
pub struct Answers {
    /// How many there were.
    pub count: u64,
    /// In microseconds.
    latencies: Histogram<u64>,
}

impl Answers {
    /// The time within which this share of the answers came, 0.0 to 1.0.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.latencies.value_at_quantile(share))
    }
}

/// So many connections ask for the same path without a pause; what came in the time.
///
/// # Errors
/// A connection breaks, or an answer is not a success.
pub async fn closed_loop(
    server: SocketAddr,
    path: &'static str,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Answers> {
    ask(server, path, connections, Duration::ZERO, duration).await
}

/// So many connections ask for the same path, together so often a second whatever the server does:
/// a request that is held up by a late answer has its time counted from when it was due.
///
/// # Errors
/// A connection breaks, or an answer is not a success.
pub async fn at_rate(
    server: SocketAddr,
    path: &'static str,
    connections: usize,
    per_second: f64,
    duration: Duration,
) -> anyhow::Result<Answers> {
    let interval = Duration::try_from_secs_f64(connections as f64 / per_second)?;
    ask(server, path, connections, interval, duration).await
}

/// Each connection asks once in an interval, or again at once if that is zero.
async fn ask(
    server: SocketAddr,
    path: &'static str,
    connections: usize,
    interval: Duration,
    duration: Duration,
) -> anyhow::Result<Answers> {
    let mut working = JoinSet::new();
    let start = Instant::now();
    let end = start + duration;
    for connection in 0..connections {
        let share = connection as f64 / connections as f64;
        working.spawn(async move {
            let mut client = Client::connect(server).await?;
            // A histogram a connection would not fit into the processor's cache.
            let mut took_us = Vec::new();
            let mut due = start + interval.mul_f64(share);
            let mut asked = Instant::now();
            while asked < end {
                if !interval.is_zero() {
                    asked = when_due(due).await;
                    due += interval;
                }
                let Answer { status, .. } = client.get(path).await?;
                anyhow::ensure!(status.is_success(), "{path}: {status}");
                let answered = Instant::now();
                let took = answered.duration_since(asked).as_micros();
                took_us.push(u32::try_from(took).unwrap_or(u32::MAX));
                asked = answered;
            }
            anyhow::Ok(took_us)
        });
    }
    let mut latencies = measure::empty();
    while let Some(worked) = working.join_next().await {
        for took_us in worked?? {
            latencies.saturating_record(u64::from(took_us));
        }
    }
    Ok(Answers { count: latencies.len(), latencies })
}

/// When the time of a request begins: a timer that is late is not the server's fault, an answer
/// that came late is.
async fn when_due(due: Instant) -> Instant {
    if Instant::now() >= due {
        return due;
    }
    tokio::time::sleep_until(due).await;
    Instant::now()
}
