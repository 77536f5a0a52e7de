//! How much one client address and one tenant may ask for: in Redis if there is one, so that all
//! processes share it, else in memory.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use axum::extract::Request;
use clap::ValueEnum;
use escala_cluster::{
    AsResponse, ClientIp, KeyBy, Limit, MissingKey, Quota, RateLimitConfig, RateLimitLayer,
    RateLimitStats, RateLimiter, RedisRateConfig, RedisRateError, RedisRateLimiter, RedisRateStore,
    RefundRefusals, StoreFailure,
};

use escala_observability::Observability;

use super::access::Access;
use super::settings::{Settings, SettingsError};

/// What can be set of the limits.
#[derive(Clone, Debug, clap::Args)]
pub struct RateLimits {
    /// Requests of one client address (of IPv6, of one /64), such as "600/minute" or
    /// "20/second burst 100"; "none" for no limit. The default is twice the documented load, which
    /// comes from one address.
    #[arg(
        long,
        env = "RATE_LIMIT_IP",
        value_name = "RATE_LIMIT_IP",
        default_value = "5000/second burst 10000"
    )]
    pub rate_limit_ip: Allowance,
    /// Requests of one tenant, likewise.
    #[arg(
        long,
        env = "RATE_LIMIT_TENANT",
        value_name = "RATE_LIMIT_TENANT",
        default_value = "5000/second burst 10000"
    )]
    pub rate_limit_tenant: Allowance,
    /// What becomes of requests while Redis does not answer: each process keeps to its share of
    /// the limits, or they are let through, or refused with 503.
    #[arg(
        long,
        env = "RATE_LIMIT_WITHOUT_REDIS",
        value_name = "RATE_LIMIT_WITHOUT_REDIS",
        default_value = "share"
    )]
    pub rate_limit_without_redis: WithoutRedis,
    /// Processes among which the limits are divided then (default: CLUSTER_MAX_WORKERS, so that
    /// together they never give more).
    #[arg(long, env = "RATE_LIMIT_PROCESSES", value_name = "RATE_LIMIT_PROCESSES",
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub rate_limit_processes: Option<u32>,
    /// How long a request waits for Redis to decide, such as "50ms": 1ms to 10s.
    #[arg(long, env = "RATE_LIMIT_TIMEOUT", value_name = "RATE_LIMIT_TIMEOUT",
          default_value = "50ms", value_parser = humantime::parse_duration)]
    pub rate_limit_timeout: Duration,
    /// Networks of the proxies in front, such as "10.0.0.0/8,192.0.2.7": of a request from one of
    /// them, X-Forwarded-For says whose it is, and X-Tenant which tenant's. Anybody else's is not
    /// believed.
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<String>,
}

/// A quota, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance(Option<Quota>);

impl Allowance {
    /// No limit.
    pub const NONE: Self = Self(None);
}

/// Written like `600/minute`, `20/second burst 100`, `none`.
impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "must be like 600/minute, 20/second burst 100 or none";
        if text.trim() == "none" {
            return Ok(Self::NONE);
        }
        let (rate, burst) = match text.split_once("burst") {
            Some((rate, burst)) => (rate, Some(burst.trim().parse().map_err(|_| RULE)?)),
            None => (text, None),
        };
        let (count, unit) = rate.split_once('/').ok_or(RULE)?;
        let count = count.trim().parse().map_err(|_| RULE)?;
        let period = match unit.trim() {
            "second" => 1,
            "minute" => 60,
            "hour" => 60 * 60,
            _ => return Err(RULE.to_owned()),
        };
        let quota = Quota::per(count, Duration::from_secs(period)).burst(burst.unwrap_or(count));
        quota.validate().map_err(|error| error.to_string())?;
        Ok(Self(Some(quota)))
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Quota { count, period, burst, .. }) => {
                write!(f, "{count} each {}s burst {burst}", period.as_secs())
            }
            None => f.write_str("none"),
        }
    }
}

/// What becomes of requests while Redis does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WithoutRedis {
    /// Each process keeps to its share, in memory.
    Share,
    /// They are let through.
    Allow,
    /// They are refused: 503.
    Refuse,
}

impl RateLimits {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        if RedisRateConfig::default().timeout(self.rate_limit_timeout).validate().is_err() {
            let value = humantime::format_duration(self.rate_limit_timeout);
            return Err(SettingsError::new("RATE_LIMIT_TIMEOUT", &value, "must be 1ms to 10s"));
        }
        self.client_ip().map(drop)
    }

    pub(super) fn client_ip(&self) -> Result<ClientIp, SettingsError> {
        let mut client = ClientIp::default();
        for text in &self.trusted_proxies {
            // A single address is a network of one.
            let network = match text.parse::<IpAddr>() {
                Ok(address) => format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }),
                Err(_) => text.clone(),
            };
            let rule = "must be addresses or networks like 10.0.0.0/8";
            let network =
                network.parse().map_err(|_| SettingsError::new("TRUSTED_PROXIES", text, rule))?;
            client = client.trust(network);
        }
        Ok(client)
    }

    fn config(&self, quota: Quota, workers: u32) -> RateLimitConfig {
        RateLimitConfig::new(quota).store_failure(match self.rate_limit_without_redis {
            WithoutRedis::Share => {
                let processes = self.rate_limit_processes.unwrap_or(workers);
                StoreFailure::Local { processes }
            }
            WithoutRedis::Allow => StoreFailure::Allow,
            WithoutRedis::Refuse => StoreFailure::Reject,
        })
    }
}

