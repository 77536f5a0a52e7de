//! What can be set: the documented environment variables, each also a command-line option.

mod monitoring;

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

use super::limits::RateLimits;
use monitoring::Monitoring;

/// The documented phase-3 server: trading, financial and affiliate for more than a thousand
/// concurrent users.
///
/// Without any setting it is embedded: a SQLite file, a memory cache and a memory queue. With
/// `DATABASE_URL` it uses PostgreSQL, with `REDIS_URL` Redis.
#[derive(Clone, Parser)]
#[command(name = "enterprise", version, next_line_help = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is a documented feature flag")]
pub struct Settings {
    /// Go through the pre-deployment checklist and end: each line passes or says what to do.
    #[arg(long)]
    pub check: bool,

    /// Address to listen on.
    #[arg(long, env = "LISTEN_HOST", value_name = "LISTEN_HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one and prints it.
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = 3000)]
    pub port: u16,
    /// Shown in the dashboard and in the health document.
    #[arg(long, env = "ENVIRONMENT", value_name = "ENVIRONMENT", default_value = "development")]
    pub environment: String,
    /// Folder of the embedded database.
    #[arg(long, env = "DATA_DIR", value_name = "DATA_DIR", default_value = "data/enterprise")]
    pub data_dir: PathBuf,
    /// Wait between "not ready" and the last accepted connection, so that a balancer notices:
    /// 15s in production.
    #[arg(long, env = "PRE_STOP", value_name = "PRE_STOP", default_value = "0s", value_parser = humantime::parse_duration)]
    pub pre_stop: Duration,

    /// PostgreSQL primary; absent: embedded SQLite.
    #[arg(long, env = "DATABASE_URL", value_name = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// First read replica, weight 3.
    #[arg(
        long,
        env = "DB_READ_REPLICA_1",
        value_name = "DB_READ_REPLICA_1",
        hide_env_values = true
    )]
    pub db_read_replica_1: Option<String>,
    /// Second read replica, weight 3.
    #[arg(
        long,
        env = "DB_READ_REPLICA_2",
        value_name = "DB_READ_REPLICA_2",
        hide_env_values = true
    )]
    pub db_read_replica_2: Option<String>,
    /// Third read replica, weight 2.
    #[arg(
        long,
        env = "DB_READ_REPLICA_3",
        value_name = "DB_READ_REPLICA_3",
        hide_env_values = true
    )]
    pub db_read_replica_3: Option<String>,
    /// Most connections a database node's pool opens.
    #[arg(long, env = "DB_POOL_SIZE", value_name = "DB_POOL_SIZE", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(2..=1_000))]
    pub db_pool_size: u16,
    /// Milliseconds between two health checks of a database node.
    #[arg(long, env = "REPLICA_HEALTH_CHECK_INTERVAL", value_name = "REPLICA_HEALTH_CHECK_INTERVAL",
          default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub replica_health_check_interval: u64,

    /// Token of the administrators, 16 characters or more: its bearer reads past the caches and may
    /// remove from them; absent: nobody may.
    #[arg(long, env = "ADMIN_TOKEN", value_name = "ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<Secret>,
    /// Tenants whose cached answers are kept apart. The gateway in front must set X-Tenant to one of
    /// them; it is believed of TRUSTED_PROXIES alone. Without those it is believed of anybody, and
    /// the gateway must take it off what clients send.
    #[arg(long, env = "TENANTS", value_name = "TENANTS", value_delimiter = ',')]
    pub tenants: Vec<String>,

    /// Seals the tokens by which clients see their own writes: 32 or more random characters, the same
    /// for all processes; absent: one of this process.
    #[arg(long, env = "SESSION_SECRET", value_name = "SESSION_SECRET", hide_env_values = true)]
    pub session_secret: Option<Secret>,

    /// Redis as the cache's second layer, and for limits that all processes share.
    #[arg(long, env = "REDIS_URL", value_name = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,

    /// Service for exchange rates, over HTTP; absent: there are none. It answers
    /// ?base=USD&symbols=EUR with {"rates": {"EUR": 0.92}}.
    #[arg(
        long,
        env = "EXCHANGE_RATES_URL",
        value_name = "EXCHANGE_RATES_URL",
        hide_env_values = true
    )]
    pub exchange_rates_url: Option<String>,

    /// Workers of the high lane.
    #[arg(long, env = "QUEUE_HIGH_WORKERS", value_name = "QUEUE_HIGH_WORKERS", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub queue_high_workers: u16,
    /// Workers of the medium lane.
    #[arg(long, env = "QUEUE_MEDIUM_WORKERS", value_name = "QUEUE_MEDIUM_WORKERS",
          default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub queue_medium_workers: u16,
    /// Workers of the low lane.
    #[arg(long, env = "QUEUE_LOW_WORKERS", value_name = "QUEUE_LOW_WORKERS", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub queue_low_workers: u16,
    /// Workers of the background lane.
    #[arg(long, env = "QUEUE_BACKGROUND_WORKERS", value_name = "QUEUE_BACKGROUND_WORKERS",
          default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub queue_background_workers: u16,

    /// Fewest worker processes (default: half the CPUs, at least 2).
    #[arg(long, env = "CLUSTER_MIN_WORKERS", value_name = "CLUSTER_MIN_WORKERS",
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub cluster_min_workers: Option<u32>,
    /// Most worker processes (default: twice the CPUs).
    #[arg(long, env = "CLUSTER_MAX_WORKERS", value_name = "CLUSTER_MAX_WORKERS",
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub cluster_max_workers: Option<u32>,
    /// CPU percentage above which the cluster grows.
    #[arg(long, env = "SCALE_UP_THRESHOLD", value_name = "SCALE_UP_THRESHOLD", default_value_t = 80,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub scale_up_threshold: u8,
    /// CPU percentage below which the cluster shrinks.
    #[arg(long, env = "SCALE_DOWN_THRESHOLD", value_name = "SCALE_DOWN_THRESHOLD",
          default_value_t = 30, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub scale_down_threshold: u8,
    /// Who scales.
    #[arg(long, env = "SCALING_MODE", value_name = "SCALING_MODE", default_value = "native")]
    pub scaling_mode: ScalingMode,

    /// Redis must be the cache's second layer: an absent REDIS_URL is an error.
    #[arg(long, env = "USE_EXTERNAL_REDIS", value_name = "USE_EXTERNAL_REDIS", default_value_t = false,
          action = clap::ArgAction::Set)]
    pub use_external_redis: bool,
    /// A balancer stands in front: TRUSTED_PROXIES must name it.
    #[arg(long, env = "USE_EXTERNAL_LB", value_name = "USE_EXTERNAL_LB", default_value_t = false,
          action = clap::ArgAction::Set)]
    pub use_external_lb: bool,
    /// Kubernetes scales: SCALING_MODE must be k8s.
    #[arg(long, env = "USE_K8S_SCALING", value_name = "USE_K8S_SCALING", default_value_t = false,
          action = clap::ArgAction::Set)]
    pub use_k8s_scaling: bool,
    /// Serve GET /metrics.
    #[arg(long, env = "USE_PROMETHEUS", value_name = "USE_PROMETHEUS", default_value_t = true,
          action = clap::ArgAction::Set)]
    pub use_prometheus: bool,

    /// User of /metrics, /dashboard and the status pages; absent: they are open.
    #[arg(long, env = "METRICS_USER", value_name = "METRICS_USER", requires = "metrics_password")]
    pub metrics_user: Option<String>,
    /// Password of METRICS_USER.
    #[arg(
        long,
        env = "METRICS_PASSWORD",
        value_name = "METRICS_PASSWORD",
        hide_env_values = true,
        requires = "metrics_user"
    )]
    pub metrics_password: Option<Secret>,

    /// How much a client may ask for.
    #[command(flatten)]
    pub rate_limits: RateLimits,

    /// When to warn.
    #[command(flatten)]
    pub monitoring: Monitoring,
}

