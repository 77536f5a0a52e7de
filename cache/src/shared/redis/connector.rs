//! How a connection to Redis is opened: by an address, by asking the sentinels, by any node.

use std::time::Duration;

use ::redis::aio::{AsyncPushSender, MultiplexedConnection};
use ::redis::cluster::{ClusterClient, ClusterClientBuilder};
use ::redis::io::tcp::TcpSettings;
use ::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion,
    RedisError, Value,
};

use super::ConnectError;
#[cfg(feature = "redis-tls")]
use super::config::is_encrypted;
use super::config::{RedisConfig, Topology, parse};
use super::server::Share;

/// Nodes of a cluster that are remembered. Any one of them will do.
const MOST_NODES: usize = 64;

/// Opens connections, each time to whoever is the right server by then.
pub(super) struct Connector {
    origin: Origin,
    timeout: Duration,
}

enum Origin {
    Server(Box<Client>),
    Sentinels {
        client: Box<SentinelClient>,
        count: u32,
    },
    /// Any node of a cluster, one after the other.
    Nodes {
        clients: Vec<Client>,
        next: usize,
    },
}

impl Connector {
    pub(super) fn new(config: &RedisConfig) -> Result<Self, ConnectError> {
        let origin = match &config.topology {
            Topology::Standalone => Origin::Server(Box::new(client(&config.url, config)?)),
            Topology::Sentinel { master } => Origin::Sentinels {
                client: Box::new(sentinels(master, config)?),
                count: u32::try_from(config.nodes.len()).unwrap_or(u32::MAX),
            },
            Topology::Cluster => {
                let clients = config.nodes.iter().map(|url| client(url, config));
                Origin::Nodes { clients: clients.collect::<Result<_, _>>()?, next: 0 }
            }
        };
        Ok(Self { origin, timeout: config.connect_timeout })
    }

