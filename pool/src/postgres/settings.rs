//! What the parameters of a connection string mean.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, Config, Host};

use super::socket::TcpOptions;
use super::url;
use crate::config::ConfigError;

/// What libpq leaves at the system's two hours; a firewall forgets sooner.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Data that the peer does not acknowledge for so long means that it is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Parameters of libpq that are not implemented: named in errors, which an unknown word, perhaps a
/// part of a password, is not.
const UNSUPPORTED: [&str; 25] = [
    "client_encoding",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslpassword",
    "sslsni",
];

/// A checked connection string.
pub(super) struct Settings {
    /// What the driver needs to know: who we are.
    pub(super) driver: Config,
    pub(super) hosts: Vec<HostPort>,
    /// Hosts, and the addresses of each, are tried in random order.
    pub(super) shuffle: bool,
    pub(super) role: Role,
    /// The longest time for one address.
    pub(super) connect_timeout: Option<Duration>,
    pub(super) tcp: TcpOptions,
    pub(super) tls: TlsSettings,
}

/// One host of the string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort {
    /// `None` if only an address is given.
    pub(super) host: Option<Host>,
    /// Saves the resolving of the name.
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
}

/// `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Role {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// `sslmode`, from no TLS at all to a checked name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum SslMode {
    Disable,
    Allow,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whom the client trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// `system`: those of the operating system.
    System,
    /// A file of PEM certificates.
    File(PathBuf),
}

/// All about TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsSettings {
    pub(super) mode: SslMode,
    pub(super) roots: Option<Roots>,
    /// Files of the client's certificates and key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// TLS from the first byte, without asking the server.
    pub(super) direct: bool,
}

impl Settings {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut raw = Raw::default();
        for (key, value) in url::parse(text)? {
            raw.set(&key, value)?;
        }
        raw.check()
    }
}

/// The parameters as they come, one by one.
#[derive(Default)]
struct Raw {
    driver: Config,
    hosts: Vec<String>,
    ips: Vec<String>,
    ports: Vec<String>,
    shuffle: bool,
    role: Role,
    connect_timeout: Option<Duration>,
    tcp: TcpOptions,
    mode: Option<SslMode>,
    roots: Option<Roots>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    direct: bool,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            keepalive: Some(KEEPALIVE_IDLE),
            keepalive_interval: None,
            keepalive_retries: None,
            user_timeout: TCP_USER_TIMEOUT,
        }
    }
}

impl Raw {
    fn set(&mut self, key: &str, value: String) -> Result<(), ConfigError> {
        match key {
            "user" => drop(self.driver.user(value)),
            "password" => drop(self.driver.password(value)),
            "dbname" => drop(self.driver.dbname(value)),
            "options" => drop(self.driver.options(value)),
            "application_name" | "fallback_application_name" => {
                if key == "application_name" || self.driver.get_application_name().is_none() {
                    self.driver.application_name(value);
                }
            }
            "host" => self.hosts = list(&value),
            "hostaddr" => self.ips = list(&value),
            "port" => self.ports = list(&value),
            "load_balance_hosts" => {
                self.shuffle = one_of("load_balance_hosts", &value, LOAD_BALANCE)?;
            }
            "target_session_attrs" => self.role = one_of("target_session_attrs", &value, ROLES)?,
            "channel_binding" => {
                self.driver.channel_binding(one_of("channel_binding", &value, BINDINGS)?);
            }
            "sslmode" => self.mode = Some(one_of("sslmode", &value, MODES)?),
            "sslnegotiation" => self.direct = one_of("sslnegotiation", &value, NEGOTIATIONS)?,
            "sslrootcert" if value == "system" => self.roots = Some(Roots::System),
            "sslrootcert" => self.roots = Some(Roots::File(value.into())),
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            _ => self.set_number(key, &value)?,
        }
        Ok(())
    }

    /// Numbers; zero and less mean the default, as in libpq.
    fn set_number(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        match key {
            "connect_timeout" => {
                self.connect_timeout =
                    number("connect_timeout", value)?.map(|s| Duration::from_secs(s.into()));
            }
            "keepalives" => {
                if number("keepalives", value)?.is_none() {
                    self.tcp.keepalive = None;
                }
            }
            "keepalives_idle" => {
                if let Some(seconds) = number("keepalives_idle", value)? {
                    // `keepalives=0` wins, wherever it stands.
                    self.tcp.keepalive =
                        self.tcp.keepalive.map(|_| Duration::from_secs(seconds.into()));
                }
            }
            "keepalives_interval" => {
                self.tcp.keepalive_interval =
                    number("keepalives_interval", value)?.map(|s| Duration::from_secs(s.into()));
            }
            // libpq's name, and the driver's.
            "keepalives_count" | "keepalives_retries" => {
                self.tcp.keepalive_retries = number("keepalives_count", value)?;
            }
            "tcp_user_timeout" => {
                if let Some(millis) = number("tcp_user_timeout", value)? {
                    self.tcp.user_timeout = Duration::from_millis(millis.into());
                }
            }
            _ => {
                let named = UNSUPPORTED.iter().find(|name| **name == key);
                return Err(match named {
                    Some(name) => ConfigError::new("url", *name, "is not supported here"),
                    None => ConfigError::new("url", "[hidden]", "has a parameter that is unknown"),
                });
            }
        }
        Ok(())
    }

