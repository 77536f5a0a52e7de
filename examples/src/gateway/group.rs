//! A group of servers as the file has it, made into a balancing proxy.

use std::time::Duration;

use axum::http::uri::PathAndQuery;
use escala_replicas::http::{Network, ReverseProxy, Upstream};
use escala_replicas::{Member, Replicas, ReplicasConfig, Strategy};

use super::error::SettingError;
use super::file;

/// A backup is the primary of its set, which is asked for reads only when no replica is left.
const BACKUP_RULE: &str = "be true for at most one server of a group, and not for all";

/// Servers that share their health and their connections.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// What it was made of: a new file with the same servers keeps them, health and connections
    /// included.
    file: file::Group,
    pub(super) proxy: ReverseProxy,
}

impl Group {
    /// `table` is the group's place in the file, `old` the group that the last file had there.
    pub(super) fn new(
        table: &str,
        file: &file::Group,
        trusted: &[Network],
        old: Option<&Self>,
    ) -> Result<Self, SettingError> {
        let old = old.filter(|old| old.has_set_of(file));
        let mut config = file.proxy.clone();
        if !config.trusted_proxies.is_empty() {
            let rule = "be set at the top of the file, for all that looks at addresses";
            return Err(SettingError::new(format!("{table}.proxy.trusted_proxies"), "set", rule));
        }
        config.trusted_proxies = trusted.to_vec();
        let proxy = match old {
            Some(old) if *old.proxy.config() == config => return Ok(old.clone()),
            Some(old) => old.proxy.reconfigured(config),
            None => ReverseProxy::new(replicas(table, file)?, config),
        };
        let proxy =
            proxy.map_err(|error| SettingError::within(&format!("{table}.proxy"), &error))?;
        Ok(Self { file: file.clone(), proxy })
    }

    /// Whether they differ in nothing but what is done with requests.
    fn has_set_of(&self, file: &file::Group) -> bool {
        self.file == file::Group { proxy: self.file.proxy.clone(), ..file.clone() }
    }
}

fn replicas(table: &str, file: &file::Group) -> Result<Replicas<Upstream>, SettingError> {
    let connection = &file.connection;
    connection
        .validate()
        .map_err(|error| SettingError::within(&format!("{table}.connection"), &error))?;
    let mut members = Vec::new();
    let mut backup = None;
    for (position, server) in file.servers.iter().enumerate() {
        let table = format!("{table}.servers[{position}]");
        let upstream = Upstream::new(&server.address, connection.clone())
            .map_err(|error| SettingError::within(&table, &error))?;
        let member = if server.backup {
            if backup.replace(position).is_some() || file.servers.len() == 1 {
                return Err(SettingError::new(format!("{table}.backup"), true, BACKUP_RULE));
            }
            Member::primary(&server.address, upstream)
        } else {
            Member::replica(&server.address, upstream)
        };
        let member = member.weight(server.weight);
        members.push(match server.max_conns {
            Some(most) => member.max_in_flight(most),
            None => member,
        });
    }
    let mut builder = Replicas::with_members(members);
    builder = builder.strategy(match file.strategy {
        file::Strategy::RoundRobin => Strategy::Weighted,
        file::Strategy::LeastConn => Strategy::LeastLoaded,
        file::Strategy::Ewma => Strategy::PeakEwma,
    });
    let mut config = health(file);
    if let Some(file::Health { path, interval, timeout }) = &file.health {
        if !path.starts_with('/') || PathAndQuery::try_from(path.as_str()).is_err() {
            let rule = "begin with / and be what a request can ask for";
            return Err(SettingError::new(format!("{table}.health.path"), path, rule));
        }
        config = config.health_interval(*interval).probe_timeout(*timeout);
        let path = path.clone();
        builder = builder.probe(move |upstream: Upstream| {
            let path = path.clone();
            async move { upstream.probe(&path).await }
        });
    }
    builder.config(config).build().map_err(|error| SettingError::within(table, &named(error)))
}

/// As nginx has it: so many failures take a server out for a time that does not grow.
fn health(file: &file::Group) -> ReplicasConfig {
    let never = u32::MAX;
    let failures = if file.max_fails == 0 { never } else { file.max_fails };
    let mut config = ReplicasConfig::default()
        .consecutive_failures(failures)
        .ejection_base(file.fail_timeout)
        .ejection_max(file.fail_timeout)
        // nginx knows failures in a row only, no slow start unless told, and lets a group be out whole.
        .failure_min_requests(never)
        .panic_percent(0)
        .slow_start(file.slow_start)
        .max_wait(file.max_wait)
        // A backup is all there is left then: it takes everything.
        .primary_read_share(1.0);
    // Only the questions of a probe are spread; the file's time is meant as it is written.
    if file.health.is_none() {
        // A trial may take as long as any request: until then no other one is sent.
        let file::Group { connection, .. } = file;
        let longest = connection.connect_timeout + connection.response_timeout;
        let longest = longest.min(Duration::from_secs(24 * 60 * 60));
        config = config.jitter(0.0).probe_timeout(longest);
    }
    config
}

/// The fields of the balancer by the names that the file has for them.
fn named(mut error: escala_replicas::ConfigError) -> escala_replicas::ConfigError {
    for (theirs, ours) in [
        ("ejection_base", "fail_timeout"),
        ("ejection_max", "fail_timeout"),
        ("health_interval", "health.interval"),
        ("probe_timeout", "health.timeout"),
        ("number of nodes", "servers"),
    ] {
        if error.field == theirs {
            ours.clone_into(&mut error.field);
        }
    }
    error.field = error.field.replace("member[", "servers[").replace("].name", "].address");
    error.field = error.field.replace("].max_in_flight", "].max_conns");
    error
}
