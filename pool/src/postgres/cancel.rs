//! Cancels the query of a connection, and knows when the request was carried out.
//!
//! A cancel request reaches the server on a connection of its own and hits whatever the backend
//! does when it arrives. The server closes that connection after it has signalled the backend, so
//! who waits for the end of it can be sure that a later query is not hit.

use std::error::Error;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_postgres::config::{Config, Host};
use tokio_postgres::{CancelToken, NoTls};

/// Told to nobody: a connection that cannot be cancelled is closed.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Where the server listens.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Tcp(String, u16),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Target {
    /// The one server of a connection string. With several nobody knows which one a connection
    /// went to.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let port = config.get_ports().first().copied().unwrap_or(5432);
        match (config.get_hosts(), config.get_hostaddrs()) {
            ([] | [_], [address]) => Some(Self::Tcp(address.to_string(), port)),
            ([Host::Tcp(host)], []) => Some(Self::Tcp(host.clone(), port)),
            #[cfg(unix)]
            ([Host::Unix(folder)], []) => Some(Self::Unix(folder.join(format!(".s.PGSQL.{port}")))),
            _ => None,
        }
    }

    /// Returns when the backend was signalled.
    pub(super) async fn cancel(&self, token: &CancelToken) -> Result<(), BoxError> {
        match self {
            Self::Tcp(host, port) => {
                request(TcpStream::connect((host.as_str(), *port)).await?, token).await
            }
            #[cfg(unix)]
            Self::Unix(path) => request(tokio::net::UnixStream::connect(path).await?, token).await,
        }
    }
}

/// Sends the request and waits for the server to close.
async fn request<S>(mut socket: S, token: &CancelToken) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    token.cancel_query_raw(&mut socket, NoTls).await?;
    // Nothing is ever answered: this ends with the connection, orderly or not.
    while socket.read(&mut [0; 16]).await.is_ok_and(|count| count > 0) {}
    Ok(())
}
