//! Makes PostgreSQL connections from a checked connection string.

use std::str::FromStr;
use std::time::Duration;

use bb8::ManageConnection;
use tokio_postgres::config::{Config, SslMode};
use tokio_postgres::{Error, NoTls};

use super::cancel::Target;
use super::connection::PgConnection;
use crate::config::{ConfigError, PoolConfig};
use crate::event;

/// What libpq and tokio-postgres leave at the system's two hours; a firewall forgets sooner.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Data that the peer does not acknowledge for so long means that it is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes connections; bb8 calls it through the limits of the pool.
pub(crate) struct PgManager {
    config: Config,
    /// Where a query can be cancelled; `None` if the string names several servers.
    pub(super) cancel: Option<Target>,
    statement_cache: usize,
}

impl PgManager {
    pub(super) fn new(pool: &PoolConfig) -> Result<Self, ConfigError> {
        // The parser's own error may quote what follows a misplaced `@`, so it is not passed on.
        let mut config = Config::from_str(&pool.url).map_err(|_| {
            ConfigError::new(
                "url",
                "[hidden]",
                "must be postgres://user:password@host:port/database or key=value pairs, with \
                 sslmode disable or prefer",
            )
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ConfigError::new("url", "[hidden]", "must name a host"));
        }
        if config.get_ssl_mode() == SslMode::Require {
            let rule = "cannot be met: this version speaks no TLS";
            return Err(ConfigError::new("url", "sslmode=require", rule));
        }
        if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        let cancel = Target::of(&config);
        Ok(Self { config, cancel, statement_cache: pool.statement_cache })
    }
}

impl ManageConnection for PgManager {
    type Connection = PgConnection;
    type Error = Error;

    async fn connect(&self) -> Result<PgConnection, Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        // It ends with the client, or with the server: then every caller learns it by its own call.
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                event::connection_lost(&error);
            }
        });
        Ok(PgConnection::new(client, task.abort_handle(), self.statement_cache))
    }

    async fn is_valid(&self, conn: &mut PgConnection) -> Result<(), Error> {
        // A bare Sync: one round trip, nothing to parse or plan.
        conn.client.check_connection().await
    }

    fn has_broken(&self, conn: &mut PgConnection) -> bool {
        conn.is_broken()
    }
}