    /// What the parameters must fulfil together.
    fn check(self) -> Result<Settings, ConfigError> {
        let hosts = self.hosts()?;
        let client = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return refuse("sslcert", "needs sslkey"),
            (None, Some(_)) => return refuse("sslkey", "needs sslcert"),
        };
        // The rules of libpq. A mode that is asked for with certificates to trust is not meant to
        // trust everybody.
        let system = self.roots == Some(Roots::System);
        let mode = match self.mode {
            None if system => SslMode::VerifyFull,
            None => SslMode::default(),
            Some(SslMode::Require) if self.roots.is_some() && !system => SslMode::VerifyCa,
            Some(mode) => mode,
        };
        if system && mode < SslMode::VerifyFull {
            // Anybody can get a certificate for a name of their own.
            return refuse("sslrootcert=system", "needs sslmode=verify-full");
        }
        if mode == SslMode::VerifyCa && self.roots.is_none() {
            return refuse("sslmode=verify-ca", "needs sslrootcert");
        }
        if self.direct && mode < SslMode::Require {
            return refuse("sslnegotiation=direct", "needs sslmode=require or more");
        }
        let tls = TlsSettings { mode, roots: self.roots, client, direct: self.direct };
        Ok(Settings {
            driver: self.driver,
            hosts,
            shuffle: self.shuffle,
            role: self.role,
            connect_timeout: self.connect_timeout,
            tcp: self.tcp,
            tls,
        })
    }

    fn hosts(&self) -> Result<Vec<HostPort>, ConfigError> {
        let count = self.hosts.len().max(self.ips.len());
        if count == 0 {
            return Err(ConfigError::new("url", "[hidden]", "must name a host"));
        }
        for (name, list) in [("host", &self.hosts), ("hostaddr", &self.ips)] {
            if !list.is_empty() && list.len() != count {
                return refuse(name, "must name as many as the other of host and hostaddr");
            }
        }
        if self.ports.len() > 1 && self.ports.len() != count {
            return refuse("port", "must be one, or one for each host");
        }
        (0..count).map(|index| self.host(index)).collect()
    }

    fn host(&self, index: usize) -> Result<HostPort, ConfigError> {
        let host = self.hosts.get(index).filter(|name| !name.is_empty());
        let ip = self.ips.get(index).filter(|ip| !ip.is_empty());
        if host.is_none() && ip.is_none() {
            return Err(ConfigError::new("url", "[hidden]", "must name a host"));
        }
        let port = self.ports.get(index).or(self.ports.first()).map_or("", String::as_str);
        Ok(HostPort {
            host: host.map(|name| host_of(name)),
            ip: match ip.map(|ip| ip.parse()) {
                None => None,
                Some(Ok(ip)) => Some(ip),
                Some(Err(_)) => return refuse("hostaddr", "must be an IP address"),
            },
            port: match port {
                "" => 5432,
                port => match port.parse() {
                    Ok(port @ 1..) => port,
                    _ => return refuse("port", "must be between 1 and 65535"),
                },
            },
        })
    }
}

fn host_of(name: &str) -> Host {
    #[cfg(unix)]
    if name.starts_with('/') {
        return Host::Unix(name.into());
    }
    Host::Tcp(name.to_owned())
}

type Choices<T> = &'static [(&'static str, T)];