/// The limits of the server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    address: Option<Limiter>,
    tenant: Option<Limiter>,
    /// Where they are, if all processes share them.
    pub(super) store: Option<RedisRateStore>,
    client: ClientIp,
}

#[derive(Clone, Debug)]
enum Limiter {
    Memory(RateLimiter),
    Redis(RedisRateLimiter),
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let limits = &settings.rate_limits;
        let store = match &settings.redis_url {
            Some(url) => {
                let config = RedisRateConfig::new(url.as_str())
                    .namespace("enterprise")
                    .timeout(limits.rate_limit_timeout);
                Some(RedisRateStore::new(config).context("REDIS_URL")?)
            }
            None => None,
        };
        let limiter = |variable, name: &'static str, allowance: Allowance, missing| {
            let Allowance(Some(quota)) = allowance else { return Ok(None) };
            let config = limits.config(quota, settings.workers().1).missing_key(missing);
            let limiter = match &store {
                Some(store) => RedisRateLimiter::new(name, config, store).map(Limiter::Redis),
                None => RateLimiter::new(name, config).map(Limiter::Memory),
            };
            limiter.map(Some).context(variable)
        };
        Ok(Self {
            address: limiter("RATE_LIMIT_IP", "ip", limits.rate_limit_ip, MissingKey::Share)?,
            // Who belongs to no tenant has the limit of the address.
            tenant: limiter(
                "RATE_LIMIT_TENANT",
                "tenant",
                limits.rate_limit_tenant,
                MissingKey::Skip,
            )?,
            store,
            client: limits.client_ip()?,
        })
    }

    /// Asks Redis once, if the limits are there: a user who may not run scripts would otherwise be
    /// told of by a warning only, while each process keeps limits of its own. One that is only slow
    /// may be well soon.
    pub(super) async fn can_be_asked(&self) -> Result<(), RedisRateError> {
        let Some(store) = &self.store else { return Ok(()) };
        match store.ping().await {
            Err(RedisRateError::TimedOut) => {
                tracing::warn!("redis does not answer in time: rate limits are not shared");
                Ok(())
            }
            answer => answer,
        }
    }

    /// In front of everything that is measured as a request.
    pub(super) fn layer(
        &self,
        access: &Access,
    ) -> RateLimitLayer<Request, AsResponse, RefundRefusals> {
        let mut layer = RateLimitLayer::http();
        if let Some(address) = &self.address {
            layer = layer.limit(address.by(KeyBy::client_ip(self.client.clone())));
        }
        if let Some(tenant) = &self.tenant {
            let access = access.clone();
            let named = move |request: &Request| access.tenant(request.headers());
            layer = layer.limit(tenant.by(KeyBy::from_fn(named)));
        }
        layer
    }

    /// Registers the figures.
    pub(super) fn watch(&self, obs: &Observability) {
        let limits = self.clone();
        obs.source("rate_limit", move |emit| {
            limits.stats().iter().for_each(|limit| limit.visit(emit));
        });
        if let Some(store) = self.store.clone() {
            obs.source("rate_limit_redis", move |emit| store.stats().visit(emit));
        }
    }

    /// The figures of each limit.
    pub(super) fn stats(&self) -> Vec<RateLimitStats> {
        self.address.iter().chain(&self.tenant).map(Limiter::stats).collect()
    }
}

impl Limiter {
    fn by(&self, key: KeyBy<Request>) -> Limit<Request> {
        match self {
            Self::Memory(limiter) => limiter.by(key),
            Self::Redis(limiter) => limiter.by(key),
        }
    }

    fn stats(&self) -> RateLimitStats {
        match self {
            Self::Memory(limiter) => limiter.stats(),
            Self::Redis(limiter) => limiter.stats(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_read_as_it_is_written() {
        let quota = |text: &str| text.parse::<Allowance>().map(|allowance| allowance.0);
        assert_eq!(quota("600/minute"), Ok(Some(Quota::per_minute(600))));
        assert_eq!(quota(" 20 / second burst 100"), Ok(Some(Quota::per_second(20).burst(100))));
        assert_eq!(quota("7/hour burst 1"), Ok(Some(Quota::per_hour(7).burst(1))));
        assert_eq!(quota("none"), Ok(None));
        for wrong in ["", "5", "5/day", "-5/second", "0/second", "5/second burst 0", "x/second"] {
            assert!(quota(wrong).is_err(), "{wrong}");
        }
        assert!(quota("2000000/second").is_err_and(|error| error.contains("microsecond")));
    }

    #[test]
    fn proxies_are_addresses_and_networks() {
        let with = |proxies: &str| {
            let arguments = ["enterprise", "--trusted-proxies", proxies].map(Into::into);
            Settings::read(arguments).expect("settings").rate_limits.client_ip()
        };
        assert_eq!(with("10.0.0.0/8,192.0.2.7,fd00::/8,::1").expect("proxies").trusted.len(), 4);
        for wrong in ["10.0.0.0/33", "proxy.example", "10.0.0"] {
            assert!(with(wrong).expect_err(wrong).to_string().contains(wrong));
        }
    }
}
