//! Why a call on a pool failed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::ConfigError;
use crate::stats::PoolSnapshot;

/// A cause that several callers may be told.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// Why a call on a pool failed.
///
/// `Display` says what happened in a few words; the cause stands in
/// [`source`](std::error::Error::source), down to the server's own error. No variant holds a
/// password or a parameter of a query.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// Every connection stayed in use until the deadline.
    AcquireTimeout {
        /// The time waited.
        waited: Duration,
        /// The pool when the deadline passed.
        pool: PoolSnapshot,
        /// The last connect that failed, if that was not long ago and none succeeded since: it may
        /// be why the pool has so few connections.
        cause: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// As many callers as allowed wait already.
    TooManyWaiters {
        /// The bound.
        limit: usize,
    },
    /// There was room in the pool, but no connection could be made or tested by the deadline.
    ConnectTimeout {
        /// The time waited.
        waited: Duration,
        /// The pool when the deadline passed.
        pool: PoolSnapshot,
        /// The last failure during the wait or shortly before, if there was one.
        cause: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// A connection could not be made and the pool has no other.
    Connect(Arc<dyn Error + Send + Sync>),
    /// The pool is closed, or the runtime in which it was made has ended.
    Closed,
    /// The configuration breaks a rule.
    Config(ConfigError),
    /// An earlier call on this lease was dropped before its end: drop the lease.
    #[cfg(feature = "postgres")]
    Interrupted,
    /// A query did not return as many rows as its verb promises.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    RowCount {
        /// The rows returned.
        found: usize,
    },
    /// The driver or the server failed.
    #[cfg(feature = "postgres")]
    Postgres(tokio_postgres::Error),
    /// A closure ended while its transaction was in use elsewhere, so it was not committed.
    #[cfg(feature = "postgres")]
    TransactionKept,
    /// The pool has as many listeners as it may.
    #[cfg(feature = "postgres")]
    TooManyListeners {
        /// The bound.
        limit: usize,
    },
    /// The connection broke after `COMMIT` was sent and before it was answered: nobody knows whether
    /// the transaction was committed. Look for what it should have done before doing it again.
    #[cfg(feature = "postgres")]
    CommitUnknown(tokio_postgres::Error),
    /// SQLite failed: in a closure, or while the group was committed.
    #[cfg(feature = "sqlite")]
    Sqlite(rusqlite::Error),
    /// This pool was opened for reading only.
    #[cfg(feature = "sqlite")]
    ReadOnly,
    /// The file of a backup could not be written.
    #[cfg(feature = "sqlite")]
    Backup(std::io::Error),
    /// The closure panicked; what it wrote was rolled back.
    #[cfg(feature = "sqlite")]
    Panicked {
        /// The message of the panic.
        message: String,
    },
    /// Another closure of the same group ended the transaction they share.
    #[cfg(feature = "sqlite")]
    GroupEnded,
    /// A closure of the same group, or this one, broke a constraint that is checked at the commit
    /// (`DEFERRABLE INITIALLY DEFERRED`, `PRAGMA defer_foreign_keys`). Nothing of the group was
    /// written. Made again, each runs in a transaction of its own, and the one at fault is told.
    #[cfg(feature = "sqlite")]
    GroupFailed(rusqlite::Error),
}