const LOAD_BALANCE: Choices<bool> = &[("disable", false), ("random", true)];
const NEGOTIATIONS: Choices<bool> = &[("postgres", false), ("direct", true)];
const BINDINGS: Choices<ChannelBinding> = &[
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];
const ROLES: Choices<Role> = &[
    ("any", Role::Any),
    ("read-write", Role::ReadWrite),
    ("read-only", Role::ReadOnly),
    ("primary", Role::Primary),
    ("standby", Role::Standby),
    ("prefer-standby", Role::PreferStandby),
];
const MODES: Choices<SslMode> = &[
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// The value is not shown: it may be a part of a password behind a misplaced `&`.
fn one_of<T: Copy>(name: &'static str, value: &str, choices: Choices<T>) -> Result<T, ConfigError> {
    let found = choices.iter().find(|(word, _)| *word == value);
    found.map_or_else(
        || refuse(name, "must be one of the words that libpq knows"),
        |(_, choice)| Ok(*choice),
    )
}

fn number(name: &'static str, value: &str) -> Result<Option<u32>, ConfigError> {
    match value.trim().parse::<i32>() {
        Ok(number) => Ok(u32::try_from(number).ok().filter(|number| *number > 0)),
        Err(_) => refuse(name, "must be a whole number"),
    }
}

fn list(value: &str) -> Vec<String> {
    if value.is_empty() { Vec::new() } else { value.split(',').map(str::to_owned).collect() }
}

fn refuse<T>(parameter: &'static str, rule: &'static str) -> Result<T, ConfigError> {
    Err(ConfigError::new("url", parameter, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Settings, ConfigError> {
        Settings::parse(&format!("postgres://app:hunter2@db/shop?{query}"))
    }

    #[test]
    fn parameters_mean_what_they_mean_to_libpq() {
        let settings = read("").unwrap();
        assert_eq!(settings.driver.get_user(), Some("app"));
        assert_eq!(settings.driver.get_password(), Some(&b"hunter2"[..]));
        assert_eq!(settings.driver.get_dbname(), Some("shop"));
        let host = HostPort { host: Some(Host::Tcp("db".into())), ip: None, port: 5432 };
        assert_eq!(settings.hosts, [host]);
        assert_eq!(settings.tls, TlsSettings::default());
        assert_eq!((settings.role, settings.shuffle), (Role::Any, false));
        let timeouts = (settings.tcp.keepalive, settings.tcp.user_timeout);
        assert_eq!(timeouts, (Some(KEEPALIVE_IDLE), TCP_USER_TIMEOUT));

        let settings = read(
            "host=a,/run/pg&hostaddr=10.0.0.1,::1&port=1,&load_balance_hosts=random\
             &target_session_attrs=prefer-standby&connect_timeout=3&keepalives=0\
             &keepalives_idle=9&keepalives_count=4&tcp_user_timeout=2500",
        )
        .unwrap();
        let unix = Host::Unix("/run/pg".into());
        assert_eq!(
            settings.hosts,
            [
                HostPort {
                    host: Some(Host::Tcp("a".into())),
                    ip: Some("10.0.0.1".parse().unwrap()),
                    port: 1
                },
                HostPort { host: Some(unix), ip: Some("::1".parse().unwrap()), port: 5432 },
            ]
        );
        assert_eq!((settings.role, settings.shuffle), (Role::PreferStandby, true));
        assert_eq!(settings.connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!((settings.tcp.keepalive, settings.tcp.keepalive_retries), (None, Some(4)));
        assert_eq!(settings.tcp.user_timeout, Duration::from_millis(2_500));
    }

    #[test]
    fn certificates_to_trust_are_not_ignored() {
        for (query, mode) in [
            ("sslmode=disable", SslMode::Disable),
            ("sslmode=allow", SslMode::Allow),
            ("sslmode=require", SslMode::Require),
            ("sslmode=require&sslrootcert=ca.pem", SslMode::VerifyCa),
            ("sslrootcert=ca.pem&sslmode=verify-ca", SslMode::VerifyCa),
            ("sslmode=verify-full", SslMode::VerifyFull),
            ("sslrootcert=system", SslMode::VerifyFull),
            ("sslrootcert=ca.pem", SslMode::Prefer),
        ] {
            assert_eq!(read(query).unwrap().tls.mode, mode, "{query}");
        }
    }

    #[test]
    fn what_makes_no_sense_names_the_parameter_and_no_secret() {
        for (query, named) in [
            ("sslmode=hunter2", "sslmode: must"),
            ("sslmode=verify-ca", "sslmode=verify-ca: needs sslrootcert"),
            ("sslrootcert=system&sslmode=require", "sslrootcert=system: needs"),
            ("sslnegotiation=direct", "sslnegotiation=direct: needs"),
            ("sslcert=a", "sslcert: needs sslkey"),
            ("sslkey=a", "sslkey: needs sslcert"),
            ("channel_binding=hunter2", "channel_binding: "),
            ("target_session_attrs=hunter2", "target_session_attrs: "),
            ("connect_timeout=hunter2", "connect_timeout: "),
            ("port=0", "port: must be between"),
            ("port=1,2", "port: must be one"),
            ("hostaddr=hunter2", "hostaddr: must be an IP address"),
            ("host=a,b&hostaddr=::1", "hostaddr: must name as many"),
            ("host=", "must name a host"),
            ("host=a,", "must name a host"),
            ("sslcrl=x", "sslcrl: is not supported"),
            ("hunter2=x", "[hidden]: has a parameter that is unknown"),
        ] {
            let error = read(query).err().unwrap();
            let shown = format!("{error}{error:?}");
            assert!(shown.contains(named) && !shown.contains("hunter2"), "{query}: {shown}");
        }
    }
}
