//! Opens a connection: tries hosts, addresses and encryption in turn, and hands the driver a
//! stream that is tapped.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::{Config, Host, SslMode as DriverMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Connection, SimpleQueryMessage};

use super::endpoint::{Encryption, Endpoint};
use super::error::{BoxError, Refusal, ServerError};
use super::listen::Mailbox;
use super::settings::{HostPort, Role, Settings, SslMode};
use super::socket::{Address, TcpOptions};
use super::stream::Done;
use super::tap::Tap;
use super::tls::Tls;
use super::wire::Wire;
use crate::config::ConfigError;
use crate::event;

/// A connection that is open.
pub(super) struct Connected {
    pub(super) client: Client,
    /// The task that drives the socket.
    pub(super) task: AbortHandle,
    pub(super) wire: Arc<Wire>,
    pub(super) endpoint: Endpoint,
    /// The [port](super::socket::Socket::port) at this end.
    pub(super) port: Option<u16>,
    /// Where its notifications go.
    pub(super) mailbox: Arc<Mailbox>,
}

/// Where the servers are and who we are to them.
pub(super) struct Connector {
    driver: Config,
    hosts: Vec<HostPort>,
    shuffle: bool,
    role: Role,
    tcp: Arc<TcpOptions>,
    mode: SslMode,
    direct: bool,
    /// `None` where no TLS is wanted.
    tls: Option<Tls>,
    /// For one address, if the string says so.
    address_timeout: Option<Duration>,
    /// For all of them together.
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(settings: Settings, timeout: Duration) -> Result<Self, ConfigError> {
        let mode = settings.tls.mode;
        let tls = if mode == SslMode::Disable { None } else { Tls::new(&settings.tls)? };
        let mut driver = settings.driver;
        // See `Done`: this makes the driver take the stream as it is.
        driver.ssl_mode(DriverMode::Require).ssl_negotiation(SslNegotiation::Direct);
        Ok(Self {
            driver,
            hosts: settings.hosts,
            shuffle: settings.shuffle,
            role: settings.role,
            tcp: Arc::new(settings.tcp),
            mode,
            direct: settings.tls.direct,
            tls,
            address_timeout: settings.connect_timeout,
            timeout,
        })
    }

    /// Tries every address of every host until one answers that has the wanted role. The error is
    /// the one that tells most, the last of several.
    pub(super) async fn connect(&self) -> Result<Connected, ServerError> {
        let deadline = Instant::now() + self.timeout;
        if self.role != Role::PreferStandby {
            return self.round(self.role, deadline).await;
        }
        // Half of the time is left for the second look, should all of them be silent.
        match self.round(Role::Standby, share(deadline, 2)).await {
            Err(first) if !first.is_final() => {
                let second = self.round(Role::Any, deadline).await;
                second.map_err(|second| ServerError::worse(Some(first), second))
            }
            result => result,
        }
    }

    /// One more connection to where there is one already, of whatever role.
    pub(super) async fn connect_again(&self, endpoint: Endpoint) -> Result<Connected, ServerError> {
        let server = endpoint.to_string();
        let connect = self.connect_endpoint(endpoint, Role::Any);
        within(Instant::now() + self.timeout, &server, connect).await
    }

    async fn round(&self, role: Role, deadline: Instant) -> Result<Connected, ServerError> {
        let mut hosts: Vec<_> = self.hosts.iter().collect();
        if self.shuffle {
            fastrand::shuffle(&mut hosts);
        }
        let mut worst: Option<ServerError> = None;
        for (index, host) in hosts.iter().enumerate() {
            // A host that does not answer leaves the others their share of the time.
            let share = share(deadline, hosts.len() - index);
            match self.connect_host(host, role, share).await {
                Err(error) if !error.is_final() => {
                    worst = Some(ServerError::worse(worst, error));
                }
                result => return result,
            }
        }
        Err(worst.unwrap_or_else(|| ServerError::new("no host", Refusal::NoAddress)))
    }