/// Who starts and stops worker processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalingMode {
    /// This program.
    Native,
    /// Docker.
    Docker,
    /// Kubernetes.
    K8s,
}

/// A text that never appears in a log, a page or `Debug`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A setting that cannot be: names the variable, its value and the rule.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {value} {rule}")]
pub struct SettingsError {
    variable: &'static str,
    value: String,
    rule: &'static str,
}

impl SettingsError {
    pub(super) fn new(variable: &'static str, value: &dyn ToString, rule: &'static str) -> Self {
        Self { variable, value: value.to_string(), rule }
    }
}

/// Without the URLs: they may hold passwords.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("environment", &self.environment)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads arguments and environment; an empty variable, as compose files pass on what is not set,
    /// counts as absent.
    ///
    /// # Errors
    /// clap's, whose text names option, value and rule (also holds `--help` and `--version`).
    pub fn read(
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, clap::Error> {
        let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        let command = Self::command().mut_args(|argument| {
            if argument.get_env().is_some_and(is_empty) {
                return argument.env(Resettable::Reset);
            }
            argument
        });
        let mut settings = Self::from_arg_matches(&command.try_get_matches_from(arguments)?)?;
        settings.tenants.retain(|tenant| !tenant.is_empty());
        settings.rate_limits.trusted_proxies.retain(|proxy| !proxy.is_empty());
        Ok(settings)
    }

    /// The rules that one option alone cannot state.
    ///
    /// # Errors
    /// The first broken rule. URLs are never repeated in it: they may hold a password.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let fail =
            |variable, value: &dyn ToString, rule| Err(SettingsError::new(variable, value, rule));
        self.rate_limits.validate()?;
        if self.metrics_user.is_some() != self.metrics_password.is_some() {
            return fail("METRICS_USER", &"(hidden)", "needs METRICS_PASSWORD, and the reverse");
        }
        if self.admin_token.as_ref().is_some_and(|token| !is_strong(&token.0)) {
            return fail("ADMIN_TOKEN", &"(hidden)", "must be 16 to 1024 visible ASCII characters");
        }
        if self.session_secret.as_ref().is_some_and(|secret| secret.0.len() < 32) {
            return fail("SESSION_SECRET", &"(hidden)", "must have at least 32 bytes");
        }
        let named =
            |tenant: &String| tenant.len() <= 64 && tenant.bytes().all(|b| b.is_ascii_graphic());
        if let Some(tenant) = self.tenants.iter().find(|tenant| !named(tenant)) {
            return fail("TENANTS", tenant, "must be names of up to 64 visible ASCII characters");
        }
        if self.tenants.len() > MOST_TENANTS {
            return fail("TENANTS", &self.tenants.len(), "names more than 100 tenants");
        }
        if self.use_external_redis && self.redis_url.is_none() {
            return fail("USE_EXTERNAL_REDIS", &true, "needs REDIS_URL");
        }
        if self.use_external_lb && self.rate_limits.trusted_proxies.is_empty() {
            let rule = "needs TRUSTED_PROXIES: all clients would share one limit";
            return fail("USE_EXTERNAL_LB", &true, rule);
        }
        if self.use_k8s_scaling && self.scaling_mode != ScalingMode::K8s {
            return fail("USE_K8S_SCALING", &true, "needs SCALING_MODE=k8s");
        }
        if self.database_url.is_none() && !self.replica_urls().is_empty() {
            return fail("DB_READ_REPLICA_1..3", &"(set)", "need DATABASE_URL");
        }
        if self.scale_down_threshold >= self.scale_up_threshold {
            let rule = "must be below SCALE_UP_THRESHOLD";
            return fail("SCALE_DOWN_THRESHOLD", &self.scale_down_threshold, rule);
        }
        let (min, max) = self.workers();
        if min > max {
            return fail("CLUSTER_MIN_WORKERS", &min, "must not exceed CLUSTER_MAX_WORKERS");
        }
        for (variable, url, schemes, rule) in [
            ("DATABASE_URL", &self.database_url, POSTGRES, POSTGRES_RULE),
            ("DB_READ_REPLICA_1", &self.db_read_replica_1, POSTGRES, POSTGRES_RULE),
            ("DB_READ_REPLICA_2", &self.db_read_replica_2, POSTGRES, POSTGRES_RULE),
            ("DB_READ_REPLICA_3", &self.db_read_replica_3, POSTGRES, POSTGRES_RULE),
            ("REDIS_URL", &self.redis_url, REDIS, REDIS_RULE),
        ] {
            if url.as_deref().is_some_and(|u| !schemes.iter().any(|s| u.starts_with(s))) {
                return fail(variable, &"(hidden)", rule);
            }
        }
        if self.exchange_rates_url.is_some() && self.exchange_rates().is_none() {
            let rule = "must be like http://host:port/latest, without a query";
            return fail("EXCHANGE_RATES_URL", &"(hidden)", rule);
        }
        Ok(())
    }

    /// Where exchange rates are asked for. Without encryption: that is for the proxy through which a
    /// server reaches the outside.
    #[must_use]
    pub fn exchange_rates(&self) -> Option<Uri> {
        let url: Uri = self.exchange_rates_url.as_deref()?.parse().ok()?;
        let plain = url.scheme_str() == Some("http") && url.query().is_none();
        (plain && url.authority().is_some()).then_some(url)
    }

    /// The replicas that are set, with their documented weights 3, 3 and 2.
    #[must_use]
    pub fn replica_urls(&self) -> Vec<(&'static str, u32, &str)> {
        REPLICAS
            .iter()
            .zip([&self.db_read_replica_1, &self.db_read_replica_2, &self.db_read_replica_3])
            .filter_map(|(&(name, weight), url)| Some((name, weight, url.as_deref()?)))
            .collect()
    }

    /// Fewest and most worker processes: documented max(2, CPUs/2) and 2 x CPUs.
    #[must_use]
    pub fn workers(&self) -> (u32, u32) {
        let cpus = cpus();
        let max = self.cluster_max_workers.unwrap_or(cpus * 2);
        (self.cluster_min_workers.unwrap_or_else(|| (cpus / 2).max(2).min(max)), max)
    }
}

/// Each order purges a page of every tenant.
const MOST_TENANTS: usize = 100;

fn is_strong(token: &str) -> bool {
    (16..=1_024).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Names and weights of the documented replicas.
pub(super) const REPLICAS: [(&str, u32); 3] =
    [("replica-1", 3), ("replica-2", 3), ("replica-3", 2)];

const POSTGRES: &[&str] = &["postgres://", "postgresql://", "host="];
const POSTGRES_RULE: &str = "must begin with postgres://, postgresql:// or host=";
const REDIS: &[&str] = &["redis://", "rediss://", "unix://"];
const REDIS_RULE: &str = "must begin with redis://, rediss:// or unix://";

/// CPUs this process may use, containers included.
#[must_use]
pub fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}