impl PoolError {
    /// Whether a deadline of the pool passed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::AcquireTimeout { .. } | Self::ConnectTimeout { .. } => true,
            Self::Connect(cause) => {
                matches!(cause.downcast_ref(), Some(HandshakeError::TimedOut(_)))
                    || cause_of(&**cause).is_some_and(|io: &std::io::Error| {
                        io.kind() == std::io::ErrorKind::TimedOut
                    })
            }
            _ => false,
        }
    }

    /// Whether there was too much work for the connections: nothing is wrong with the node.
    ///
    /// The server's own "too many connections" (`53300`) counts too.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        match self {
            Self::AcquireTimeout { .. } | Self::TooManyWaiters { .. } => true,
            Self::Connect(_) | Self::ConnectTimeout { .. } => self.sqlstate() == Some("53300"),
            _ => false,
        }
    }

    /// Whether the node is unreachable, died or is shutting down.
    ///
    /// Saturation, errors of a statement and errors of the caller are not that.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout { .. } => !self.is_saturated(),
            Self::Closed => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(error) => lost_server(error),
            #[cfg(feature = "postgres")]
            Self::CommitUnknown(_) => true,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => lost_file(error),
            _ => false,
        }
    }

    /// Whether the call had no effect and may succeed when it is made again.
    ///
    /// A connection lost while a statement ran is *not* retryable: nobody knows how far it came.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::AcquireTimeout { .. }
            | Self::TooManyWaiters { .. }
            | Self::ConnectTimeout { .. } => true,
            // Wrong role or password, unknown database: nothing changes by itself.
            #[cfg(not(feature = "postgres"))]
            Self::Connect(_) => true,
            #[cfg(feature = "postgres")]
            Self::Connect(cause) => {
                let refused = matches!(self.sqlstate(), Some("28000" | "28P01" | "3D000"));
                let lasts = crate::postgres::ServerError::is_lasting;
                !refused && !cause_of(&**cause).is_some_and(lasts)
            }
            #[cfg(feature = "postgres")]
            // Serialization failure, deadlock, starting up.
            Self::Postgres(_) => matches!(self.sqlstate(), Some("40001" | "40P01" | "57P03")),
            #[cfg(feature = "sqlite")]
            Self::GroupFailed(_) => true,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ),
            _ => false,
        }
    }

    /// Whether the database refused the values of a statement, which had no effect: a constraint, a
    /// wrong type, a number out of range, an exception that SQL raised. Other values may succeed.
    #[must_use]
    pub fn is_data(&self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            // Cardinality, data, integrity, `WITH CHECK OPTION`, PL/pgSQL.
            Self::Postgres(_) => self.sqlstate().is_some_and(|code| {
                ["21", "22", "23", "44", "P0"].iter().any(|class| code.starts_with(class))
            }),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::ConstraintViolation
                        | rusqlite::ErrorCode::TypeMismatch
                        | rusqlite::ErrorCode::TooBig
                )
            ),
            _ => false,
        }
    }

    /// The SQLSTATE that PostgreSQL answered with, also when it refused the connection.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        #[cfg(feature = "postgres")]
        {
            let error: &tokio_postgres::Error = match self {
                Self::Postgres(error) | Self::CommitUnknown(error) => error,
                Self::Connect(cause) | Self::ConnectTimeout { cause: Some(cause), .. } => {
                    cause_of(&**cause)?
                }
                _ => return None,
            };
            error.code().map(tokio_postgres::error::SqlState::code)
        }
        #[cfg(not(feature = "postgres"))]
        None
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcquireTimeout { waited, pool, .. } if pool.paused => {
                write!(f, "the pool stayed paused for {waited:?} ({pool})")
            }
            Self::AcquireTimeout { waited, pool, .. } => {
                write!(f, "all connections stayed in use for {waited:?} ({pool})")
            }
            Self::TooManyWaiters { limit } => {
                write!(f, "{limit} callers wait already, which is the limit")
            }
            Self::ConnectTimeout { waited, pool, .. } => {
                write!(f, "no connection could be made within {waited:?} ({pool})")
            }
            Self::Connect(_) => f.write_str("no connection could be made"),
            Self::Closed => f.write_str("the pool is closed"),
            Self::Config(_) => f.write_str("the configuration is invalid"),
            #[cfg(feature = "postgres")]
            Self::Interrupted => {
                f.write_str("an earlier call on this lease was dropped before its end")
            }
            #[cfg(any(feature = "postgres", feature = "sqlite"))]
            Self::RowCount { found } => {
                write!(f, "the query returned {found} rows instead of one")
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => match self.sqlstate() {
                Some(code) => write!(f, "postgresql answered with sqlstate {code}"),
                None => f.write_str("the call to postgresql failed"),
            },
            #[cfg(feature = "postgres")]
            Self::TransactionKept => f.write_str("the closure moved its transaction elsewhere"),
            #[cfg(feature = "postgres")]
            Self::TooManyListeners { limit } => {
                write!(f, "the pool has {limit} listeners already, which is the limit")
            }
            #[cfg(feature = "postgres")]
            Self::CommitUnknown(_) => {
                f.write_str("the connection broke after commit was sent: the outcome is unknown")
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => f.write_str("sqlite failed"),
            #[cfg(feature = "sqlite")]
            Self::ReadOnly => f.write_str("this pool was opened for reading only"),
            #[cfg(feature = "sqlite")]
            Self::Backup(_) => f.write_str("the backup could not be written"),
            #[cfg(feature = "sqlite")]
            Self::Panicked { message } => write!(f, "the closure panicked: {message}"),
            #[cfg(feature = "sqlite")]
            Self::GroupEnded => f.write_str("a closure ended the transaction it shared"),
            #[cfg(feature = "sqlite")]
            Self::GroupFailed(_) => {
                f.write_str("a deferred constraint failed the commit of several closures")
            }
        }
    }
}

impl Error for PoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The inside of the `Arc`, so that the caller can downcast it.
            Self::Connect(cause)
            | Self::AcquireTimeout { cause: Some(cause), .. }
            | Self::ConnectTimeout { cause: Some(cause), .. } => Some(&**cause),
            Self::Config(error) => Some(error),
            #[cfg(feature = "postgres")]
            Self::Postgres(error) | Self::CommitUnknown(error) => Some(error),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) | Self::GroupFailed(error) => Some(error),
            #[cfg(feature = "sqlite")]
            Self::Backup(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for PoolError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Why a connect failed for a reason that the driver does not know.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the handshake did not end within {0:?}")]
    TimedOut(Duration),
    #[error("the connect panicked: {0}")]
    Panicked(String),
    #[error("the test before use did not end within {0:?}")]
    TestTimedOut(Duration),
    #[error("the test before use panicked: {0}")]
    TestPanicked(String),
}

/// The message of a caught panic.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// The first error of one type among another and its causes.
fn cause_of<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| (*error).source())
        .find_map(|error| error.downcast_ref())
}

#[cfg(feature = "postgres")]
pub(crate) fn lost_server(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;

    if error.is_closed() {
        return true;
    }
    if let Some(code) = error.code() {
        let shutdown =
            [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
        return shutdown.contains(code);
    }
    // The driver reports a parameter that cannot be encoded as invalid input, also an I/O error.
    let io = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() != std::io::ErrorKind::InvalidInput)
}

#[cfg(feature = "sqlite")]
fn lost_file(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;

    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
        )
    )
}
