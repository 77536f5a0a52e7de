//! The file as it is written, with its defaults. What it means is the snapshot's business.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use escala_cluster::DrainConfig;
use escala_replicas::http::{Network, ProxyConfig, UpstreamConfig};
use serde::Deserialize;

/// Everything.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Port 0 takes a free one and prints it.
    pub(super) listen: SocketAddr,
    /// Where `/healthz` and `/stats` are answered; absent: nowhere.
    pub(super) management: Option<SocketAddr>,
    /// Absent: one a CPU.
    pub(super) threads: Option<NonZeroUsize>,
    /// How often the file is looked at for a change; absent: only SIGHUP has it read again.
    #[serde(default, with = "maybe_duration")]
    pub(super) watch: Option<Duration>,
    /// Proxies in front, whose word about the client is taken.
    #[serde(default)]
    pub(super) trusted_proxies: Vec<Network>,
    /// Connections and their times, and the end of all of them.
    #[serde(default)]
    pub(super) server: DrainConfig,
    #[serde(default)]
    pub(super) limits: Limits,
    /// Set on every response that has not got them, unless the value is empty.
    #[serde(default = "security_headers")]
    pub(super) response_headers: BTreeMap<String, String>,
    pub(super) upstreams: BTreeMap<String, Group>,
    pub(super) routes: Vec<Route>,
}

/// What one request may be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// Fields of a head. 100, the most that the parser takes.
    pub(super) max_headers: usize,
    /// Names and values of a head in bytes. 32 KiB, what nginx takes with its four large buffers.
    pub(super) max_header_bytes: usize,
    /// Longest body in bytes, unless the route says otherwise. 10 MiB: uploads have a route.
    pub(super) max_body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_headers: 100, max_header_bytes: 32 * 1024, max_body_bytes: 10 * 1024 * 1024 }
    }
}

/// What does no harm to any site: no guessing of types, no framing by strangers, no addresses with
/// their queries to other sites.
fn security_headers() -> BTreeMap<String, String> {
    [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "SAMEORIGIN"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Servers among which requests are balanced.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    #[serde(default)]
    pub(super) strategy: Strategy,
    /// Failures in a row that take a server out; 0: none do. 3: with nginx's 1, a server would go for
    /// one kept connection that it closed.
    #[serde(default = "three")]
    pub(super) max_fails: u32,
    /// For how long a server is out, then one request tries it. 10 s, as in nginx.
    #[serde(default = "ten_seconds", with = "humantime_duration")]
    pub(super) fail_timeout: Duration,
    /// For how long a server that returns gets less than its weight. Not at all, as in nginx.
    #[serde(default, with = "humantime_duration")]
    pub(super) slow_start: Duration,
    /// How long a request waits for a server when all have their `max_conns`; then it is a 503. Not
    /// at all.
    #[serde(default, with = "humantime_duration")]
    pub(super) max_wait: Duration,
    pub(super) servers: Vec<Server>,
    /// Asked of each server in the background; absent: requests alone tell who is well.
    pub(super) health: Option<Health>,
    #[serde(default)]
    pub(super) connection: UpstreamConfig,
    #[serde(default)]
    pub(super) proxy: ProxyConfig,
}

fn three() -> u32 {
    3
}

fn one() -> u32 {
    1
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// How a server is chosen; nginx's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Strategy {
    /// In turn, by weight.
    RoundRobin,
    /// The fewest open requests for its weight.
    #[default]
    LeastConn,
    /// The quicker of two drawn by weight, by what their answers took.
    Ewma,
}

/// One server of a group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) address: String,
    #[serde(default = "one")]
    pub(super) weight: u32,
    /// Requests it may have at once; absent: any number.
    pub(super) max_conns: Option<u64>,
    /// Asked only when no other is in service; at most one in a group.
    #[serde(default)]
    pub(super) backup: bool,
}

/// Background questions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub(super) path: String,
    #[serde(default = "ten_seconds", with = "humantime_duration")]
    pub(super) interval: Duration,
    #[serde(default = "one_second", with = "humantime_duration")]
    pub(super) timeout: Duration,
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

/// Which requests go where.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// `shop.example`, `*.shop.example`; absent: any.
    pub(super) host: Option<String>,
    /// A prefix of whole segments: `/pdf` is also `/pdf/1`, and is not `/pdfs`.
    pub(super) path: String,
    /// The one group, or the one that `toggle` moves away from.
    pub(super) upstream: Option<String>,
    /// Several groups with their weights, instead.
    pub(super) split: Option<BTreeMap<String, u32>>,
    /// What keeps a user on one side of a split: `ip`, `cookie:NAME`, `header:NAME`; absent: each
    /// request goes by itself.
    pub(super) sticky: Option<String>,
    pub(super) toggle: Option<Toggle>,
    pub(super) max_body_bytes: Option<u64>,
}

/// A route on its way to another group, by degrees.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Toggle {
    pub(super) upstream: String,
    /// 0 to 100. Who is moved at 10 is moved at 20, too.
    pub(super) percent: f64,
    /// As `sticky`; absent: `ip`.
    pub(super) sticky: Option<String>,
    /// A header by which a request chooses for itself.
    pub(super) header: Option<Switch>,
}

/// A header and the value that asks for the new side; any other value asks for the old one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    pub(super) name: String,
    pub(super) value: String,
}

/// Durations as `10s`.
mod humantime_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
    }
}

mod maybe_duration {
    use std::time::Duration;

    use serde::Deserializer;

    pub(super) fn deserialize<'de, D>(from: D) -> Result<Option<Duration>, D::Error>
    where
        D: Deserializer<'de>,
    {
        super::humantime_duration::deserialize(from).map(Some)
    }
}
