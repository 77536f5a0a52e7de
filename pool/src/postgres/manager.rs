//! Makes PostgreSQL connections from a checked connection string.

use bb8::ManageConnection;

use super::connect::Connector;
use super::connection::PgConnection;
use super::error::ServerError;
use super::settings::Settings;
use crate::config::{ConfigError, PoolConfig};

/// Makes connections; bb8 calls it through the limits of the pool.
pub(crate) struct PgManager {
    connector: Connector,
    statement_cache: usize,
}

impl PgManager {
    pub(super) fn new(pool: &PoolConfig) -> Result<Self, ConfigError> {
        let settings = Settings::parse(&pool.url)?;
        let connector = Connector::new(settings, pool.connect_timeout)?;
        Ok(Self { connector, statement_cache: pool.statement_cache })
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
