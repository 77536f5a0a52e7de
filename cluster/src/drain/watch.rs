//! What the one timer of a connection is set for. Pure: what the connection does is an argument.
//!
//! The timer is set for a head only if that has not arrived whole at once, and for idleness not
//! anew after each request: it looks back when it fires. A connection under load never touches it.

use std::time::Duration;

use super::DrainConfig;
use super::conn::Activity;

/// How long a client may take to close its side once ours is closed: a round trip, and what is still
/// on its way. One of HTTP/2 that is heard of meanwhile is still reading, and gets as long again.
const PARTING: Duration = Duration::from_secs(1);

/// So often at most.
const PARTINGS: u8 = 60;

/// The first two carry the number of moves when they were set: another number means that something
/// has happened since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// The head of a request must have arrived.
    Head(u64),
    /// A request must have come.
    Idle(u64),
    /// The client must have taken something of the response: the number of stalls.
    Write(u64),
    /// The server closes: a request may still come.
    Linger,
    /// Our side is closed, or all is said: the client has to close the other one. With the traffic seen
    /// when that was set, and how often it may be set anew.
    Part(u64, u8),
}

/// What to do when the timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Close in good order: there is nothing to lose.
    Close,
    /// Close at once: the client does not finish what it began.
    TimeOut,
    /// Nothing is left to wait for.
    End,
    /// Nothing; set the timer for this.
    Set(Watch),
}

impl Watch {
    pub(super) fn parts(traffic: u64) -> Self {
        Self::Part(traffic, PARTINGS)
    }

    /// What to set the timer for instead, now that the connection waits.
    pub(super) fn instead(self, activity: Activity, moves: u64, closing: bool) -> Option<Self> {
        match activity {
            Activity::Head => Some(Self::Head(moves)).filter(|head| *head != self),
            Activity::Fresh | Activity::Idle if closing && self != Self::Linger => {
                Some(Self::Linger)
            }
            Activity::Fresh | Activity::Idle | Activity::Busy => None,
        }
    }

    /// `stall` is odd while a write waits for the client, and grows with each byte it takes then.
    pub(super) fn due(self, activity: Activity, moves: u64, stall: u64, traffic: u64) -> Due {
        let stalled = stall % 2 == 1;
        match (self, activity) {
            (Self::Part(then, left @ 1..), _) if then != traffic => {
                Due::Set(Self::Part(traffic, left - 1))
            }
            (Self::Part(..), _) => Due::End,
            (Self::Write(then), _) if stalled && then == stall => Due::TimeOut,
            // What is idle with a write that waits has the end of its response in a buffer.
            (Self::Write(_) | Self::Idle(_), Activity::Busy | Activity::Idle) if stalled => {
                Due::Set(Self::Write(stall))
            }
            (Self::Head(then), Activity::Fresh | Activity::Head) if then == moves => Due::TimeOut,
            (Self::Idle(then), Activity::Idle) if then == moves => Due::Close,
            (Self::Linger, Activity::Fresh | Activity::Idle) => Due::Close,
            (_, Activity::Busy) => Due::Set(Self::Write(stall)),
            _ => Due::Set(Self::Idle(moves)),
        }
    }

    pub(super) fn time(self, config: &DrainConfig) -> Duration {
        match self {
            Self::Head(_) => config.header_read_timeout,
            Self::Idle(_) => config.idle_timeout,
            Self::Write(_) => config.write_timeout,
            Self::Linger => config.idle_linger,
            Self::Part(..) => PARTING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_does_not_end_times_out_and_one_that_did_does_not() {
        for (activity, moves, due) in [
            (Activity::Fresh, 0, Due::TimeOut),
            (Activity::Head, 0, Due::TimeOut),
            (Activity::Busy, 1, Due::Set(Watch::Write(0))),
            (Activity::Idle, 1, Due::Set(Watch::Idle(1))),
            (Activity::Head, 1, Due::Set(Watch::Idle(1))),
        ] {
            assert_eq!(Watch::Head(0).due(activity, moves, 0, 0), due, "{activity:?} {moves}");
        }
    }

    #[test]
    fn idleness_closes_only_a_connection_on_which_nothing_has_happened() {
        for (activity, moves, due) in [
            (Activity::Idle, 3, Due::Close),
            (Activity::Idle, 4, Due::Set(Watch::Idle(4))),
            (Activity::Busy, 4, Due::Set(Watch::Write(0))),
        ] {
            assert_eq!(Watch::Idle(3).due(activity, moves, 0, 0), due, "{activity:?} {moves}");
        }
    }

    #[test]
    fn a_client_that_takes_nothing_times_out_and_one_that_takes_little_does_not() {
        for (watch, activity, stall, due) in [
            (Watch::Idle(1), Activity::Busy, 5, Due::Set(Watch::Write(5))),
            (Watch::Idle(1), Activity::Idle, 5, Due::Set(Watch::Write(5))),
            (Watch::Write(5), Activity::Busy, 5, Due::TimeOut),
            (Watch::Write(5), Activity::Idle, 5, Due::TimeOut),
            (Watch::Write(5), Activity::Busy, 7, Due::Set(Watch::Write(7))),
            (Watch::Write(4), Activity::Busy, 4, Due::Set(Watch::Write(4))),
            (Watch::Write(5), Activity::Idle, 6, Due::Set(Watch::Idle(1))),
        ] {
            assert_eq!(watch.due(activity, 1, stall, 0), due, "{watch:?} {activity:?} {stall}");
        }
    }

    #[test]
    fn a_client_that_is_heard_of_parts_later_and_not_never() {
        let due = |watch: Watch, traffic| watch.due(Activity::Idle, 1, 0, traffic);
        assert_eq!(due(Watch::Part(7, 2), 7), Due::End);
        assert_eq!(due(Watch::Part(7, 2), 9), Due::Set(Watch::Part(9, 1)));
        assert_eq!(due(Watch::Part(9, 0), 11), Due::End);
    }

    #[test]
    fn a_closing_server_lingers_over_the_idle_and_waits_for_heads() {
        assert_eq!(Watch::Idle(3).instead(Activity::Idle, 3, true), Some(Watch::Linger));
        assert_eq!(Watch::Head(0).instead(Activity::Fresh, 0, true), Some(Watch::Linger));
        assert_eq!(Watch::Linger.instead(Activity::Idle, 3, true), None);
        assert_eq!(Watch::Linger.instead(Activity::Head, 3, true), Some(Watch::Head(3)));
        assert_eq!(Watch::Head(3).instead(Activity::Head, 3, true), None);
        assert_eq!(Watch::Linger.instead(Activity::Busy, 4, true), None);
        assert_eq!(Watch::Linger.due(Activity::Idle, 3, 0, 0), Due::Close);
        assert_eq!(Watch::Idle(3).instead(Activity::Idle, 3, false), None);
    }
}