    /// Opens a connection that hands what the server says unasked, and its own end, to `pushes`.
    pub(super) async fn open(
        &mut self,
        pushes: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, RedisError> {
        let patience = self.patience();
        let open = tokio::time::timeout(patience, self.attempt(pushes));
        open.await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// How long an answer on an open connection may take.
    pub(super) fn limit(&self) -> Duration {
        self.timeout
    }

    /// How long an attempt to open one may take: with Sentinel, each of them may be away and the last one
    /// know the primary, which is then asked for its role.
    fn patience(&self) -> Duration {
        match &self.origin {
            Origin::Server(_) | Origin::Nodes { .. } => self.timeout,
            Origin::Sentinels { count, .. } => self.timeout.saturating_mul(count.saturating_add(2)),
        }
    }

    /// Adds nodes of a cluster: those that were named at the start may all be away.
    pub(super) fn learn(&mut self, shares: Vec<Share>) {
        let Origin::Nodes { clients, .. } = &mut self.origin else { return };
        let Some(pattern) = clients.first().map(|client| client.get_connection_info().clone())
        else {
            return;
        };
        for share in shares {
            let Share::Node { host, port } = share else { continue };
            let addr = match pattern.addr() {
                ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                    host,
                    port,
                    insecure: *insecure,
                    tls_params: tls_params.clone(),
                },
                _ => ConnectionAddr::Tcp(host, port),
            };
            let known = clients.iter().any(|client| *client.get_connection_info().addr() == addr);
            if !known
                && clients.len() < MOST_NODES
                && let Ok(client) = Client::open(pattern.clone().set_addr(addr))
            {
                clients.push(client);
            }
        }
    }

    async fn attempt(
        &mut self,
        pushes: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, RedisError> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            // The one timeout is ours, around each operation.
            .set_response_timeout(None)
            // The client's 50 make callers wait for room at a hundred at once.
            .set_pipeline_buffer_size(1024)
            .set_push_sender(pushes);
        match &mut self.origin {
            Origin::Server(client) => {
                client.get_multiplexed_async_connection_with_config(&settings).await
            }
            Origin::Sentinels { client, .. } => {
                client.get_async_connection_with_config(&settings).await
            }
            Origin::Nodes { clients, next } => {
                // Moved on before the attempt, which may be dropped when its time is over.
                let client = clients[*next % clients.len()].clone();
                *next = next.wrapping_add(1);
                client.get_multiplexed_async_connection_with_config(&settings).await
            }
        }
    }

    /// The question that shows whether a connection is alive and to the right server. A primary
    /// that Sentinel has replaced may still answer, as a replica.
    pub(super) fn sign_of_life(&self) -> SignOfLife {
        match self.origin {
            Origin::Sentinels { .. } => SignOfLife::Role,
            Origin::Server(_) | Origin::Nodes { .. } => SignOfLife::Any,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum SignOfLife {
    Any,
    Role,
}

impl SignOfLife {
    /// Asks, and waits for at most `timeout`.
    pub(super) async fn shown_by(
        self,
        connection: &mut MultiplexedConnection,
        timeout: Duration,
    ) -> bool {
        let question: Cmd = ::redis::cmd(match self {
            Self::Any => "PING",
            Self::Role => "ROLE",
        });
        let answer = question.query_async::<Value>(connection);
        match (tokio::time::timeout(timeout, answer).await, self) {
            (Ok(Ok(Value::Array(role))), Self::Role) => {
                role.first() == Some(&Value::BulkString(b"master".to_vec()))
            }
            (Ok(Ok(_)), _) => true,
            // A refusal, for want of a right say, is a sign of life as well.
            (Ok(Err(error)), _) => !error.is_unrecoverable_error(),
            (Err(_), _) => false,
        }
    }
}

/// A client of a whole cluster.
pub(super) fn cluster(config: &RedisConfig) -> Result<ClusterClient, ConnectError> {
    let mut infos = Vec::new();
    for url in &config.nodes {
        infos.push(info(url, config)?);
    }
    let builder = ClusterClientBuilder::new(infos)
        .use_protocol(ProtocolVersion::RESP3)
        .tcp_settings(tcp_settings())
        .connection_timeout(config.connect_timeout)
        .response_timeout(config.connect_timeout)
        // Our limit on an operation leaves no time for more; the defaults wait for over a second.
        .retries(2)
        .min_retry_wait(5)
        .max_retry_wait(50);
    #[cfg(feature = "redis-tls")]
    let builder = if config.nodes.iter().any(|url| rediss(url)) {
        builder.certs(certificates(config)?)
    } else {
        builder
    };
    builder.build().map_err(unreachable)
}

fn client(url: &str, config: &RedisConfig) -> Result<Client, ConnectError> {
    let info = info(url, config)?;
    #[cfg(feature = "redis-tls")]
    if is_encrypted(&info) {
        return Client::build_with_tls(info, certificates(config)?).map_err(unreachable);
    }
    Client::open(info).map_err(unreachable)
}

fn sentinels(master: &str, config: &RedisConfig) -> Result<SentinelClient, ConnectError> {
    let infos: Vec<_> = config.nodes.iter().filter_map(|url| parse(url)).collect();
    let Some(first) = infos.first() else { return Err(unreadable()) };
    let addresses = infos.iter().map(|info| info.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)
        .map_err(unreachable)?
        .set_client_to_redis_protocol(ProtocolVersion::RESP3)
        .set_client_to_redis_db(first.redis_settings().db())
        .set_client_to_redis_tcp_settings(tcp_settings())
        .set_client_to_sentinel_tcp_settings(tcp_settings());
    if let Some(username) = first.redis_settings().username() {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = first.redis_settings().password() {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(username) = &config.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &config.password {
        builder = builder.set_client_to_redis_password(password);
    }
    #[cfg(feature = "redis-tls")]
    if is_encrypted(first) {
        let certificates = certificates(config)?;
        builder = builder
            .set_client_to_redis_tls_mode(::redis::TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build().map_err(unreachable)
}

fn info(url: &str, config: &RedisConfig) -> Result<ConnectionInfo, ConnectError> {
    let info = parse(url).ok_or_else(unreadable)?;
    let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    if let Some(username) = &config.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &config.password {
        settings = settings.set_password(password);
    }
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings()))
}

#[cfg(feature = "redis-tls")]
fn rediss(url: &str) -> bool {
    parse(url).is_some_and(|info| is_encrypted(&info))
}

#[cfg(feature = "redis-tls")]
fn certificates(config: &RedisConfig) -> Result<::redis::TlsCertificates, ConnectError> {
    super::tls::install_provider();
    super::tls::certificates(&config.tls).map_err(ConnectError::Certificates)
}

/// Answers are small and waited for, so Nagle's algorithm (on by default in this client) would
/// only hold them back. Data without an acknowledgement for two seconds ends the connection: a
/// way that swallows packets otherwise stays open for a quarter of an hour.
fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(2));
    settings
}

pub(super) fn unreachable(error: RedisError) -> ConnectError {
    const REFUSALS: [&str; 3] = ["WRONGPASS", "NOAUTH", "NOPERM"];
    // The client of a cluster wraps what a node has said into a text.
    let text = error.to_string();
    let refused = error.kind() == ErrorKind::AuthenticationFailed
        || error.code().is_some_and(|code| REFUSALS.contains(&code))
        || REFUSALS.iter().any(|code| text.contains(code));
    if refused {
        ConnectError::Denied(error.into())
    } else if error.is_timeout() {
        ConnectError::TimedOut
    } else {
        ConnectError::Unreachable(error.into())
    }
}

/// Only for what validation has let through.
fn unreadable() -> ConnectError {
    ConnectError::Unreachable("an address cannot be read".into())
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
