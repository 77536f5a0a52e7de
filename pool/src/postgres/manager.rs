//! Makes PostgreSQL connections from a checked connection string.

use std::str::FromStr;
use std::time::Duration;

use bb8::ManageConnection;
use tokio_postgres::config::{Config, SslMode};

use super::connect::{Connector, ServerError};
use super::connection::PgConnection;
use super::socket::TcpOptions;
use crate::config::{ConfigError, PoolConfig};

/// What libpq and tokio-postgres leave at the system's two hours; a firewall forgets sooner.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Data that the peer does not acknowledge for so long means that it is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes connections; bb8 calls it through the limits of the pool.
pub(crate) struct PgManager {
    connector: Connector,
    statement_cache: usize,
}

impl PgManager {
    pub(super) fn new(pool: &PoolConfig) -> Result<Self, ConfigError> {
        // The parser's own error may quote what follows a misplaced `@`, so it is not passed on.
        let config = Config::from_str(&pool.url).map_err(|_| {
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
        let connector = Connector::new(config.clone(), tcp_options(&config));
        Ok(Self { connector, statement_cache: pool.statement_cache })
    }
}

fn tcp_options(config: &Config) -> TcpOptions {
    let unset = config.get_keepalives_idle() == Config::new().get_keepalives_idle();
    let idle = if unset { KEEPALIVE_IDLE } else { config.get_keepalives_idle() };
    TcpOptions {
        keepalive: config.get_keepalives().then_some(idle),
        keepalive_interval: config.get_keepalives_interval(),
        keepalive_retries: config.get_keepalives_retries(),
        user_timeout: config.get_tcp_user_timeout().copied().unwrap_or(TCP_USER_TIMEOUT),
    }
}

impl ManageConnection for PgManager {
    type Connection = PgConnection;
    type Error = ServerError;

    async fn connect(&self) -> Result<PgConnection, ServerError> {
        Ok(PgConnection::new(self.connector.connect().await?, self.statement_cache))
    }

    async fn is_valid(&self, conn: &mut PgConnection) -> Result<(), ServerError> {
        conn.test().await
    }

    fn has_broken(&self, conn: &mut PgConnection) -> bool {
        conn.is_broken()
    }
}
