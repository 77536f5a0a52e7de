//! One question to a server, and its answer.

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::Lsn;
use crate::BoxError;

/// Everything in one statement and one round trip; under 0.3 ms of the server's time.
///
/// `pg_is_in_recovery` is asked once (`offset 0` keeps the subquery), for a promotion may come in
/// between: it goes only from true to false, so the functions that a standby refuses are safe.
///
/// The timeline of a primary is taken from the name of the file it writes: `pg_control_checkpoint`
/// tells the old one until the first checkpoint after a promotion, minutes later. On a standby
/// the control file is as late; what the walreceiver receives is what will be replayed next, and
/// a standby never receives a timeline that it could not replay from where it stands. While nothing
/// is received, what was received last tells whether it goes on by an archive instead: it outlives the
/// walreceiver, and begins anew only with another timeline or another run.
const QUESTION: &str = "\
select in_recovery,
 case when in_recovery then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
 case when not in_recovery then substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end,
 (select count(*) from pg_stat_wal_receiver where in_recovery),
 (select received_tli from pg_stat_wal_receiver where in_recovery),
 (select system_identifier from pg_control_system()),
 pg_postmaster_start_time(),
 case when in_recovery then pg_last_wal_receive_lsn() end
from (select pg_is_in_recovery() as in_recovery offset 0) as server";

/// What a server said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) system: u64,
    /// When the server was started, as it writes it: another run may be on another timeline.
    pub(super) run: Box<str>,
    pub(super) state: State,
}

/// What a server does, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It replays. The timeline is unknown while nothing is received; the place, before the first
    /// record was replayed; how far it has received, before anything was.
    Standby { timeline: Option<u32>, replayed: Option<Lsn>, received: Option<Lsn> },
    /// It takes writes.
    Writable { timeline: u32, written: Lsn },
}

/// An answer that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SampleError {
    #[error("the server's answer has no readable {0}")]
    Unreadable(&'static str),
    #[error("the monitor's role must not see pg_stat_wal_receiver: grant it pg_monitor")]
    Forbidden,
}

/// Asks a server.
pub(super) async fn ask(client: &Client) -> Result<Sample, BoxError> {
    let messages = client.simple_query(QUESTION).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or(SampleError::Unreadable("row"))?;
    Ok(read(|column| text(row, column))?)
}

fn text(row: &SimpleQueryRow, column: usize) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

/// Reads the columns of [`QUESTION`].
fn read<'a>(column: impl Fn(usize) -> Option<&'a str>) -> Result<Sample, SampleError> {
    use SampleError::{Forbidden, Unreadable};

    let in_recovery = match column(0) {
        Some("t") => true,
        Some("f") => false,
        _ => return Err(Unreadable("recovery state")),
    };
    let lsn = |at| column(at).map(|text| text.parse::<Lsn>()).transpose();
    let place = lsn(1).map_err(|_| Unreadable("place in the log"))?;
    let received = lsn(7).map_err(|_| Unreadable("received place"))?;
    let state = if in_recovery {
        let timeline = match column(4) {
            Some(text) => Some(text.parse().map_err(|_| Unreadable("received timeline"))?),
            // There is a walreceiver, but what it does is hidden.
            None if column(3) != Some("0") => return Err(Forbidden),
            None => None,
        };
        State::Standby { timeline, replayed: place, received }
    } else {
        let timeline = column(2).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        State::Writable {
            timeline: timeline.ok_or(Unreadable("timeline"))?,
            written: place.ok_or(Unreadable("place in the log"))?,
        }
    };
    // The server holds it unsigned and shows it signed.
    let system = column(5).and_then(|text| text.parse::<i64>().ok());
    Ok(Sample {
        system: system.ok_or(Unreadable("system identifier"))?.cast_unsigned(),
        run: column(6).ok_or(Unreadable("start time"))?.into(),
        state,
    })
}

#[cfg(test)]
mod tests;
