//! How far a replica is behind in time: what the primary's log had reached, and when.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Lsn;

/// Enough for more than the longest limit of lag, an hour, on a primary that never rests; one that
/// does costs nothing. A replica further behind is known to be at least that far.
const MOST: usize = 2_048;

/// When there are too many, marks may be so far apart, as a part of their age: a lag of a minute is
/// right to half a second, one of ten seconds to less than a tenth of one.
const THINNED: u32 = 128;

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
    /// Notes that the primary, asked at `at`, had written its log up to `lsn`. The time is that of the
    /// question: whatever was committed before it is at or before `lsn`, but for what was committed
    /// without waiting for the log (`synchronous_commit = off`). That is written within three times
    /// `wal_writer_delay`, and so much later it counts here. The end of the log in memory would be
    /// too far: what an open transaction has put there may stay for a quarter of a minute on an
    /// otherwise idle primary, and all replicas would seem to lag.
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
                    self.thin();
                }
                self.marks.push_back(mark);
            }
        }
    }

    /// Makes room, so that the reach is long and what is recent stays exact.
    fn thin(&mut self) {
        let Some(now) = self.marks.back().map(|mark| mark.last) else { return };
        let mut kept: VecDeque<Mark> = VecDeque::with_capacity(MOST);
        for (at, mark) in self.marks.iter().enumerate() {
            // Without it the distance between its neighbours would be this.
            let around = kept.back().zip(self.marks.get(at + 1));
            let gap = around.map(|(before, after)| after.last - before.last);
            let most = RESOLUTION.max((now - mark.last) / THINNED);
            if gap.is_none_or(|gap| gap > most) {
                kept.push_back(*mark);
            }
        }
        // At least so many new ones come before it is done again.
        let surplus = kept.len().saturating_sub(MOST / 4 * 3);
        kept.drain(..surplus);
        self.marks = kept;
    }

    /// When the primary was last heard on this timeline.
    pub(super) fn last_heard(&self, timeline: u32) -> Option<Instant> {
        self.of(timeline).map(|mark| mark.last)
    }

    /// How many bytes the primary was ahead when it was last heard.
    pub(super) fn bytes_ahead(&self, timeline: u32, replayed: Lsn) -> Option<u64> {
        self.of(timeline).map(|mark| mark.lsn.bytes_since(replayed))
    }

    /// Until when a replica has everything that the primary had, having replayed up to `replayed`.
    pub(super) fn complete_until(&self, timeline: u32, replayed: Lsn) -> Option<Instant> {
        self.of(timeline)?;
        self.passed(replayed).map(|mark| mark.last)
    }

    /// The newest mark at or before a place.
    fn passed(&self, replayed: Lsn) -> Option<&Mark> {
        let passed = self.marks.partition_point(|mark| mark.lsn <= replayed);
        passed.checked_sub(1).and_then(|last| self.marks.get(last))
    }

    /// How far behind a replica was at `now`, having replayed up to `replayed` then.
    ///
    /// One that has everything the primary was last known to have is not behind, unless that is
    /// longer than `current` ago: then nobody can tell what came after.
    pub(super) fn lag(&self, timeline: u32, replayed: Lsn, now: Instant, current: Duration) -> Lag {
        let Some(newest) = self.of(timeline) else { return Lag::Unknown };
        let since = |at: Instant| now.saturating_duration_since(at);
        match self.passed(replayed) {
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
