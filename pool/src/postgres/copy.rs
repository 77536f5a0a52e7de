//! `COPY`: many rows into a table, or out of one, in PostgreSQL's own formats.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use tokio_postgres::{CopyInSink, CopyOutStream, Error};

use super::PgPool;
use super::answer::{Answer, Holder};
use super::lease::PgLease;
use super::transaction::PgTransaction;
use crate::error::PoolError;

/// Data on its way into a table. Nothing is stored unless [`finish`](Self::finish) is called and
/// succeeds.
///
/// # Cancellation
/// Dropped before, the `COPY` is aborted. If the future of `finish` is dropped, all or nothing is
/// stored.
#[must_use = "nothing is stored without `finish`"]
pub struct CopyIn<'a> {
    // Before the holder: the driver aborts the COPY when this is gone.
    sink: Pin<Box<CopyInSink<Bytes>>>,
    holder: Holder<'a>,
    finished: bool,
}

impl<'a> CopyIn<'a> {
    fn new(holder: Holder<'a>, sink: CopyInSink<Bytes>) -> Self {
        Self { sink: Box::pin(sink), holder, finished: false }
    }

    /// Sends some data, which may begin and end anywhere in a row. Waits while the server is behind.
    ///
    /// # Errors
    /// [`PoolError::Postgres`] if the connection is lost. What is wrong with the data is said by
    /// [`finish`](Self::finish).
    pub async fn send(&mut self, data: impl Into<Bytes>) -> Result<(), PoolError> {
        poll_fn(|cx| self.sink.as_mut().poll_ready(cx)).await.map_err(PoolError::Postgres)?;
        self.sink.as_mut().start_send(data.into()).map_err(PoolError::Postgres)
    }

    /// Stores what was sent. Returns the number of rows.
    ///
    /// # Errors
    /// [`PoolError::Postgres`]: nothing is stored if the server said so, and nobody knows if the
    /// connection is lost.
    pub async fn finish(mut self) -> Result<u64, PoolError> {
        let result = self.sink.as_mut().finish().await;
        let result = self.ready(result).await;
        self.finished = true;
        result
    }

    /// Waits until the server is ready for the next statement.
    async fn ready(&self, result: Result<u64, Error>) -> Result<u64, PoolError> {
        match result {
            Ok(rows) => {
                self.holder.wire.answered_all().await;
                Ok(rows)
            }
            Err(error) => {
                self.holder.failed(&error).await;
                Err(PoolError::Postgres(error))
            }
        }
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.holder.interrupt();
        }
    }
}

impl fmt::Debug for CopyIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyIn").finish_non_exhaustive()
    }
}

/// Data out of a table, as it comes, in pieces of at least one row. It has a connection to itself,
/// until it ends or is dropped.
///
/// # Cancellation
/// Dropped before its end, the `COPY` is cancelled and the connection cleaned in the background.
pub struct CopyOut<'a>(Answer<'a, CopyOutStream>);

impl CopyOut<'_> {
    /// The next piece; `None` after the last, and after an error.
    ///
    /// # Errors
    /// [`PoolError::Postgres`].
    pub async fn next(&mut self) -> Option<Result<Bytes, PoolError>> {
        poll_fn(|cx| self.0.poll_next(cx)).await
    }
}

impl Stream for CopyOut<'_> {
    type Item = Result<Bytes, PoolError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(cx)
    }
}

impl fmt::Debug for CopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut").finish_non_exhaustive()
    }
}

impl PgPool {
    /// Begins a `COPY .. FROM STDIN` on a connection of its own.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire) and [`PgLease::copy_in`].
    pub async fn copy_in(&self, sql: &str) -> Result<CopyIn<'static>, PoolError> {
        self.acquire().await?.into_copy_in(sql).await
    }

    /// Begins a `COPY .. TO STDOUT` on a connection of its own.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire) and [`PgLease::copy_out`].
    pub async fn copy_out(&self, sql: &str) -> Result<CopyOut<'static>, PoolError> {
        self.acquire().await?.into_copy_out(sql).await
    }
}

impl PgLease {
    /// Begins a `COPY .. FROM STDIN`.
    ///
    /// # Errors
    /// As [`query`](Self::query). A statement that is no such `COPY` costs the connection.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, PoolError> {
        let sink = self.conn().copy_in(sql).await?;
        Ok(CopyIn::new(Holder::Lent(self), sink))
    }

    /// Begins a `COPY .. TO STDOUT`.
    ///
    /// # Errors
    /// As [`query`](Self::query), also in the middle of the data.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, PoolError> {
        let stream = self.conn().copy_out(sql).await?;
        Ok(CopyOut(Answer::new(Holder::Lent(self), stream)))
    }

    /// As [`copy_in`](Self::copy_in), for data that goes on after the function that took the lease
    /// has ended: the lease goes along.
    ///
    /// # Errors
    /// As there.
    pub async fn into_copy_in(self, sql: &str) -> Result<CopyIn<'static>, PoolError> {
        let sink = self.conn().copy_in(sql).await?;
        Ok(CopyIn::new(Holder::Own(Box::new(self)), sink))
    }

    /// As [`copy_out`](Self::copy_out), for data that outlives the function that took the lease, such
    /// as the body of an answer: the lease goes along.
    ///
    /// # Errors
    /// As there.
    pub async fn into_copy_out(self, sql: &str) -> Result<CopyOut<'static>, PoolError> {
        let stream = self.conn().copy_out(sql).await?;
        Ok(CopyOut(Answer::new(Holder::Own(Box::new(self)), stream)))
    }
}

impl PgTransaction {
    /// Begins a `COPY .. FROM STDIN`. Aborted, it takes the transaction with it.
    ///
    /// # Errors
    /// As [`PgLease::copy_in`].
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, PoolError> {
        self.ready().await?.copy_in(sql).await
    }

    /// Begins a `COPY .. TO STDOUT`.
    ///
    /// # Errors
    /// As [`PgLease::copy_out`].
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, PoolError> {
        self.ready().await?.copy_out(sql).await
    }
}
