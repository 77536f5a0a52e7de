//! The error of a job: the pool's, or the closure's own.

use crate::error::PoolError;

/// Why a job has no result.
///
/// For closures that return `rusqlite::Result`, `?` turns it into a [`PoolError`]. For a domain
/// error that implements `From<PoolError>`, [`flatten`](Self::flatten) joins the two.
#[derive(Debug, thiserror::Error)]
pub enum JobError<E> {
    /// The pool failed: the closure did not run, panicked, or was not committed.
    #[error(transparent)]
    Pool(PoolError),
    /// The closure returned this error. What it wrote was rolled back.
    #[error(transparent)]
    Job(E),
}

impl<E> JobError<E> {
    /// The error as a domain error.
    ///
    /// ```
    /// # use escala_pool::{JobError, PoolError};
    /// #[derive(Debug, PartialEq)]
    /// enum OrderError { NoFunds, Unavailable }
    /// impl From<PoolError> for OrderError {
    ///     fn from(_: PoolError) -> Self { Self::Unavailable }
    /// }
    /// assert_eq!(JobError::Job(OrderError::NoFunds).flatten(), OrderError::NoFunds);
    /// let closed: OrderError = JobError::Pool(PoolError::Closed).flatten();
    /// assert_eq!(closed, OrderError::Unavailable);
    /// ```
    pub fn flatten(self) -> E
    where
        E: From<PoolError>,
    {
        match self {
            Self::Pool(error) => error.into(),
            Self::Job(error) => error,
        }
    }
}

impl From<JobError<rusqlite::Error>> for PoolError {
    fn from(error: JobError<rusqlite::Error>) -> Self {
        match error {
            JobError::Pool(error) => error,
            JobError::Job(error) => Self::Sqlite(error),
        }
    }
}
