//! PostgreSQL: where the log stood after a commit, read in the same round trip, and whose fault an
//! error is.
//!
//! ```no_run
//! # use escala_replicas::{Session, session::postgres};
//! # async fn order(client: &tokio_postgres::Client) -> Result<(), tokio_postgres::Error> {
//! let mut session = Session::new();
//! // A transaction:
//! client.batch_execute("begin; insert into orders values (1); insert into items values (1, 7)").await?;
//! session.wrote(postgres::commit(client).await?);
//! // One statement by itself:
//! let insert = client.prepare("insert into orders values ($1)").await?;
//! let (rows, token) = postgres::execute(client, &insert, &[&2]).await?;
//! session.wrote(token);
//! # Ok(())
//! # }
//! ```
//!
//! A pool that can send a query behind a commit runs [`POSITION`] there and makes the row a token by
//! [`token`]; `escala-pool` does by `PgTransaction::commit_and_query`.
//!
//! The position is that of the log's end in memory (`pg_current_wal_insert_lsn`), which is not before
//! the commit even where `synchronous_commit` is off. A commit that is not flushed yet may still be
//! lost with the server; then its token is of a lost timeline, and the primary reads.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::SystemTime;

use futures_core::Stream;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, SimpleQueryMessage, Statement};

use super::{Fault, Token};
use crate::postgres::Lsn;

/// Answers, on a primary, one row with one text: system identifier, timeline and position. On
/// a standby it fails with 55000.
///
/// The timeline is that of the file that is written: the control file names the former one until the
/// first checkpoint after a promotion.
pub const POSITION: &str = "select system_identifier || ' ' || substr(pg_walfile_name(lsn), 1, 8) || ' ' || lsn \
     from pg_control_system(), pg_current_wal_insert_lsn() as lsn";

/// Commits the transaction that is open on this connection and tells where the log stood then, in
/// one message. If the commit succeeds and only the position cannot be read, the token is
/// [unplaced](Token::unplaced).
///
/// # Errors
/// What the server says to the commit. Unlike PostgreSQL's own `COMMIT`, which answers a failed
/// transaction by a rollback and calls that a success, this fails with 25P02 (and rolls back), and
/// with 25P01 where no transaction is open. When the connection breaks before the answer, nobody
/// knows whether the commit happened.
///
/// # Cancellation
/// A dropped future leaves the transaction committed or not, as a whole.
pub async fn commit(client: &Client) -> Result<Token, Error> {
    // Only a savepoint is refused both in a failed transaction and outside of one.
    const BEFORE: [&str; 2] = ["savepoint escala_commit", "commit"];
    let text = format!("{}; {POSITION}", BEFORE.join("; "));
    let mut answers = pin!(client.simple_query_raw(&text).await?);
    let (mut done, mut position) = (0, None);
    while let Some(answer) = poll_fn(|cx| answers.as_mut().poll_next(cx)).await {
        match answer {
            Ok(SimpleQueryMessage::CommandComplete(_)) => done += 1,
            Ok(SimpleQueryMessage::Row(row)) => position = row.get(0).map(str::to_owned),
            Ok(_) => {}
            // The rest was only about the position.
            Err(_) if done >= BEFORE.len() => break,
            Err(error) => {
                if error.code() == Some(&tokio_postgres::error::SqlState::IN_FAILED_SQL_TRANSACTION)
                {
                    // The caller's transaction is over either way, and the commit's error matters.
                    drop(client.batch_execute("rollback").await);
                }
                return Err(error);
            }
        }
    }
    Ok(placed(position.as_deref()))
}

/// Runs one statement outside of a transaction, so that it commits by itself, and tells where the log
/// stood then, in the same round trip. Inside of a transaction the token would be of a moment before
/// the commit, and worthless.
///
/// # Errors
/// What the server says to the statement. If only the position cannot be read, the token is
/// [unplaced](Token::unplaced).
pub async fn execute(
    client: &Client,
    statement: &Statement,
    params: &[&(dyn ToSql + Sync)],
) -> Result<(u64, Token), Error> {
    // The first poll sends, so these are sent in this order before either is answered.
    let (rows, position) = tokio::join! {
        biased;
        client.execute(statement, params),
        client.simple_query(POSITION),
    };
    Ok((rows?, of_answer(position)))
}

/// As [`execute`], for a statement that returns rows.
///
/// # Errors
/// As [`execute`].
pub async fn query(
    client: &Client,
    statement: &Statement,
    params: &[&(dyn ToSql + Sync)],
) -> Result<(Vec<Row>, Token), Error> {
    let (rows, position) = tokio::join! {
        biased;
        client.query(statement, params),
        client.simple_query(POSITION),
    };
    Ok((rows?, of_answer(position)))
}