    async fn connect_host(
        &self,
        host: &HostPort,
        role: Role,
        deadline: Instant,
    ) -> Result<Connected, ServerError> {
        let mut addresses = within(deadline, &host_name(host), resolve(host)).await?;
        if self.shuffle {
            fastrand::shuffle(&mut addresses);
        }
        let mut worst: Option<ServerError> = None;
        let count = addresses.len();
        for (index, address) in addresses.into_iter().enumerate() {
            let mut share = share(deadline, count - index);
            if let Some(timeout) = self.address_timeout {
                share = share.min(Instant::now() + timeout);
            }
            let server = server_name(host, &address);
            let connect = self.connect_address(host, address, role);
            match within(share, &server, connect).await {
                Err(error) if !error.is_final() => {
                    worst = Some(ServerError::worse(worst, error));
                }
                result => return result,
            }
        }
        Err(worst.unwrap_or_else(|| ServerError::new(host_name(host), Refusal::NoAddress)))
    }

    /// With and without TLS, as the mode has it.
    async fn connect_address(
        &self,
        host: &HostPort,
        address: Address,
        role: Role,
    ) -> Result<Connected, BoxError> {
        let plain = Encryption::None;
        let mut endpoint = Endpoint { address, tcp: Arc::clone(&self.tcp), encryption: plain };
        let Some(encrypted) = self.encryption(host, &endpoint.address) else {
            return self.connect_endpoint(endpoint, role).await;
        };
        let (first, second) = match self.mode {
            SslMode::Allow => (Encryption::None, Some(encrypted)),
            SslMode::Prefer => (encrypted, Some(Encryption::None)),
            _ => (encrypted, None),
        };
        endpoint.encryption = first;
        let (error, second) = match (self.connect_endpoint(endpoint.clone(), role).await, second) {
            (Err(error), Some(second)) if is_about_encryption(&error) => (error, second),
            (result, _) => return result,
        };
        endpoint.encryption = second;
        match self.connect_endpoint(endpoint, role).await {
            // That it must not be done without TLS either is no news.
            Err(again) if self.mode == SslMode::Prefer && is_about_encryption(&again) => Err(error),
            result => result,
        }
    }

    /// How to encrypt; `None` where that is not wanted, or has no sense.
    fn encryption(&self, host: &HostPort, address: &Address) -> Option<Encryption> {
        let tls = self.tls.clone()?;
        let name = match (&host.host, address) {
            (Some(Host::Tcp(name)), Address::Tcp(_)) => name.clone(),
            (_, Address::Tcp(address)) => address.ip().to_string(),
            // No TLS on Unix sockets: PostgreSQL does not offer any.
            #[cfg(unix)]
            (_, Address::Unix(_)) => return None,
        };
        let required = self.mode >= SslMode::Require;
        Some(Encryption::Tls { tls, name: name.into(), required, direct: self.direct })
    }

    async fn connect_endpoint(
        &self,
        endpoint: Endpoint,
        role: Role,
    ) -> Result<Connected, BoxError> {
        let (stream, port) = endpoint.open().await?;
        let (tap, wire) = Tap::new(stream);
        let (client, connection) = self.driver.connect_raw(tap, Done).await?;
        // It ends with the client, or with the server: then every caller learns it by its own call.
        let mailbox = Arc::new(Mailbox::default());
        let task = tokio::spawn(drive(connection, Arc::clone(&mailbox)));
        let task = task.abort_handle();
        let connected = Connected { client, task, wire, endpoint, port, mailbox };
        let mut abandoned = AbortOnDrop::of(&connected);
        let checked = connected.check(role).await;
        // From here on it ends with the client.
        abandoned.0 = None;
        checked.map(|()| connected)
    }
}

