//! A transaction on a connection of its own, and transactions inside it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_postgres::{IsolationLevel, Row};

use super::connection::Params;
use super::lease::{PgLease, at_most_one, one};
use super::wire::TransactionStatus;
use crate::error::{PoolError, lost_server};

/// How a transaction runs, and how often it is tried.
///
/// ```
/// # use escala_pool::postgres::{IsolationLevel, TransactionOptions};
/// let report = TransactionOptions::new().isolation(IsolationLevel::RepeatableRead).read_only(true);
/// assert_eq!(report.attempts, 5);
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TransactionOptions {
    /// What the transaction sees of others. `None`, the default, is what the server is set to, as a
    /// rule read committed.
    pub isolation: Option<IsolationLevel>,
    /// Writes are refused. Default false.
    pub read_only: bool,
    /// A serializable read-only transaction waits until no other can disturb it, and is never given
    /// up then. Default false; without effect on others.
    pub deferrable: bool,
    /// How often [`PgPool::transaction`](super::PgPool::transaction) runs its closure at most.
    /// Default 5; zero counts as one.
    pub attempts: u32,
}

impl TransactionOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self { isolation: None, read_only: false, deferrable: false, attempts: 5 }
    }

    /// Sets what the transaction sees of others.
    #[must_use]
    pub fn isolation(mut self, isolation: IsolationLevel) -> Self {
        self.isolation = Some(isolation);
        self
    }

    /// Sets whether writes are refused.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets whether a serializable read-only transaction waits until nothing can disturb it.
    #[must_use]
    pub fn deferrable(mut self, deferrable: bool) -> Self {
        self.deferrable = deferrable;
        self
    }

    /// Sets how often the closure runs at most.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    fn command(&self) -> String {
        let mut command = String::from("BEGIN");
        let isolation = match self.isolation {
            Some(IsolationLevel::ReadUncommitted) => " ISOLATION LEVEL READ UNCOMMITTED",
            Some(IsolationLevel::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(IsolationLevel::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            // The strictest there is, should the driver ever know a new one.
            Some(_) => " ISOLATION LEVEL SERIALIZABLE",
            None => "",
        };
        command.push_str(isolation);
        if self.read_only {
            command.push_str(" READ ONLY");
        }
        if self.deferrable {
            command.push_str(" DEFERRABLE");
        }
        command
    }
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A transaction on a connection of its own. Dropped without a commit, it is rolled back before
/// anyone else gets the connection.
///
/// The one that a closure gets from [`PgPool::transaction`](super::PgPool::transaction) is ended by
/// what the closure returns; its drop only says that the closure is done with it.
#[derive(Debug)]
pub struct PgTransaction {
    /// `Some` until it is ended or dropped.
    lease: Option<PgLease>,
    /// Savepoints that are open.
    depth: u32,
    /// The outermost savepoint that was dropped without an end, to be rolled back to before
    /// anything else happens.
    undo: Option<u32>,
    /// Who ends it, if not its drop.
    home: Option<Arc<Home>>,
}

/// Where a transaction goes when the closure that got it is done with it.
#[derive(Debug, Default)]
pub(super) struct Home(Mutex<Option<PgTransaction>>);

impl Home {
    pub(super) fn take(&self) -> Option<PgTransaction> {
        self.0.lock().take()
    }
}

impl PgTransaction {
    pub(super) async fn begin(
        lease: PgLease,
        options: &TransactionOptions,
        home: Option<Arc<Home>>,
    ) -> Result<Self, PoolError> {
        lease.batch_execute(&options.command()).await?;
        lease.conn().take_conflict();
        Ok(Self { lease: Some(lease), depth: 0, undo: None, home })
    }

    /// Runs a statement and returns all its rows.
    ///
    /// # Errors
    /// As [`PgLease::query`].
    pub async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, PoolError> {
        self.ready().await?.query(sql, params).await
    }

    /// Runs a statement that returns exactly one row.
    ///
    /// # Errors
    /// As [`PgLease::query_one`].
    pub async fn query_one(&mut self, sql: &str, params: Params<'_>) -> Result<Row, PoolError> {
        one(self.query(sql, params).await?)
    }

    /// Runs a statement that returns one row or none.
    ///
    /// # Errors
    /// As [`PgLease::query_one`].
    pub async fn query_opt(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Option<Row>, PoolError> {
        at_most_one(self.query(sql, params).await?)
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    /// As [`PgLease::query`].
    pub async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64, PoolError> {
        self.ready().await?.execute(sql, params).await
    }

    /// Runs several statements without values, separated by semicolons.
    ///
    /// # Errors
    /// As [`PgLease::query`].
    pub async fn batch_execute(&mut self, sql: &str) -> Result<(), PoolError> {
        self.ready().await?.batch_execute(sql).await
    }

    /// Begins a transaction inside this one, which can be taken back alone. Dropped without an end,
    /// it is taken back before the next statement.
    ///
    /// # Errors
    /// As [`PgLease::query`].
    pub async fn savepoint(&mut self) -> Result<PgSavepoint<'_>, PoolError> {
        let depth = self.depth;
        self.ready().await?.batch_execute(&format!("SAVEPOINT escala_{depth}")).await?;
        self.depth += 1;
        Ok(PgSavepoint { transaction: self, depth, ended: false })
    }

    /// Makes the transaction last.
    ///
    /// # Errors
    /// PostgreSQL answers `COMMIT` by a rollback when the transaction has failed, and with a
    /// warning when there is none any more, and calls both a success. Here they are the errors
    /// `25P02` and `25P01`. [`PoolError::CommitUnknown`] if the connection broke before the answer.
    ///
    /// # Cancellation
    /// If the future is dropped, the transaction is committed or rolled back as a whole.
    pub async fn commit(mut self) -> Result<(), PoolError> {
        self.ready().await?;
        commit(&self.end()).await
    }

    /// Makes the transaction last, and asks one thing more in the same round trip: both are sent
    /// before either is answered. The query runs after the commit, in a transaction of its own, so
    /// it sees what was committed; for example how far the log of the server had come by then.
    ///
    /// ```no_run
    /// # use escala_pool::{PgPool, PoolError};
    /// # async fn rename(pool: &PgPool) -> Result<(), PoolError> {
    /// let mut tx = pool.begin().await?;
    /// tx.execute("update users set name = 'b' where id = 1", &[]).await?;
    /// let position = "select pg_current_wal_insert_lsn()::text";
    /// // The transaction is done whatever became of the query.
    /// match tx.commit_and_query(position, &[]).await? {
    ///     Ok(rows) => println!("done at {}", rows[0].get::<_, String>(0)),
    ///     Err(error) => println!("done, at a position unknown: {error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The first time on a connection the query has to be prepared, which takes round trips of its
    /// own after the commit.
    ///
    /// # Errors
    /// The outer result is that of [`commit`](Self::commit) alone, and without a commit there is no
    /// answer. The inner one is that of [`PgLease::query`]; after it the transaction is as committed
    /// as after a success. DDL that makes the prepared query stale is one of its errors.
    ///
    /// # Cancellation
    /// As that of [`commit`](Self::commit); the query may have run or not.
    pub async fn commit_and_query(
        mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Result<Vec<Row>, PoolError>, PoolError> {
        self.ready().await?;
        let lease = self.end();
        let conn = lease.conn();
        // A transaction that will not be committed takes no query with it, and preparing one first
        // could fail the transaction.
        let together = conn.wire.transaction() == TransactionStatus::Active && conn.knows(sql);
        if !together {
            commit(&lease).await?;
            return Ok(lease.query(sql, params).await);
        }
        // In this order on the wire.
        let (committed, rows) = tokio::join! {
            biased;
            commit(&lease),
            lease.query(sql, params),
        };
        committed.map(|()| rows)
    }

    /// Takes the transaction back. Unlike a drop, it says when that is done.
    ///
    /// # Errors
    /// As [`PgLease::query`].
    pub async fn rollback(mut self) -> Result<(), PoolError> {
        self.end().batch_execute("ROLLBACK").await
    }

    /// Whether the server gave it up since it met another transaction.
    pub(super) fn met_conflict(&self) -> bool {
        self.lease().conn().take_conflict()
    }

    /// The connection, once what a dropped savepoint left is taken back.
    pub(super) async fn ready(&mut self) -> Result<&mut PgLease, PoolError> {
        if let Some(depth) = self.undo {
            self.lease().batch_execute(&undo(depth)).await?;
            self.undo = None;
        }
        Ok(self.lease.as_mut().expect("the lease is there until the end"))
    }

    fn lease(&self) -> &PgLease {
        self.lease.as_ref().expect("the lease is there until the end")
    }

    /// From here on the drop has nothing to do.
    fn end(&mut self) -> PgLease {
        self.lease.take().expect("the lease is there until the end")
    }
}

impl Drop for PgTransaction {
    fn drop(&mut self) {
        // Without a home the drop of the lease rolls back.
        if let Some(home) = self.home.take()
            && let Some(lease) = self.lease.take()
        {
            let (lease, home_again) = (Some(lease), None);
            let returned = Self { lease, depth: 0, undo: self.undo, home: home_again };
            *home.0.lock() = Some(returned);
        }
    }
}

async fn commit(lease: &PgLease) -> Result<(), PoolError> {
    let conn = lease.conn();
    // Where there is nothing to commit, the server is made to say so in its own words: the first
    // statement is refused and the second skipped.
    let (end, commits) = match conn.wire.transaction() {
        TransactionStatus::Active => ("COMMIT", true),
        TransactionStatus::Failed => ("SELECT 1; COMMIT", false),
        TransactionStatus::Idle => ("SAVEPOINT ended; COMMIT", false),
    };
    // On what was known to be gone before it was never sent.
    let sends = commits && !conn.is_gone();
    match lease.batch_execute(end).await {
        Err(PoolError::Postgres(error)) if sends && lost_server(&error) => {
            Err(PoolError::CommitUnknown(error))
        }
        result => result,
    }
}

fn undo(depth: u32) -> String {
    format!("ROLLBACK TO SAVEPOINT escala_{depth}; RELEASE SAVEPOINT escala_{depth}")
}

/// A transaction inside a transaction: see [`PgTransaction::savepoint`]. It has the verbs of the
/// outer one.
#[derive(Debug)]
pub struct PgSavepoint<'a> {
    transaction: &'a mut PgTransaction,
    depth: u32,
    ended: bool,
}

impl PgSavepoint<'_> {
    /// Makes it part of the outer transaction.
    ///
    /// # Errors
    /// As [`PgLease::query`]. After one of its statements failed this fails too, and what it did is
    /// taken back.
    pub async fn commit(mut self) -> Result<(), PoolError> {
        let release = format!("RELEASE SAVEPOINT escala_{}", self.depth);
        self.transaction.ready().await?.batch_execute(&release).await?;
        self.ended = true;
        Ok(())
    }

    /// Takes it back; the outer transaction goes on.
    ///
    /// # Errors
    /// As [`PgLease::query`].
    pub async fn rollback(mut self) -> Result<(), PoolError> {
        let undo = undo(self.depth);
        self.transaction.ready().await?.batch_execute(&undo).await?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for PgSavepoint<'_> {
    fn drop(&mut self) {
        self.transaction.depth = self.depth;
        if !self.ended {
            self.transaction.undo = Some(self.depth);
        }
    }
}

impl Deref for PgSavepoint<'_> {
    type Target = PgTransaction;

    fn deref(&self) -> &PgTransaction {
        self.transaction
    }
}

impl DerefMut for PgSavepoint<'_> {
    fn deref_mut(&mut self) -> &mut PgTransaction {
        self.transaction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_one_command() {
        let options = TransactionOptions::new();
        assert_eq!(options.command(), "BEGIN");
        let options = options.isolation(IsolationLevel::Serializable).read_only(true);
        assert_eq!(
            options.deferrable(true).command(),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"
        );
    }
}