/// The token in the row that [`POSITION`] answered; [unplaced](Token::unplaced) without a row, or
/// with another one.
#[must_use]
pub fn token(row: Option<&Row>) -> Token {
    placed(row.and_then(|row| row.try_get(0).ok()))
}

fn of_answer(answer: Result<Vec<SimpleQueryMessage>, Error>) -> Token {
    let messages = answer.unwrap_or_default();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    placed(row)
}

fn placed(position: Option<&str>) -> Token {
    let now = SystemTime::now();
    position.and_then(|text| parse(text, now)).unwrap_or_else(|| Token::unplaced(now))
}

/// `7311111111111111111 00000001 0/16B3748`
fn parse(text: &str, now: SystemTime) -> Option<Token> {
    let mut parts = text.split(' ');
    let (system, timeline, lsn) = (parts.next()?, parts.next()?, parts.next()?);
    // SQL has no unsigned numbers, so half of all systems have a negative one.
    let system = system.parse::<i64>().ok()?.cast_unsigned();
    let timeline = u32::from_str_radix(timeline, 16).ok()?;
    let lsn: Lsn = lsn.parse().ok()?;
    parts.next().is_none().then(|| Token::new(system, timeline, lsn.position(), now))
}

/// How the driver's text begins when no TLS session came about.
const TLS_FAILED: &str = "error performing TLS handshake";

/// Whose fault an error of the driver is: a classifier for
/// [`read_with`](crate::Replicas::read_with) and [`write_with`](crate::Replicas::write_with).
///
/// 25006 is taken for "not a primary", which is also what a write in a `READ ONLY` transaction
/// gets: do not classify those by this.
#[must_use]
pub fn fault(error: &Error) -> Fault {
    if let Some(code) = error.code() {
        return fault_of_code(code.code());
    }
    if error.is_closed() {
        return Fault::Node;
    }
    // The handshake comes before all that is sent. The driver tells its kinds of errors by text only.
    if error.to_string().starts_with(TLS_FAILED) {
        return Fault::NotSent;
    }
    let io = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match io.map(io::Error::kind) {
        // Only a connect is refused, and before it nothing can have been sent.
        Some(io::ErrorKind::ConnectionRefused) => Fault::NotSent,
        // The driver reports a parameter that it cannot encode like this.
        None | Some(io::ErrorKind::InvalidInput) => Fault::Operation,
        Some(_) => Fault::Node,
    }
}

/// Whose fault the answer with this SQLSTATE is, wherever it was found.
#[must_use]
pub fn fault_of_code(sqlstate: &str) -> Fault {
    match sqlstate {
        // Read-only: a standby.
        "25006" => Fault::NotPrimary,
        // Starting up, or shutting down already when the connection came: nobody was let in.
        "57P03" => Fault::NotSent,
        // Too many connections.
        "53300" => Fault::Busy,
        // Serialization failure, which is also a conflict with recovery; deadlock.
        "40001" | "40P01" => Fault::Conflict,
        // Shutdown by an administrator or after a crash, and what a conflict with recovery does to
        // the sessions of a dropped database; connections broken on the way.
        "57P01" | "57P02" | "57P04" => Fault::Node,
        code if code.starts_with("08") => Fault::Node,
        // The server's disk or memory: I/O errors, corrupted data.
        code if code.starts_with("58") || code.starts_with("XX") => Fault::Node,
        _ => Fault::Operation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_parsed_whole_or_not_at_all() {
        let now = SystemTime::now();
        let at = |text| parse(text, now);
        let system = 7_311_111_111_111_111_111;
        let expected = Token::new(system, 26, 0x1_016B_3748, now);
        assert_eq!(at("7311111111111111111 0000001A 1/16B3748"), Some(expected));
        let negative = Token::new(u64::MAX, 1, 0, now);
        assert_eq!(at("-1 00000001 0/0"), Some(negative));
        for text in ["", " ", "1 1", "1 1 1", "1 1 1/1 1", "x 1 0/0", "1 x 0/0", "1 1 100000000/0"]
        {
            assert_eq!(at(text), None, "{text}");
        }
        assert!(placed(Some("nonsense")).is_unplaced() && placed(None).is_unplaced());
    }

    #[test]
    fn codes_tell_whose_fault_it_is() {
        for (code, fault) in [
            ("25006", Fault::NotPrimary),
            ("57P03", Fault::NotSent),
            ("40001", Fault::Conflict),
            ("57P01", Fault::Node),
            ("08006", Fault::Node),
            ("58030", Fault::Node),
            ("53300", Fault::Busy),
            // A statement that ran too long, a duplicate.
            ("57014", Fault::Operation),
            ("23505", Fault::Operation),
            ("", Fault::Operation),
        ] {
            assert_eq!(fault_of_code(code), fault, "{code}");
        }
        assert_eq!((Fault::from(true), Fault::from(false)), (Fault::Node, Fault::Operation));
    }
}
