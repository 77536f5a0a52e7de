//! An exclusive connection.

use std::fmt;

use tokio_postgres::Row;

use super::connection::{Params, PgConnection};
use super::manager::PgManager;
use super::recovery;
use crate::error::PoolError;
use crate::lease::Lease;

/// The exclusive right to one PostgreSQL connection, given back on drop.
///
/// What it leaves behind does not reach the next user: a transaction opened by
/// [`batch_execute`](Self::batch_execute) or any other verb is rolled back, and a query whose future
/// was dropped is cancelled, both in a task of at most `recovery_timeout`, else the connection is
/// closed. Session state (`SET`, `LISTEN`, temporary tables, advisory locks) is *not* reset.
///
/// After the future of a verb was dropped, every further verb of this lease answers
/// [`PoolError::Interrupted`].
///
/// Its verbs are to be run one after the other. The answers of two at once (`join!`) are not mixed up,
/// but what one does to the transaction reaches the other in the middle: an error of one may wait for
/// the end of the other, and a stale statement may be taken to be outside a transaction and be
/// prepared again inside one.
pub struct PgLease {
    /// `Some` until the drop.
    lease: Option<Lease<PgManager>>,
}

impl PgLease {
    pub(super) fn new(lease: Lease<PgManager>) -> Self {
        Self { lease: Some(lease) }
    }

    pub(super) fn conn(&self) -> &PgConnection {
        self.lease.as_ref().expect("the lease is there until the drop")
    }

    /// Runs a statement and returns all its rows.
    ///
    /// # Errors
    /// [`PoolError::Postgres`] with the driver's error, [`PoolError::Interrupted`].
    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, PoolError> {
        self.conn().query(sql, params).await
    }

    /// Runs a statement that returns exactly one row.
    ///
    /// # Errors
    /// As [`query`](Self::query), and [`PoolError::RowCount`].
    pub async fn query_one(&self, sql: &str, params: Params<'_>) -> Result<Row, PoolError> {
        one(self.query(sql, params).await?)
    }

    /// Runs a statement that returns one row or none.
    ///
    /// # Errors
    /// As [`query_one`](Self::query_one).
    pub async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, PoolError> {
        at_most_one(self.query(sql, params).await?)
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, PoolError> {
        self.conn().execute(sql, params).await
    }

    /// Runs several statements without values, separated by semicolons.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn batch_execute(&self, sql: &str) -> Result<(), PoolError> {
        self.conn().batch_execute(sql).await
    }
}

impl Drop for PgLease {
    fn drop(&mut self) {
        // A connection that is clean, or gone, needs no repair.
        let dirty = self.lease.take_if(|lease| lease.is_dirty() && !lease.is_broken());
        if let Some(lease) = dirty {
            recovery::spawn(lease);
        }
    }
}

impl fmt::Debug for PgLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgLease").finish_non_exhaustive()
    }
}

pub(super) fn one(rows: Vec<Row>) -> Result<Row, PoolError> {
    at_most_one(rows)?.ok_or(PoolError::RowCount { found: 0 })
}

pub(super) fn at_most_one(mut rows: Vec<Row>) -> Result<Option<Row>, PoolError> {
    match rows.len() {
        0 | 1 => Ok(rows.pop()),
        found => Err(PoolError::RowCount { found }),
    }
}
