//! Makes PostgreSQL connections from a checked connection string.

use std::fmt::Write as _;
use std::sync::Arc;

use bb8::ManageConnection;
use parking_lot::Mutex;
use tokio_postgres::Config;

use super::cancel::Canceller;
use super::connect::{Connected, Connector};
use super::connection::PgConnection;
use super::error::ServerError;
use super::prepared::Known;
use super::settings::Settings;
use super::statements::Cache;
use crate::config::{ConfigError, PoolConfig, Statements};

/// Makes connections; bb8 calls it through the limits of the pool.
pub(crate) struct PgManager {
    connector: Arc<Connector>,
    canceller: Arc<Canceller>,
    statement_cache: usize,
    /// `Some` if statements have no names.
    unnamed: Option<Known>,
}

impl PgManager {
    pub(super) fn new(pool: &PoolConfig) -> Result<Self, ConfigError> {
        let mut settings = Settings::parse(&pool.url)?;
        session(pool, &mut settings.driver);
        let connector = Arc::new(Connector::new(settings, pool.connect_timeout)?);
        let canceller = Canceller::new(Arc::clone(&connector));
        let unnamed = (pool.statements == Statements::Unnamed)
            .then(|| Known::new(Mutex::new(Cache::new(pool.statement_cache))));
        Ok(Self { connector, canceller, statement_cache: pool.statement_cache, unnamed })
    }

    pub(super) fn canceller(&self) -> &Arc<Canceller> {
        &self.canceller
    }

    /// A connection that the pool knows nothing of.
    pub(super) async fn connect_apart(&self) -> Result<Connected, ServerError> {
        self.connector.connect().await
    }
}

/// Puts the settings of each session into the startup message, where they cost no round trip and
/// are what `RESET` goes back to.
fn session(pool: &PoolConfig, driver: &mut Config) {
    if let Some(name) = &pool.application_name {
        driver.application_name(name);
    }
    let mut options = driver.get_options().unwrap_or_default().to_owned();
    for (name, value) in [
        ("statement_timeout", pool.statement_timeout),
        ("lock_timeout", pool.lock_timeout),
        ("idle_in_transaction_session_timeout", pool.idle_in_transaction_timeout),
    ] {
        if let Some(value) = value.filter(|value| !value.is_zero()) {
            // The last one counts, so these win over the options of the connection string.
            let _ = write!(options, " -c {name}={}", value.as_millis().max(1));
        }
    }
    if !options.is_empty() {
        driver.options(options);
    }
}

impl ManageConnection for PgManager {
    type Connection = PgConnection;
    type Error = ServerError;

    async fn connect(&self) -> Result<PgConnection, ServerError> {
        let connected = self.connector.connect().await?;
        Ok(PgConnection::new(connected, self.statement_cache, self.unnamed.clone()))
    }

    async fn is_valid(&self, conn: &mut PgConnection) -> Result<(), ServerError> {
        conn.test().await
    }

    fn has_broken(&self, conn: &mut PgConnection) -> bool {
        conn.is_broken()
    }
}