impl Connected {
    /// Whether the server has the wanted role.
    async fn check(&self, role: Role) -> Result<(), BoxError> {
        if role == Role::Any {
            return Ok(());
        }
        let state = self.wire.state();
        let (standby, read_only) = match (state.in_hot_standby, state.default_read_only) {
            (Some(standby), Some(read_only)) => (standby, read_only),
            // Before PostgreSQL 14, and behind some proxies.
            _ => self.ask_for_role().await?,
        };
        let refusal = match role {
            Role::Primary if standby => Refusal::Standby,
            Role::Standby if !standby => Refusal::Primary,
            Role::ReadWrite if standby => Refusal::Standby,
            Role::ReadWrite if read_only => Refusal::ReadOnly,
            Role::ReadOnly if !standby && !read_only => Refusal::ReadWrite,
            _ => return Ok(()),
        };
        Err(refusal.into())
    }

    /// Whether it is a standby, and whether sessions are read-only by default.
    async fn ask_for_role(&self) -> Result<(bool, bool), BoxError> {
        let sql = "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')";
        let answer = self.client.simple_query(sql).await?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or("the server did not tell its role")?;
        Ok((row.try_get(0)? == Some("t"), row.try_get(1)? == Some("on")))
    }
}

/// Ends a task, unless it was disarmed. A task that waits for an answer does not end with its
/// client.
pub(super) struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    pub(super) fn new(task: &JoinHandle<()>) -> Self {
        Self(Some(task.abort_handle()))
    }

    /// For the task that drives its socket.
    pub(super) fn of(connected: &Connected) -> Self {
        Self(Some(connected.task.clone()))
    }

    /// Leaves nothing to be ended here.
    pub(super) fn take(&mut self) -> Self {
        Self(self.0.take())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Moves the bytes of a connection until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, mailbox: Arc<Mailbox>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => mailbox.deliver(notification),
            Ok(_notice) => {}
            Err(error) => {
                event::connection_lost(&error);
                break;
            }
        }
    }
    mailbox.end();
}

/// Whether the other way, with TLS or without, may work: the server has no rule for this one in its
/// pg_hba.conf, or TLS itself failed. A wrong password is wrong both ways.
fn is_about_encryption(error: &BoxError) -> bool {
    if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
        return error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    }
    let kind = error.downcast_ref().map(io::Error::kind);
    use io::ErrorKind::{ConnectionReset, InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(kind, Some(ConnectionReset | InvalidData | InvalidInput | Other | UnexpectedEof))
}

async fn resolve(host: &HostPort) -> Result<Vec<Address>, BoxError> {
    match (&host.ip, &host.host) {
        (Some(ip), _) => Ok(vec![Address::Tcp((*ip, host.port).into())]),
        (None, Some(Host::Tcp(name))) => {
            let found = lookup_host((name.as_str(), host.port)).await?;
            Ok(found.map(Address::Tcp).collect())
        }
        #[cfg(unix)]
        (None, Some(Host::Unix(folder))) => {
            Ok(vec![Address::Unix(folder.join(format!(".s.PGSQL.{}", host.port)))])
        }
        (None, None) => Err(Refusal::NoAddress.into()),
    }
}

fn host_name(host: &HostPort) -> String {
    match (&host.host, &host.ip) {
        (Some(Host::Tcp(name)), _) => format!("{name}:{}", host.port),
        #[cfg(unix)]
        (Some(Host::Unix(folder)), _) => folder.display().to_string(),
        (None, ip) => format!("{}:{}", ip.map_or_else(String::new, |ip| ip.to_string()), host.port),
    }
}

fn server_name(host: &HostPort, address: &Address) -> String {
    match (&host.host, address) {
        (Some(Host::Tcp(name)), Address::Tcp(ip)) if *name != ip.ip().to_string() => {
            format!("{address} ({name})")
        }
        _ => address.to_string(),
    }
}

/// An equal part of the time left for each of so many.
fn share(deadline: Instant, count: usize) -> Instant {
    let now = Instant::now();
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    now + deadline.saturating_duration_since(now) / count
}

/// Bounds one step and names the server in its error.
async fn within<T>(
    deadline: Instant,
    server: &(impl fmt::Display + ?Sized),
    step: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, ServerError> {
    let began = Instant::now();
    match timeout_at(deadline, step).await {
        Ok(result) => result.map_err(|cause| ServerError::new(server, cause)),
        Err(_elapsed) => Err(ServerError::silent(server, began.elapsed())),
    }
}
