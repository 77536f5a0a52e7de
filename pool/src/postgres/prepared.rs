//! A statement made ready: under a name on one connection, or by the types of its values alone.

use std::error::Error as _;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type, WrongType};
use tokio_postgres::{Client, Error, Row, RowStream, Statement};

use super::connection::Params;
use super::statements::Cache;

/// What the texts of statements have been found to need, for all connections of a pool.
pub(super) type Known = Arc<Mutex<Cache<Types>>>;

/// The types of `$1`, `$2` and so on.
#[derive(Debug, Clone)]
pub(super) struct Types {
    values: Arc<[Type]>,
    /// Every type of values and columns is PostgreSQL's own, so every connection knows them.
    pub(super) built_in: bool,
}

impl Types {
    pub(super) fn of(statement: &Statement) -> Self {
        let columns = statement.columns().iter().map(tokio_postgres::Column::type_);
        let mut all = statement.params().iter().chain(columns);
        let built_in = all.all(|kind| Type::from_oid(kind.oid()).is_some());
        Self { values: statement.params().into(), built_in }
    }

    /// Each value with its type. One too many gets none, and the server says what is wrong.
    fn with<'a>(&self, params: Params<'a>) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
        let kinds = self.values.iter().cloned().chain(std::iter::repeat(Type::UNKNOWN));
        params.iter().copied().zip(kinds).collect()
    }
}

/// A statement that can be run.
#[derive(Debug, Clone)]
pub(super) enum Prepared {
    /// Known to the server by a name.
    Named(Statement),
    /// Parsed, bound and run in one message, so it does not matter which session of a pooler runs
    /// it.
    Unnamed(Types),
}

impl Prepared {
    pub(super) async fn query(
        &self,
        client: &Client,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        match self {
            Self::Named(statement) => client.query(statement, params).await,
            Self::Unnamed(types) => client.query_typed(sql, &types.with(params)).await,
        }
    }

    pub(super) async fn query_stream(
        &self,
        client: &Client,
        sql: &str,
        params: Params<'_>,
    ) -> Result<RowStream, Error> {
        match self {
            Self::Named(statement) => {
                let params = params.iter().map(|value| *value as &dyn ToSql);
                client.query_raw(statement, params).await
            }
            Self::Unnamed(types) => client.query_typed_raw(sql, types.with(params)).await,
        }
    }

    pub(super) async fn execute(
        &self,
        client: &Client,
        sql: &str,
        params: Params<'_>,
    ) -> Result<u64, Error> {
        match self {
            Self::Named(statement) => client.execute(statement, params).await,
            Self::Unnamed(types) => client.execute_typed(sql, &types.with(params)).await,
        }
    }

    /// Whether the error says that what was prepared does not fit any more, so that nothing was
    /// run. Named: the columns changed (`0A000`), or it was deallocated (`26000`). Unnamed: the
    /// types of the values do not fit what they are compared with or stored in. Both: a value is of
    /// another type, which the driver refuses to send.
    ///
    /// A procedure may commit and raise the same codes afterwards. Such an error says where in the
    /// procedure it was raised, and does not come from where the server looks up what it runs.
    pub(super) fn is_stale(&self, error: &Error) -> bool {
        let Some(error) = error.as_db_error() else {
            return error.source().is_some_and(|cause| cause.is::<WrongType>());
        };
        if error.where_().is_some() {
            return false;
        }
        let code = error.code();
        match self {
            Self::Named(_) if *code == SqlState::FEATURE_NOT_SUPPORTED => {
                error.routine() == Some("RevalidateCachedQuery")
            }
            Self::Named(_) if *code == SqlState::INVALID_SQL_STATEMENT_NAME => {
                error.routine() == Some("FetchPreparedStatement")
            }
            Self::Named(_) => false,
            Self::Unnamed(_) => {
                [SqlState::UNDEFINED_FUNCTION, SqlState::DATATYPE_MISMATCH, SqlState::CANNOT_COERCE]
                    .contains(code)
            }
        }
    }
}
