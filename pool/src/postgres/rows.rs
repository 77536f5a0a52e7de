//! Rows one by one, for results that are too large to be held at once.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio_postgres::Row;

use super::PgPool;
use super::answer::{Answer, Holder};
use super::connection::Params;
use super::lease::PgLease;
use super::transaction::PgTransaction;
use crate::error::PoolError;

/// The rows of a statement, as they come. It has a connection to itself, until it ends or is
/// dropped.
///
/// # Limits
/// What is not read stays at the server: some socket reads of 8 KiB, or the largest row, are held
/// here. A reader that stops keeps the connection, and the transaction of the statement open.
///
/// # Cancellation
/// Dropped before its end, the statement is cancelled and the connection cleaned in the background.
pub struct RowStream<'a>(Answer<'a, tokio_postgres::RowStream>);

impl RowStream<'_> {
    /// The next row; `None` after the last, and after an error.
    ///
    /// # Errors
    /// [`PoolError::Postgres`].
    pub async fn next(&mut self) -> Option<Result<Row, PoolError>> {
        std::future::poll_fn(|cx| self.0.poll_next(cx)).await
    }
}

impl Stream for RowStream<'_> {
    type Item = Result<Row, PoolError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(cx)
    }
}

impl fmt::Debug for RowStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream").finish_non_exhaustive()
    }
}

impl PgPool {
    /// Runs a statement and returns its rows one by one, on a connection of its own.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire) and [`PgLease::query`], also in the middle of the rows.
    pub async fn query_stream(
        &self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<RowStream<'static>, PoolError> {
        let lease = self.acquire().await?;
        let rows = lease.conn().query_stream(sql, params).await?;
        Ok(RowStream(Answer::new(Holder::Own(Box::new(lease)), rows)))
    }
}

impl PgLease {
    /// Runs a statement and returns its rows one by one.
    ///
    /// # Errors
    /// As [`query`](Self::query), also in the middle of the rows.
    pub async fn query_stream(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<RowStream<'_>, PoolError> {
        let rows = self.conn().query_stream(sql, params).await?;
        Ok(RowStream(Answer::new(Holder::Lent(self), rows)))
    }
}

impl PgTransaction {
    /// Runs a statement and returns its rows one by one.
    ///
    /// # Errors
    /// As [`PgLease::query_stream`].
    pub async fn query_stream(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<RowStream<'_>, PoolError> {
        self.ready().await?.query_stream(sql, params).await
    }
}
