//! Single statements, by the verbs that the PostgreSQL pool has.

use std::ops::RangeInclusive;
use std::panic::Location;

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, StatementStatus, ToSql, params_from_iter};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::brief::Tried;
use super::row::{SqliteRow, columns};
use super::{JobError, SqlitePool};
use crate::error::PoolError;

/// What a read on its caller's thread takes of a task's 128 units, which are meant for steps of less
/// than a microsecond: after 16 reads another task has its turn.
const UNITS: usize = 8;

/// The values of a statement, in the order of `?1`, `?2` and so on.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Single statements. Each is prepared once per connection and found by its text, so put values
/// into `params`, never into the text.
impl SqlitePool {
    /// Runs a statement and returns all its rows.
    ///
    /// One that only reads runs on a reader. One that writes, such as `INSERT .. RETURNING`, runs
    /// on the writer, as [`write`](Self::write) does; if that is not seen from its first word it
    /// costs one more hop. A `PRAGMA` tells about, and changes, the one connection it meets.
    ///
    /// # Errors
    /// [`PoolError::Sqlite`]; [`PoolError::ReadOnly`]; that too much waits, or the pool is closed.
    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<SqliteRow>, PoolError> {
        self.rows(sql, params, 0..=usize::MAX).await
    }

    /// Runs a statement that returns exactly one row. One that writes is rolled back if it returns
    /// none or several.
    ///
    /// # Errors
    /// As [`query`](Self::query), and [`PoolError::RowCount`].
    pub async fn query_one(&self, sql: &str, params: Params<'_>) -> Result<SqliteRow, PoolError> {
        let mut rows = self.rows(sql, params, 1..=1).await?;
        rows.pop().ok_or(PoolError::RowCount { found: 0 })
    }

    /// Runs a statement that returns one row or none. One that writes is rolled back if it returns
    /// several.
    ///
    /// # Errors
    /// As [`query_one`](Self::query_one).
    pub async fn query_opt(
        &self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Option<SqliteRow>, PoolError> {
        Ok(self.rows(sql, params, 0..=1).await?.pop())
    }

    /// Runs a statement that is to return so many rows.
    async fn rows(
        &self,
        sql: &str,
        params: Params<'_>,
        expected: RangeInclusive<usize>,
    ) -> Result<Vec<SqliteRow>, PoolError> {
        let checked = move |rows: Vec<SqliteRow>| match rows.len() {
            found if expected.contains(&found) => Ok(rows),
            found => Err(PoolError::RowCount { found }),
        };
        let call = Statement::new(sql, params)?;
        let call = if writes(sql) {
            call
        } else {
            match self.select(call).await? {
                Ok(rows) => return checked(rows),
                Err(call) => call,
            }
        };
        // Checked inside, so that the error rolls back what was written.
        let write = move |conn: &Connection| checked(call.rows(conn).map_err(PoolError::Sqlite)?);
        self.write(write).await.map_err(JobError::flatten)
    }

    /// Runs a statement that only reads, here or on a reader; gives one that writes back.
    async fn select(
        &self,
        call: Statement,
    ) -> Result<Result<Vec<SqliteRow>, Statement>, PoolError> {
        let inline = self.inner.inline.as_ref();
        let inline = inline.and_then(|inline| Some((inline, inline.identify(&call.sql)?)));
        if let Some((inline, text)) = inline {
            // A task that only reads here would never let others run.
            for _ in 0..UNITS {
                consume_budget().await;
            }
            match inline.run(text, &call, &self.inner.reads) {
                Tried::Ran { found, took } => {
                    self.inner.meter.ran_inline(took, Location::caller());
                    return match found.map_err(PoolError::Sqlite)? {
                        Found::Rows { rows, .. } => Ok(Ok(rows)),
                        Found::Writes => Ok(Err(call)),
                    };
                }
                Tried::Ended => self.inner.meter.moved(),
                Tried::NotNow => {}
            }
        }
        let (call, found, took) = self
            .read(move |conn| {
                let begun = Instant::now();
                let found = call.select(conn)?;
                Ok::<_, rusqlite::Error>((call, found, begun.elapsed()))
            })
            .await?;
        Ok(match found {
            Found::Rows { rows, steps } => {
                if let Some((inline, text)) = inline {
                    inline.learn(text, steps, took);
                }
                Ok(rows)
            }
            Found::Writes => Err(call),
        })
    }

    /// Runs a statement on the writer and returns the number of rows it changed, or returned if it
    /// changes none. Concurrent ones share a transaction and its commit, and still succeed or fail
    /// by themselves.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, PoolError> {
        let call = Statement::new(sql, params)?;
        Ok(self.write(move |conn| call.execute(conn)).await?)
    }

