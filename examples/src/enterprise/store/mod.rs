//! The database: one [`Node`] is one server (or one SQLite handle), with the same verbs on each.

mod export;
mod postgres;
mod schema;
mod server;
mod sqlite;

use escala_cluster::Open;
use escala_pool::{BatchError, ConfigError, Emit, PoolError, PoolStats, SqlitePool};
use escala_replicas::session::postgres::fault_of_code;
use escala_replicas::{Fault, RouteError};

pub use export::{Pieces, copy_orders};
pub use schema::{SYMBOLS, USER_CASH_CENTS, USERS, bid_and_ask, referred_users, symbol_name};
pub use server::Server;
pub use sqlite::{open_embedded, open_file};

use super::PoolTimes;
use super::domain::{
    AffiliateReport, Audit, Balance, Catalogue, Done, Listing, NewOrder, NewTransfer, Order,
    Placement, Quote, Transfer,
};

/// One database node.
#[derive(Clone, Debug)]
pub enum Node {
    /// Embedded.
    Sqlite(SqlitePool),
    /// A server.
    Postgres(Server),
}

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing has that name.
    #[error("there is no {what} {value}")]
    Absent {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        value: String,
    },
    /// The user has less than is needed.
    #[error("user {user} has {cash_cents} of {needed_cents} cents")]
    InsufficientFunds {
        /// Who.
        user: i64,
        /// What they have.
        cash_cents: i64,
        /// What it takes.
        needed_cents: i64,
    },
    /// The key stands for another request.
    #[error("idempotency key {key} was used with another body")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// No node answers.
    #[error("no database node answers")]
    NoNode,
    /// Every node that may do it has as much to do as it may have.
    #[error("every database node is full")]
    Full,
    /// It has failed too often, and is not asked for a while.
    #[error("the database is being left alone")]
    LeftAlone(#[source] Open),
    /// The pool or the server refused.
    #[error("database")]
    Pool(#[from] PoolError),
    /// A batch that this was part of failed.
    #[error("database")]
    Batch(#[from] BatchError),
    /// SQLite refused a statement.
    #[error("sqlite")]
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    /// Is the node away, so that another one should be asked?
    #[must_use]
    pub fn is_node_failure(&self) -> bool {
        match self {
            Self::Pool(error) => error.is_connection(),
            Self::Batch(error) => error.is_connection(),
            _ => false,
        }
    }

    /// Whose fault is it: may another node do better?
    #[must_use]
    pub fn fault(&self) -> Fault {
        if self.is_busy() {
            return Fault::Busy;
        }
        let pool = match self {
            Self::Pool(error) => Some(error),
            Self::Batch(error) => error.cause(),
            _ => None,
        };
        match pool {
            Some(PoolError::Connect(_) | PoolError::ConnectTimeout { .. }) => Fault::NotSent,
            Some(error @ PoolError::Postgres(_)) => match error.sqlstate() {
                Some(code) => fault_of_code(code),
                None => Fault::from(error.is_connection()),
            },
            _ => Fault::from(self.is_node_failure()),
        }
    }

    /// Is nobody to know whether it was done?
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Pool(PoolError::CommitUnknown(_)))
    }

    /// Is the node alive with too much to do?
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Pool(error) => error.is_saturated(),
            Self::Batch(error) => error.is_saturated(),
            Self::Full => true,
            _ => false,
        }
    }

    /// Has the database answered, that what was wanted cannot be?
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. } | Self::InsufficientFunds { .. } | Self::KeyReused { .. }
        )
    }

    /// May the same succeed later, or on whoever is the primary by then?
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoNode | Self::LeftAlone(_)) || self.fault() != Fault::Operation
    }

    /// There was no node to ask.
    pub(super) fn no_node(error: RouteError) -> Self {
        match error {
            RouteError::Saturated | RouteError::PrimaryReadsExhausted => Self::Full,
            _ => Self::NoNode,
        }
    }

    fn absent(what: &'static str, value: impl std::fmt::Display) -> Self {
        Self::Absent { what, value: value.to_string() }
    }
}

/// A write with the key that makes it happen once.
#[derive(Clone, Debug)]
pub struct Keyed<T> {
    /// What to do.
    pub request: T,
    /// The client's `Idempotency-Key`.
    pub key: Option<String>,
    /// Fingerprint of the body: the same key with another one is refused.
    pub fingerprint: String,
}

/// The channel on which PostgreSQL tells that a price was changed, and of which symbol.
pub(super) const PRICES: &str = "prices";

/// Symbols on one page of the catalogue: some 3 KiB.
pub const PAGE: usize = 50;

/// The page of one listing more than fits on it, or fewer on the last.
fn page_of(mut listings: Vec<Listing>) -> Catalogue {
    let more = listings.len() > PAGE;
    listings.truncate(PAGE);
    let next = listings.last().filter(|_| more).map(|listing| listing.symbol.clone());
    Catalogue { symbols: listings, next }
}

type Result<T, E = StoreError> = std::result::Result<T, E>;

impl From<ConfigError> for StoreError {
    fn from(error: ConfigError) -> Self {
        Self::Pool(error.into())
    }
}

