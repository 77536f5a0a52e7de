//! What can be set, on the command line or in the environment.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::{Authority, Scheme};
use clap::{Parser, ValueEnum};

use crate::enterprise::Secret;

/// A caching reverse proxy of HTTP/1.1 that obeys RFC 9111.
///
/// It keeps what the origin says may be kept, in memory and with --redis also in Redis, and passes
/// everything else through as it streams.
#[derive(Clone, Parser)]
#[command(name = "cache-proxy", version, next_line_help = false)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one and prints it.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The server behind the proxy: http, host and port.
    #[arg(long, value_name = "URL", value_parser = origin)]
    pub origin: Origin,

    /// How much of what RFC 9111 allows is done: `rfc` everything that a shared cache may, `safe`
    /// what no application is surprised by.
    #[arg(long, value_name = "PROFILE", default_value = "safe")]
    pub profile: Profile,
    /// Most responses that are kept in memory.
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub max_entries: u64,
    /// Longest body that is stored, in bytes; a longer one is passed through.
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024)]
    pub max_body: usize,
    /// Redis as the cache's second layer, which proxies share.
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// Bearer token of the PURGE method; absent: nobody may purge.
    #[arg(
        long,
        env = "CACHE_PROXY_PURGE_TOKEN",
        value_name = "CACHE_PROXY_PURGE_TOKEN",
        hide_env_values = true
    )]
    pub purge_token: Option<Secret>,

    /// Longest silence of the origin: until the head of its response, and between two parts of the
    /// body.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub origin_timeout: Duration,
    /// Longest time to connect to the origin.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    pub connect_timeout: Duration,
    /// Threads that serve (default: one a CPU).
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

/// How much of what RFC 9111 allows is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Profile {
    /// What no application is surprised by.
    Safe,
    /// Everything that a shared cache may do.
    Rfc,
}

/// The server behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

/// Without the URL of Redis, which may hold a password.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("origin", &self.origin)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads arguments and environment; an empty variable counts as absent.
    ///
    /// # Errors
    /// clap's, whose text names option, value and rule (also holds `--help` and `--version`).
    pub fn read(
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, clap::Error> {
        let mut settings = Self::try_parse_from(arguments)?;
        if settings.redis.as_deref().is_some_and(str::is_empty) {
            settings.redis = None;
        }
        if settings.purge_token.as_ref().is_some_and(|token| token.reveal().is_empty()) {
            settings.purge_token = None;
        }
        Ok(settings)
    }
}

fn origin(text: &str) -> Result<Origin, String> {
    let uri: Uri = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    let parts = uri.into_parts();
    let scheme = parts.scheme.filter(|scheme| *scheme == Scheme::HTTP);
    let scheme = scheme.ok_or("must begin with http://")?;
    let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
    let authority = authority.ok_or("must have a host, and no user")?;
    match parts.path_and_query {
        Some(path) if path != "/" => Err("must have no path: that of the request is used".into()),
        _ => Ok(Origin { scheme, authority }),
    }
}

/// A time that is not zero: a timeout of zero would fail every request.
fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() { Err("must be longer than zero".into()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<Settings, String> {
        let arguments = std::iter::once("cache-proxy").chain(arguments.split_whitespace());
        Settings::read(arguments.map(Into::into)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        let settings = read("--origin http://127.0.0.1:3000/").unwrap();
        assert_eq!(settings.origin.authority, "127.0.0.1:3000");
        assert_eq!(settings.profile, Profile::Safe);
        for (bad, rule) in [
            ("127.0.0.1:3000", "must begin with http://"),
            ("https://127.0.0.1", "must begin with http://"),
            ("http://user@127.0.0.1", "no user"),
            ("http://127.0.0.1/path", "must have no path"),
            ("http://", "is no URL"),
        ] {
            let error = read(&format!("--origin {bad}")).unwrap_err();
            assert!(error.contains(rule) && error.contains(bad), "{bad}: {error}");
        }
        assert!(read("").unwrap_err().contains("--origin"));
    }

    #[test]
    fn times_and_tokens_that_cannot_be_are_refused_and_a_token_is_not_shown() {
        let error = read("--origin http://a --origin-timeout 0s").unwrap_err();
        assert!(error.contains("longer than zero"), "{error}");
        let settings = read("--origin http://a --purge-token hunter2").unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(read("--origin http://a --purge-token=").unwrap().purge_token.is_none());
    }
}
