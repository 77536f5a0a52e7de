//! The server under test as a process of its own, with its temporary database and Redis.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::{PgCluster, Redis};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::options::{Database, Options};
use crate::enterprise::PoolTimes;
use crate::enterprise::store::{Node, open_file};

/// What one address may ask for here: all users have the same one, which real ones do not.
pub(super) const RATE_LIMIT_IP: &str = "1000000/second";

/// Schema, seed data and connections of an empty PostgreSQL on a slow machine.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// The server's own stop deadline and some.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub(super) enum Server {
    /// Somebody else's.
    Target(SocketAddr),
    /// Ours, stopped when dropped.
    Started(Box<Started>),
}

/// See [`Server::Started`].
pub(super) struct Started {
    address: SocketAddr,
    process: Child,
    database: PathBuf,
    postgres: Option<PgCluster>,
    _redis: Option<Redis>,
    _folder: TempDir,
}

/// What a process used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// CPU time so far.
    pub(super) cpu: Duration,
    /// Most memory so far, in MiB.
    pub(super) peak_mib: u64,
}

impl Server {
    pub(super) async fn start(options: &Options) -> anyhow::Result<Self> {
        if let Some(address) = options.target {
            return Ok(Self::Target(address));
        }
        let folder = tempfile::tempdir().context("temporary folder")?;
        let mut command = Command::new(std::env::current_exe()?);
        // A clean environment: a DATABASE_URL of this shell must not become the test's database.
        command.arg(super::SERVE).env_clear().env("PORT", "0").env("DATA_DIR", folder.path());
        command.env("RATE_LIMIT_IP", RATE_LIMIT_IP);
        for variable in ["PATH", "RUST_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(variable) {
                command.env(variable, value);
            }
        }
        let postgres = match options.database {
            Database::Embedded => None,
            Database::Postgres => Some(PgCluster::start(3).await?),
        };
        if let Some(cluster) = &postgres {
            command.env("DATABASE_URL", cluster.primary().url());
            for n in 0..3 {
                command.env(format!("DB_READ_REPLICA_{}", n + 1), cluster.standby(n).url());
            }
        }
        let redis = if options.redis { Some(Redis::start().await?) } else { None };
        if let Some(redis) = &redis {
            command.env("REDIS_URL", redis.url()).env("USE_EXTERNAL_REDIS", "true");
        }
        let mut process =
            command.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("server")?;
        let address = tokio::time::timeout(START_PATIENCE, announced(&mut process))
            .await
            .context("the server did not start in time")??;
        let database = folder.path().join("enterprise.sqlite");
        let started =
            Started { address, process, database, postgres, _redis: redis, _folder: folder };
        Ok(Self::Started(Box::new(started)))
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Target(address) => *address,
            Self::Started(started) => started.address,
        }
    }

    /// What the server used so far; `None` for one that is not ours.
    pub(super) fn usage(&self) -> anyhow::Result<Option<Usage>> {
        let Self::Started(started) = self else { return Ok(None) };
        let id = started.process.id().context("the server has ended")?;
        let read = |file| std::fs::read_to_string(format!("/proc/{id}/{file}"));
        let (stat, status) = (read("stat")?, read("status")?);
        Ok(Some(Usage { cpu: cpu_of(&stat)?, peak_mib: peak_of(&status)? }))
    }
}

impl Started {
    /// Stops the server as an operator would and opens its database.
    pub(super) async fn stop(&mut self) -> anyhow::Result<Node> {
        let id = self.process.id().context("the server has ended before")?;
        let id = Pid::from_raw(i32::try_from(id)?).context("process id")?;
        kill_process(id, Signal::TERM)?;
        let status = tokio::time::timeout(STOP_PATIENCE, self.process.wait())
            .await
            .context("the server does not stop on SIGTERM")??;
        ensure!(status.success(), "the server stopped with {status}");
        Ok(match &self.postgres {
            None => open_file(&self.database).await?,
            Some(cluster) => {
                Node::connect(&cluster.primary().url(), 2, &PoolTimes::default()).await?
            }
        })
    }
}

/// Waits for the line that says where the server listens.
async fn announced(process: &mut Child) -> anyhow::Result<SocketAddr> {
    let output = process.stdout.take().context("standard output")?;
    let mut lines = BufReader::new(output).lines();
    match lines.next_line().await? {
        Some(line) => {
            let address = line.strip_prefix("listening on http://").context(line.clone())?;
            Ok(address.parse()?)
        }
        None => bail!("the server ended with {}", process.wait().await?),
    }
}

/// User and system time: fields 14 and 15 of `/proc/PID/stat`, counted after the name in brackets.
fn cpu_of(stat: &str) -> anyhow::Result<Duration> {
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<_, _>>()
        .context("stat")?;
    Ok(Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second()))
}

fn peak_of(status: &str) -> anyhow::Result<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().nth(1).context("VmHWM")?.parse()?;
    Ok(kib / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_proc() -> anyhow::Result<()> {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 1 2 3";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(cpu_of(stat)?, Duration::from_millis(200_000 / ticks));
        assert_eq!(peak_of("Name:\tx\nVmHWM:\t  204800 kB\n")?, 200);
        assert!(cpu_of("nonsense").is_err() && peak_of("Name: x").is_err());
        Ok(())
    }
}
