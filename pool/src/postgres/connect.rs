//! Opens a connection: finds the host, opens the socket, hands the driver a stream that is tapped.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::net::lookup_host;
use tokio_postgres::Client;
use tokio_postgres::config::{Config, Host, SslMode, SslNegotiation};

use super::socket::{Address, Socket, TcpOptions};
use super::stream::{Done, Stream};
use super::tap::Tap;
use super::wire::Wire;
use crate::event;

/// A cause that is only shown.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a server cannot be used. `source` is the cause: the driver's
/// [`Error`](tokio_postgres::Error) or an [`io::Error`].
#[derive(Debug)]
pub struct ServerError {
    /// Host and address, as far as they are known.
    server: String,
    cause: BoxError,
}

impl ServerError {
    pub(super) fn new(server: impl fmt::Display, cause: impl Into<BoxError>) -> Self {
        Self { server: server.to_string(), cause: cause.into() }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server at {} cannot be used", self.server)
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// One address of a server, and how to speak to it: what a second connection to the very same
/// server needs.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    tcp: Arc<TcpOptions>,
}

impl Endpoint {
    /// Opens a stream on which the protocol can begin.
    pub(super) async fn open(&self) -> Result<Stream, BoxError> {
        Ok(Stream::Plain(Socket::connect(&self.address, &self.tcp).await?))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A connection that is open.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) task: tokio::task::AbortHandle,
    pub(super) wire: Arc<Wire>,
    pub(super) endpoint: Endpoint,
}

/// Where the servers are and who we are to them.
pub(super) struct Connector {
    config: Config,
    tcp: Arc<TcpOptions>,
}

impl Connector {
    pub(super) fn new(mut config: Config, tcp: TcpOptions) -> Self {
        // See `Done`: this makes the driver take the stream as it is.
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        Self { config, tcp: Arc::new(tcp) }
    }

    /// Tries every address of every host in turn; the error is that of the last.
    pub(super) async fn connect(&self) -> Result<Connected, ServerError> {
        let mut failure = None;
        for index in 0..self.config.get_hosts().len().max(self.config.get_hostaddrs().len()) {
            match self.connect_host(index).await {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| ServerError::new("no host", "no host is named")))
    }

    async fn connect_host(&self, index: usize) -> Result<Connected, ServerError> {
        let ports = self.config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let addresses = match (self.config.get_hostaddrs().get(index), self.config.get_hosts()) {
            (Some(ip), _) => vec![Address::Tcp((*ip, port).into())],
            (None, hosts) => resolve(&hosts[index], port).await?,
        };
        let mut failure = None;
        for address in addresses {
            match self.connect_address(Endpoint { address, tcp: Arc::clone(&self.tcp) }).await {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| ServerError::new("the host", "it has no address")))
    }

    async fn connect_address(&self, endpoint: Endpoint) -> Result<Connected, ServerError> {
        let failed = |cause: BoxError| ServerError::new(&endpoint, cause);
        let stream = endpoint.open().await.map_err(failed)?;
        let (tap, wire) = Tap::new(stream);
        let connected = self.config.connect_raw(tap, Done).await;
        let (client, connection) = connected.map_err(|error| failed(error.into()))?;
        // It ends with the client, or with the server: then every caller learns it by its own call.
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                event::connection_lost(&error);
            }
        });
        Ok(Connected { client, task: task.abort_handle(), wire, endpoint })
    }
}

async fn resolve(host: &Host, port: u16) -> Result<Vec<Address>, ServerError> {
    match host {
        Host::Tcp(name) => {
            let failed = |error: io::Error| ServerError::new(format!("{name}:{port}"), error);
            let found = lookup_host((name.as_str(), port)).await.map_err(failed)?;
            Ok(found.map(Address::Tcp).collect())
        }
        #[cfg(unix)]
        Host::Unix(folder) => Ok(vec![Address::Unix(folder.join(format!(".s.PGSQL.{port}")))]),
    }
}
