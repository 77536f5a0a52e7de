//! What can be asked of the load test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Drives `enterprise` with many concurrent users and checks every answer.
///
/// Starts the server as a process of its own, or aims at --target. First all users do one operation
/// each at the same moment (the documented burst), then they work without a pause for --duration:
/// 70 % cached reads, 15 % replica reads, 10 % orders, 5 % transfers and reports. At the end orders,
/// balances and jobs in the database must add up. Exit code 0: everything succeeded.
///
/// A user's cash lasts for some 35,000 orders; after that the server rightly refuses.
#[derive(Clone, Debug, Parser)]
#[command(name = "thousand-users", version)]
pub struct Options {
    /// Concurrent users, each its own connection.
    #[arg(long, default_value_t = 1_100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub users: u32,
    /// How long the sustained run lasts; 0s leaves it out.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Pause of a user between two operations of the sustained run.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub think: Duration,
    /// Seed of the users' choices: the same seed asks the same.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Database of the started server; postgres starts a temporary primary with three standbys.
    #[arg(long, value_enum, default_value = "embedded", conflicts_with = "target")]
    pub database: Database,
    /// Also start a temporary Redis as the cache's second layer.
    #[arg(long, conflicts_with = "target")]
    pub redis: bool,
    /// A server that runs already, on loopback: http://127.0.0.1:3000. All users have one address:
    /// start it with RATE_LIMIT_IP=none, or as much as they will ask for.
    #[arg(long, value_name = "URL", value_parser = loopback)]
    pub target: Option<SocketAddr>,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one self-contained page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Which database the started server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Database {
    /// A SQLite file.
    Embedded,
    /// PostgreSQL: one primary, three streaming standbys.
    Postgres,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let rule = "must be like http://127.0.0.1:3000";
    let rest = text.strip_prefix("http://").ok_or(rule)?.trim_end_matches('/');
    let rest = rest.replace("localhost:", "127.0.0.1:");
    let address: SocketAddr = rest.parse().map_err(|_| rule)?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => {
            Err("must be a loopback address: a load test is not for other people's servers".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_loopback_only() {
        let check = |text: &str, expected: Option<&str>| {
            let found = loopback(text).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("http://127.0.0.1:3000", Some("127.0.0.1:3000"));
        check("http://localhost:3000/", Some("127.0.0.1:3000"));
        check("http://[::1]:80", Some("[::1]:80"));
        check("http://192.0.2.1:80", None);
        check("127.0.0.1:3000", None);
        check("https://127.0.0.1:3000", None);
    }
}
