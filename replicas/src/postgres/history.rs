//! How far a replica is behind in time: what the primary's log had reached, and when.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Lsn;

/// At five samples a second over three minutes of a primary that never rests; one that does costs
/// nothing. A replica further behind is known to be at least that far.
const MOST: usize = 1_024;

/// Samples closer than this are kept as one, so that a burst of them cannot shorten the reach.
const RESOLUTION: Duration = Duration::from_millis(50);

/// How long ago the primary had what the replica has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lag {
    /// The primary's log has not been seen on the replica's timeline.
    Unknown,
    /// The replica lacks something that the primary had this long ago.
    AtLeast(Duration),
    /// The replica has everything that the primary had this long ago.
    Known(Duration),
}

/// A place that the primary's log had reached.
#[derive(Debug, Clone, Copy)]
struct Mark {
    lsn: Lsn,
    /// The first and the last time it was seen there.
    first: Instant,
    last: Instant,
}

/// The primary's log over time, on one timeline.
///
/// Timestamps of transactions would not do: on an idle primary they grow old although nothing is
/// missing. Nor would what the replica says it received: a stopped walreceiver says it has all.
#[derive(Debug, Default)]
pub(super) struct History {
    timeline: u32,
    /// Both `lsn` and the times ascend.
    marks: VecDeque<Mark>,
}

impl History {
    /// Notes that the primary, asked at `at`, had reached `lsn`. The time is that of the question:
    /// whatever was committed before it is at or before `lsn`.
    pub(super) fn record(&mut self, timeline: u32, lsn: Lsn, at: Instant) {
        if timeline != self.timeline {
            // What the old primary reached after the point of parting is in no way comparable.
            self.timeline = timeline;
            self.marks.clear();
        }
        // A log that shrank has lost its end in a crash; nothing was ever sent from there.
        while self.marks.back().is_some_and(|mark| mark.lsn > lsn) {
            self.marks.pop_back();
        }
        match self.marks.back_mut() {
            Some(mark) if mark.lsn == lsn => mark.last = mark.last.max(at),
            Some(mark) if mark.last > at => {}
            _ => self.push(Mark { lsn, first: at, last: at }),
        }
    }

    fn push(&mut self, mark: Mark) {
        let before = self.marks.len().checked_sub(2).and_then(|at| self.marks.get(at)).copied();
        match (before, self.marks.back_mut()) {
            // The oldest of a burst stays: it is what a replica may be waiting to pass.
            (Some(before), Some(last)) if last.last - before.last < RESOLUTION => *last = mark,
            _ => {
                if self.marks.len() == MOST {
                    self.marks.pop_front();
                }
                self.marks.push_back(mark);
            }
        }
    }

    /// When the primary was last heard on this timeline.
    pub(super) fn last_heard(&self, timeline: u32) -> Option<Instant> {
        self.of(timeline).map(|mark| mark.last)
    }

    /// How many bytes the primary was ahead when it was last heard.
    pub(super) fn bytes_ahead(&self, timeline: u32, replayed: Lsn) -> Option<u64> {
        self.of(timeline).map(|mark| mark.lsn.bytes_since(replayed))
    }

    /// How far behind a replica was at `now`, having replayed up to `replayed` then.
    ///
    /// One that has everything the primary was last known to have is not behind, unless that is
    /// longer than `current` ago: then nobody can tell what came after.
    pub(super) fn lag(&self, timeline: u32, replayed: Lsn, now: Instant, current: Duration) -> Lag {
        let Some(newest) = self.of(timeline) else { return Lag::Unknown };
        let passed = self.marks.partition_point(|mark| mark.lsn <= replayed);
        let since = |at: Instant| now.saturating_duration_since(at);
        match passed.checked_sub(1).and_then(|last| self.marks.get(last)) {
            Some(mark) if mark.lsn == newest.lsn && since(mark.last) <= current => {
                Lag::Known(Duration::ZERO)
            }
            Some(mark) => Lag::Known(since(mark.last)),
            None => Lag::AtLeast(self.marks.front().map_or(Duration::ZERO, |m| since(m.first))),
        }
    }

    /// The newest mark, if the history is of this timeline.
    fn of(&self, timeline: u32) -> Option<Mark> {
        self.marks.back().copied().filter(|_| timeline == self.timeline)
    }
}

#[cfg(test)]
mod tests;
