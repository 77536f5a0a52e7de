//! What a drain ends with: how, after how long, and what it had to cut.

use std::fmt;
use std::time::Duration;

use super::stats::DrainStats;

/// Things that are cut are listed up to this number, then counted: a line of a log is no place for
/// ten thousand.
pub(super) const CUT_LISTED: usize = 32;

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DrainEnd {
    /// Every connection was closed in good order, and every job ended.
    Finished,
    /// The deadline passed, and what was left was cut.
    Deadline,
    /// A second signal, or [`Drain::abort`](crate::Drain::abort), cut what was left.
    Aborted,
}

/// What is left of something that a drain did not wait for any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cut {
    /// What it was.
    pub kind: CutKind,
    /// A job's name; of a request, or of the one that upgraded its connection, method and path
    /// without query, the path shortened to 72 bytes.
    pub name: String,
    /// Time since its begin; of a request since its handler first had to wait.
    pub age: Duration,
}

/// What was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CutKind {
    /// A request whose response was not out.
    Request,
    /// A connection that spoke another protocol, such as a WebSocket.
    Upgraded,
    /// A registered [`Job`](crate::Job).
    Job,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            CutKind::Request => "request",
            CutKind::Upgraded => "upgraded",
            CutKind::Job => "job",
        };
        write!(f, "{kind} {} ({:.1} s)", self.name.escape_debug(), self.age.as_secs_f64())
    }
}

/// What became of what was open when the drain began or came during the lame duck. Servers that
/// share a [`Drain`](crate::Drain) share one account: each report covers all of them, as of its end.
///
/// `Display` makes it one line for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainReport {
    /// How it ended.
    pub end: DrainEnd,
    /// From its begin to the end, the lame duck included.
    pub elapsed: Duration,
    /// Connections closed in good order.
    pub connections_finished: u64,
    /// Connections cut.
    pub connections_cut: u64,
    /// Requests answered in full.
    pub requests_finished: u64,
    /// Requests cut with their connection.
    pub requests_cut: u64,
    /// Jobs that ended.
    pub jobs_ended: u64,
    /// Jobs that had not ended.
    pub jobs_cut: u64,
    /// What was cut, the oldest first, at most 32. Connections without a request are not named.
    pub cut: Vec<Cut>,
    /// Requests, upgraded connections and jobs cut that are not in the list: beyond its bound, or of
    /// a handler that blocks its thread.
    pub cut_unlisted: u64,
}

impl DrainReport {
    /// Whether nothing was cut.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.connections_cut == 0 && self.requests_cut == 0 && self.jobs_cut == 0
    }

    pub(super) fn between(
        before: DrainStats,
        after: DrainStats,
        end: DrainEnd,
        elapsed: Duration,
        (cut, listable): (Vec<Cut>, u64),
    ) -> Self {
        let ended = |stats: DrainStats| {
            stats.connections_finished_total + stats.connections_timed_out_total
        };
        // What still is there sits in a task that has not yet noticed.
        let left = |count: u64| if end == DrainEnd::Finished { 0 } else { count };
        let in_flight = left(after.requests_in_flight);
        let requests_cut = after.requests_cut_total - before.requests_cut_total + in_flight;
        let jobs_cut = after.jobs_cut_total - before.jobs_cut_total + left(after.jobs_running);
        let cut_unlisted = (listable + in_flight).saturating_sub(cut.len() as u64);
        Self {
            end,
            elapsed,
            connections_finished: ended(after) - ended(before),
            connections_cut: after.connections_cut_total - before.connections_cut_total,
            requests_finished: after.requests_finished_total - before.requests_finished_total,
            requests_cut,
            jobs_ended: after.jobs_ended_total - before.jobs_ended_total,
            jobs_cut,
            cut,
            cut_unlisted,
        }
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.end {
            DrainEnd::Finished => "finished",
            DrainEnd::Deadline => "ended at its deadline",
            DrainEnd::Aborted => "was aborted",
        };
        let Self { connections_finished, requests_finished, jobs_ended, .. } = self;
        write!(f, "drain {how} after {:.1} s: ", self.elapsed.as_secs_f64())?;
        write!(f, "{requests_finished} requests, {connections_finished} connections and ")?;
        write!(f, "{jobs_ended} jobs finished, ")?;
        if self.is_clean() {
            return f.write_str("nothing cut");
        }
        let Self { connections_cut, requests_cut, jobs_cut, .. } = self;
        write!(
            f,
            "{requests_cut} requests, {connections_cut} connections and {jobs_cut} jobs cut"
        )?;
        for (index, cut) in self.cut.iter().enumerate() {
            write!(f, "{} {cut}", if index == 0 { ":" } else { "," })?;
        }
        match self.cut_unlisted {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
