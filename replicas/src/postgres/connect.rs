//! The connection of a monitor, for those who need nothing special.

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Socket};

use crate::BoxError;

/// Connects to a server and runs the connection in a task of its own, until the client is dropped.
///
/// What a [`Monitor`](super::Monitor) needs of a server: a role that may log in and is a member of
/// `pg_monitor`, without which a standby does not say which timeline it receives. Give it an
/// `application_name`, and keepalives (or `tcp_user_timeout`) of some seconds.
///
/// # Errors
/// That of tokio-postgres.
pub async fn connect<T>(config: &Config, tls: T) -> Result<Client, BoxError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    // Its error reaches the question that waits for an answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}