macro_rules! on_each {
    ($node:expr, $verb:ident($($argument:expr),*)) => {
        match $node {
            Node::Sqlite(pool) => sqlite::$verb(pool, $($argument),*).await,
            Node::Postgres(server) => postgres::$verb(server, $($argument),*).await,
        }
    };
}

impl Node {
    /// Opens a PostgreSQL node.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn connect(url: &str, size: usize, times: &PoolTimes) -> Result<Self> {
        Ok(Self::Postgres(Server::connect(url, size, times).await?))
    }

    /// Names a PostgreSQL node without connecting: a replica may be away when the server starts.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn lazy(url: &str, size: usize, times: &PoolTimes) -> Result<Self> {
        Ok(Self::Postgres(Server::lazy(url, size, times)?))
    }

    /// Whether schema and seed data have arrived here.
    ///
    /// # Errors
    /// The node is away.
    pub async fn is_seeded(&self) -> Result<bool> {
        on_each!(self, is_seeded())
    }

    /// Creates tables and seed data unless they are there.
    ///
    /// # Errors
    /// The database refuses, or holds another version of the data.
    pub async fn seed(&self) -> Result<()> {
        on_each!(self, seed())
    }

    /// A connection of its own, past the pool, for whoever watches the server.
    ///
    /// # Errors
    /// The node is away, or embedded.
    pub async fn connect_apart(&self) -> Result<escala_pool::postgres::tokio_postgres::Client> {
        match self {
            Self::Postgres(server) => Ok(server.pool.connect_apart().await?),
            Self::Sqlite(_) => Err(StoreError::NoNode),
        }
    }

    /// One round trip.
    ///
    /// # Errors
    /// The node is away.
    pub async fn ping(&self) -> Result<()> {
        on_each!(self, ping())
    }

    /// Price and volume of a symbol.
    ///
    /// # Errors
    /// There is no such symbol; the database refuses.
    pub async fn quote(&self, symbol: &str) -> Result<Quote> {
        on_each!(self, quote(symbol))
    }

    /// Those of the symbols that there are, by one query.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn quotes(&self, symbols: &[String]) -> Result<Vec<Quote>> {
        on_each!(self, quotes(symbols))
    }

    /// The catalogue's page after a symbol, at most [`PAGE`] symbols.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn catalogue(&self, after: &str) -> Result<Catalogue> {
        let listings = on_each!(self, listings(after))?;
        Ok(page_of(listings))
    }

    /// An order by number.
    ///
    /// # Errors
    /// There is no such order; the database refuses.
    pub async fn order(&self, id: i64) -> Result<Order> {
        on_each!(self, order(id))
    }

    /// Cash of a user.
    ///
    /// # Errors
    /// There is no such user; the database refuses.
    pub async fn balance(&self, user: i64) -> Result<Balance> {
        on_each!(self, balance(user))
    }

    /// The aggregate over two tiers of referred users.
    ///
    /// # Errors
    /// There is no such user; the database refuses.
    pub async fn report(&self, user: i64) -> Result<AffiliateReport> {
        on_each!(self, report(user))
    }

    /// Takes the cost from the user's cash, raises the volume and writes the order, in one
    /// transaction; with a known key it only reads what was done then.
    ///
    /// # Errors
    /// No such user or symbol, too little cash, a reused key; the database refuses. Nothing is
    /// half done.
    pub async fn place_order(&self, order: Keyed<NewOrder>) -> Result<Done<Placement>> {
        on_each!(self, place_order(order))
    }

    /// Moves cash between two users, in one transaction; with a known key it only reads.
    ///
    /// # Errors
    /// As [`Node::place_order`].
    pub async fn transfer(&self, transfer: Keyed<NewTransfer>) -> Result<Done<Transfer>> {
        on_each!(self, transfer(transfer))
    }

    /// The settlement job: counts its run and marks the order, in one transaction.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn settle(&self, order: i64) -> Result<()> {
        on_each!(self, settle(order))
    }

    /// The booking job: writes both ledger entries of a transfer, once.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn book(&self, transfer: i64) -> Result<()> {
        on_each!(self, book(transfer))
    }

    /// Orders without a settlement and transfers without entries, at most 10,000 each: what a
    /// memory queue lost at a restart.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn unfinished(&self) -> Result<(Vec<i64>, Vec<i64>)> {
        on_each!(self, unfinished())
    }

    /// The sums that must add up.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn audit(&self) -> Result<Audit> {
        on_each!(self, audit())
    }

    /// Those of the orders that are not in the database.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn missing_orders(&self, orders: &[i64]) -> Result<Vec<i64>> {
        on_each!(self, missing_orders(orders))
    }

    /// Connections of this node.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        match self {
            Self::Sqlite(pool) => pool.stats(),
            Self::Postgres(server) => server.pool.stats(),
        }
    }

    /// Hands out the figures of each line in which work of this node waits to be done together.
    pub fn visit_batches(&self, emit: &mut Emit<'_>) {
        if let Self::Postgres(server) = self {
            server.visit_batches(emit);
        }
    }

    /// Waits for what runs and closes the connections.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => drop(pool.close().await),
            Self::Postgres(server) => drop(server.pool.close().await),
        }
    }
}