    /// Runs several statements without values, separated by semicolons, on the writer: all or none.
    /// They must not begin or end a transaction.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn batch_execute(&self, sql: &str) -> Result<(), PoolError> {
        let sql = sql.to_owned();
        Ok(self.write(move |conn| conn.execute_batch(&sql)).await?)
    }
}

/// A statement on its way to a connection.
pub(super) struct Statement {
    sql: String,
    values: Vec<Value>,
}

/// What a statement turned out to be that was taken for a read.
pub(super) enum Found {
    /// A read, and the instructions that it took.
    Rows { rows: Vec<SqliteRow>, steps: usize },
    /// A write, which was not run.
    Writes,
}

impl Statement {
    fn new(sql: &str, params: Params<'_>) -> Result<Self, PoolError> {
        let values = params.iter().map(|param| owned(*param)).collect::<Result<_, _>>();
        Ok(Self { sql: sql.to_owned(), values: values.map_err(PoolError::Sqlite)? })
    }

    /// Runs a statement if it only reads.
    pub(super) fn select(&self, conn: &Connection) -> rusqlite::Result<Found> {
        let mut statement = conn.prepare_cached(&self.sql)?;
        if !statement.readonly() {
            return Ok(Found::Writes);
        }
        statement.reset_status(StatementStatus::VmStep);
        let rows = self.fetch(&mut statement)?;
        let steps = statement.get_status(StatementStatus::VmStep);
        Ok(Found::Rows { rows, steps: steps.try_into().unwrap_or(usize::MAX) })
    }

    fn rows(&self, conn: &Connection) -> rusqlite::Result<Vec<SqliteRow>> {
        self.fetch(&mut *conn.prepare_cached(&self.sql)?)
    }

    fn fetch(&self, statement: &mut rusqlite::Statement<'_>) -> rusqlite::Result<Vec<SqliteRow>> {
        let mut rows = statement.query(params_from_iter(&self.values))?;
        // After the first step, since SQLite prepares anew when a table has changed.
        let Some(first) = rows.next()? else { return Ok(Vec::new()) };
        let columns = columns(first.as_ref());
        let mut all = vec![SqliteRow::read(&columns, first)?];
        while let Some(row) = rows.next()? {
            all.push(SqliteRow::read(&columns, row)?);
        }
        Ok(all)
    }

    fn execute(&self, conn: &Connection) -> rusqlite::Result<u64> {
        let before = conn.total_changes();
        let mut statement = conn.prepare_cached(&self.sql)?;
        let mut rows = statement.query(params_from_iter(&self.values))?;
        let mut returned = 0;
        while rows.next()?.is_some() {
            returned += 1;
        }
        drop(rows);
        // `changes` tells of the last statement that changed anything, which may be another one.
        let changed = conn.total_changes() > before;
        Ok(match (statement.readonly(), changed) {
            (true, _) => returned,
            (false, true) => conn.changes(),
            (false, false) => 0,
        })
    }
}

fn owned(param: &(dyn ToSql + Sync)) -> rusqlite::Result<Value> {
    match param.to_sql()? {
        ToSqlOutput::Owned(value) => Ok(value),
        ToSqlOutput::Borrowed(value) => {
            value.try_into().map_err(|error: rusqlite::types::FromSqlError| {
                rusqlite::Error::ToSqlConversionFailure(Box::new(error))
            })
        }
        _ => Err(rusqlite::Error::ToSqlConversionFailure("a value of this kind".into())),
    }
}

/// Whether a statement writes, as far as its first word tells.
fn writes(sql: &str) -> bool {
    let sql = sql.trim_start();
    let end = sql.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(sql.len());
    ["insert", "update", "delete", "replace"]
        .iter()
        .any(|word| sql[..end].eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_writes_is_known_by_its_first_word() {
        for (sql, expected) in [
            ("insert into t values (1)", true),
            ("  UPDATE t set a = 1", true),
            ("delete", true),
            ("replace into t values (1)", true),
            ("select replace('a', 'b', 'c')", false),
            ("with x as (select 1) insert into t select * from x", false),
            ("inserted", false),
            ("", false),
            ("ünsert", false),
        ] {
            assert_eq!(writes(sql), expected, "{sql}");
        }
    }
}
