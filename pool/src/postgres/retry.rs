//! Transactions that are tried again when they meet another one.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::connection::Params;
use super::transaction::{Home, PgTransaction, TransactionOptions};
use super::{PgPool, Row};
use crate::acquire::Acquire;
use crate::error::PoolError;

/// The longest wait before the first retry; it doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// The longest wait before any retry.
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

/// What the query after a commit answered.
type Rows = Result<Vec<Row>, PoolError>;

impl PgPool {
    /// Runs a closure in a transaction and commits, and does all of it again, up to five times, when
    /// the server gives the transaction up because it met another one.
    ///
    /// ```no_run
    /// # use escala_pool::{PgPool, PoolError};
    /// # async fn transfer(pool: &PgPool, from: i64, to: i64) -> Result<(), PoolError> {
    /// let change = "update accounts set amount = amount + $1 where id = $2";
    /// pool.transaction(async |mut tx| {
    ///     tx.execute(change, &[&-100_i64, &from]).await?;
    ///     tx.execute(change, &[&100_i64, &to]).await?;
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// The closure may run several times, so it must do nothing that cannot be rolled back. When it
    /// fails or panics, the transaction is rolled back.
    ///
    /// # Errors
    /// Those of the closure, of [`begin`](Self::begin) and of [`PgTransaction::commit`]. After
    /// [`PoolError::CommitUnknown`] it is not tried again: it may be done already.
    /// [`PoolError::TransactionKept`] if the closure moved the transaction elsewhere.
    #[track_caller]
    pub fn transaction<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(PgTransaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<PoolError>,
    {
        self.transaction_alone(TransactionOptions::new(), Location::caller(), work)
    }

    /// As [`transaction`](Self::transaction), of a certain kind.
    ///
    /// # Errors
    /// As [`transaction`](Self::transaction).
    #[track_caller]
    pub fn transaction_with<T, E, F, Fut>(
        &self,
        options: &TransactionOptions,
        work: F,
    ) -> impl Future<Output = Result<T, E>>
    where
        // Neither an `AsyncFn` nor `&mut PgTransaction`: the compiler could not tell that the
        // future may move between threads.
        F: Fn(PgTransaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<PoolError>,
    {
        self.transaction_alone(*options, Location::caller(), work)
    }

    async fn transaction_alone<T, E, F, Fut>(
        &self,
        options: TransactionOptions,
        place: &'static Location<'static>,
        work: F,
    ) -> Result<T, E>
    where
        F: Fn(PgTransaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<PoolError>,
    {
        Ok(self.transaction_at(options, place, None, work).await?.0)
    }

    /// As [`transaction_with`](Self::transaction_with), and commits by
    /// [`PgTransaction::commit_and_query`]: what the query answered, or why it did not, is told
    /// beside what the closure returned. After a closure that ends the transaction itself the query
    /// runs by itself.
    ///
    /// # Errors
    /// As [`transaction`](Self::transaction).
    #[track_caller]
    pub fn transaction_and_query<T, E, F, Fut>(
        &self,
        options: &TransactionOptions,
        sql: &str,
        params: Params<'_>,
        work: F,
    ) -> impl Future<Output = Result<(T, Rows), E>>
    where
        F: Fn(PgTransaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<PoolError>,
    {
        let (options, place) = (*options, Location::caller());
        async move {
            let then = Some((sql, params));
            let (value, rows) = self.transaction_at(options, place, then, work).await?;
            let rows = match rows {
                Some(rows) => rows,
                None => self.query(sql, params).await,
            };
            Ok((value, rows))
        }
    }

    async fn transaction_at<T, E, F, Fut>(
        &self,
        options: TransactionOptions,
        place: &'static Location<'static>,
        then: Option<(&str, Params<'_>)>,
        work: F,
    ) -> Result<(T, Option<Rows>), E>
    where
        F: Fn(PgTransaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<PoolError>,
    {
        let mut attempts = 1;
        loop {
            let (result, lost) = self.attempt(&options, place, then, &work).await;
            if result.is_ok() || !lost || attempts >= options.attempts {
                return result;
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            sleep(backoff(attempts, fastrand::f64())).await;
            attempts += 1;
        }
    }

    /// True beside an error if the server gave the transaction up: nothing of it has happened.
    async fn attempt<T, E, F, Fut>(
        &self,
        options: &TransactionOptions,
        place: &'static Location<'static>,
        then: Option<(&str, Params<'_>)>,
        work: &F,
    ) -> (Result<(T, Option<Rows>), E>, bool)
    where
        F: Fn(PgTransaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<PoolError>,
    {
        let home = Arc::new(Home::default());
        let tx = match self.acquire_at(Acquire::new(), place).await {
            Ok(lease) => PgTransaction::begin(lease, options, Some(Arc::clone(&home))).await,
            Err(error) => Err(error),
        };
        let worked = match tx {
            Ok(tx) => work(tx).await,
            Err(error) => return (Err(error.into()), false),
        };
        let Some(tx) = home.take() else {
            // Ended by the closure itself, or still in use somewhere.
            let kept = Arc::strong_count(&home) > 1;
            let kept = if kept { Err(PoolError::TransactionKept.into()) } else { Ok(()) };
            return (kept.and(worked).map(|value| (value, None)), false);
        };
        // Whatever the closure made of that error.
        let conflict = tx.met_conflict();
        match worked {
            Ok(value) => {
                let committed = match then {
                    Some((sql, params)) => tx.commit_and_query(sql, params).await.map(Some),
                    None => tx.commit().await.map(|()| None),
                };
                let lost = committed.as_ref().is_err_and(|error| match error.sqlstate() {
                    Some("40001" | "40P01") => true,
                    // The closure went on after the conflict, as if nothing were.
                    Some("25P02") => conflict,
                    _ => false,
                });
                (committed.map(|rows| (value, rows)).map_err(E::from), lost)
            }
            Err(error) => {
                // What this does not achieve in time is done by the drop of the lease.
                drop(timeout(self.pool.config().recovery_timeout, tx.rollback()).await);
                (Err(error), conflict)
            }
        }
    }
}

/// How long to wait before the retry after so many attempts; `chance` is between 0 and 1. Those who
/// met each other shall not meet again, so any wait up to the longest is as likely.
fn backoff(attempts: u32, chance: f64) -> Duration {
    let longest = FIRST_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    longest.min(LONGEST_BACKOFF).mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_longest() {
        for (attempts, longest) in [(1, 5), (2, 10), (5, 80), (8, 500), (u32::MAX, 500)] {
            assert_eq!(backoff(attempts, 1.0), Duration::from_millis(longest));
            assert_eq!(backoff(attempts, 0.0), Duration::ZERO);
        }
    }
}
