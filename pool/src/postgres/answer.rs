//! An answer that comes in pieces, and the connection it comes on.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio_postgres::Error;

use super::connection::PgConnection;
use super::lease::PgLease;
use crate::error::PoolError;

/// The connection of something that is under way.
#[derive(Debug)]
pub(super) enum Holder<'a> {
    /// Given back with the holder.
    Own(Box<PgLease>),
    Lent(&'a PgLease),
}

impl Deref for Holder<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Own(lease) => lease.conn(),
            Self::Lent(lease) => lease.conn(),
        }
    }
}

/// A stream of the driver. It ends when the server is ready for the next statement; dropped before
/// that, it leaves the connection to the recovery.
pub(super) struct Answer<'a, S> {
    // Before the holder: the driver shall know first that nobody listens any more. `None` after it
    // broke off.
    stream: Option<Pin<Box<S>>>,
    /// `None` when it is over: the connection does not wait for the drop.
    holder: Option<Holder<'a>>,
    ending: Option<Ending>,
}

struct Ending {
    ready: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    error: Option<Error>,
}

impl<'a, S> Answer<'a, S> {
    pub(super) fn new(holder: Holder<'a>, stream: S) -> Self {
        Self { stream: Some(Box::pin(stream)), holder: Some(holder), ending: None }
    }

    fn end(&mut self, error: Option<Error>) {
        let Some(conn) = &self.holder else { return };
        if let Some(error) = &error {
            conn.note(error);
        }
        let wire = Arc::clone(&conn.wire);
        let ready = Box::pin(async move { wire.answered_all().await });
        self.ending = Some(Ending { ready, error });
    }
}

impl<S> Answer<'_, S> {
    /// Ends it after an error of the driver's own: what the server goes on to send nobody reads, so
    /// there is nothing to wait for, and the connection is left to the recovery.
    fn break_off(&mut self, error: Error) -> PoolError {
        self.stream = None;
        if let Some(conn) = self.holder.take() {
            conn.interrupt();
        }
        PoolError::Postgres(error)
    }
}

impl<T, S: Stream<Item = Result<T, Error>>> Answer<'_, S> {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, PoolError>>> {
        if self.holder.is_none() {
            return Poll::Ready(None);
        }
        if self.ending.is_none() {
            let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
            match ready!(stream.as_mut().poll_next(cx)) {
                Some(Ok(piece)) => return Poll::Ready(Some(Ok(piece))),
                Some(Err(error)) if error.code().is_none() => {
                    return Poll::Ready(Some(Err(self.break_off(error))));
                }
                Some(Err(error)) => self.end(Some(error)),
                None => self.end(None),
            }
        }
        let Some(ending) = &mut self.ending else { return Poll::Ready(None) };
        ready!(ending.ready.as_mut().poll(cx));
        self.holder = None;
        let error = self.ending.take().and_then(|ending| ending.error);
        Poll::Ready(error.map(|error| Err(PoolError::Postgres(error))))
    }
}

impl<S> Drop for Answer<'_, S> {
    fn drop(&mut self) {
        if let Some(conn) = &self.holder {
            conn.interrupt();
        }
    }
}
