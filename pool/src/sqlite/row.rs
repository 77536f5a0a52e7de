//! A row that has left its connection.

use std::fmt;
use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlError, Value, ValueRef};
use rusqlite::{Row, Statement};

use crate::error::PoolError;

/// The names of the columns of one result.
pub(super) type Columns = Arc<[Box<str>]>;

/// A row of a result, with its values.
///
/// ```
/// # use escala_pool::{PoolError, SqliteRow};
/// fn price(row: &SqliteRow) -> Result<(String, i64), PoolError> {
///     Ok((row.try_get("symbol")?, row.try_get(1)?))
/// }
/// ```
#[derive(Clone)]
pub struct SqliteRow {
    columns: Columns,
    values: Box<[Value]>,
}

impl SqliteRow {
    pub(super) fn read(columns: &Columns, row: &Row<'_>) -> rusqlite::Result<Self> {
        let values = (0..columns.len()).map(|at| row.get(at));
        Ok(Self { columns: Arc::clone(columns), values: values.collect::<Result<_, _>>()? })
    }

    /// A value by the position or the name of its column.
    ///
    /// # Panics
    /// If there is no such column, or its value is not of this type. [`try_get`](Self::try_get)
    /// does not.
    #[must_use]
    #[track_caller]
    pub fn get<T: FromSql>(&self, column: impl Column) -> T {
        match self.try_get(column) {
            Ok(value) => value,
            Err(error) => panic!("{}", Chain(&error)),
        }
    }

    /// A value by the position or the name of its column.
    ///
    /// # Errors
    /// [`PoolError::Sqlite`] if there is no such column, or its value is not of this type.
    pub fn try_get<T: FromSql>(&self, column: impl Column) -> Result<T, PoolError> {
        let at = column.find(&self.columns).map_err(PoolError::Sqlite)?;
        let value = ValueRef::from(&self.values[at]);
        T::column_result(value).map_err(|error| PoolError::Sqlite(self.mismatch(at, value, error)))
    }

    /// The names of the columns.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(AsRef::as_ref)
    }

    /// The number of columns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there are no columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// As rusqlite reports it for a row that is still on its connection.
    fn mismatch(&self, at: usize, value: ValueRef<'_>, error: FromSqlError) -> rusqlite::Error {
        use rusqlite::Error;

        match error {
            FromSqlError::InvalidType => {
                Error::InvalidColumnType(at, self.columns[at].to_string(), value.data_type())
            }
            FromSqlError::OutOfRange(number) => Error::IntegralValueOutOfRange(at, number),
            FromSqlError::Other(error) => {
                Error::FromSqlConversionFailure(at, value.data_type(), error)
            }
            error => Error::FromSqlConversionFailure(at, value.data_type(), Box::new(error)),
        }
    }
}

/// The values may be secret, so only the columns are shown.
impl fmt::Debug for SqliteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteRow").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// What names a column of a [`SqliteRow`]: its position from zero, or its name.
pub trait Column: sealed::Find {}

impl Column for usize {}
impl Column for &str {}

mod sealed {
    use rusqlite::{Error, Result};

    pub trait Find {
        fn find(self, columns: &[Box<str>]) -> Result<usize>;
    }

    impl Find for usize {
        fn find(self, columns: &[Box<str>]) -> Result<usize> {
            if self < columns.len() { Ok(self) } else { Err(Error::InvalidColumnIndex(self)) }
        }
    }

    impl Find for &str {
        // In any case, as SQL has it.
        fn find(self, columns: &[Box<str>]) -> Result<usize> {
            let found = columns.iter().position(|name| name.eq_ignore_ascii_case(self));
            found.ok_or_else(|| Error::InvalidColumnName(self.to_owned()))
        }
    }
}

/// The names of the columns that a statement returns.
pub(super) fn columns(statement: &Statement<'_>) -> Columns {
    statement.column_names().map(Box::from).collect()
}

/// An error and its causes, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        self.0.source().map_or(Ok(()), |cause| write!(f, ": {}", Chain(cause)))
    }
}
