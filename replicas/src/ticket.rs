//! What must be known of a request to count it out.

use crate::{Reason, Role};

/// Two words, put together by hand. It goes from hand to hand with its pick, and what is written field by
/// field and then copied as a whole makes the processor wait, for longer than a counter costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// When the request began, by the clock of the [`Rota`](crate::rota::Rota), if it is timed.
    since: u64,
    /// From the lowest bit: the flags, the role, the reason; and the epoch in the upper half.
    marks: u64,
}

const SUBSTITUTING: u64 = 1;
const MEASURED: u64 = 2;
const ROLE: u32 = 8;
const REASON: u32 = 16;
const EPOCH: u32 = 32;

impl Ticket {
    const UNTIMED: u64 = u64::MAX;

    /// Of a request that was counted out. No other has these marks: there are not so many reasons.
    pub(crate) const ENDED: Self = Self { since: Self::UNTIMED, marks: u64::MAX };

    /// `epoch` is that of the node's health when it was picked.
    #[inline]
    pub(crate) fn new(epoch: u32, role: Role, reason: Reason) -> Self {
        let marks = u64::from(epoch) << EPOCH | (reason as u64) << REASON | (role as u64) << ROLE;
        Self { since: Self::UNTIMED, marks }
    }

    /// Whether it is a read that the primary serves for want of a replica.
    #[inline]
    pub(crate) fn substituting(self, substituting: bool) -> Self {
        self.marked(SUBSTITUTING, substituting)
    }

    /// Whether the node's latency is kept.
    #[inline]
    pub(crate) fn measured(self, measured: bool) -> Self {
        self.marked(MEASURED, measured)
    }

    /// Timed, from then on.
    #[inline]
    pub(crate) fn begun(self, since: u64) -> Self {
        Self { since, ..self }
    }

    #[cfg(feature = "http")]
    pub(crate) fn untimed(self) -> Self {
        self.begun(Self::UNTIMED)
    }

    #[inline]
    pub(crate) fn since(self) -> u64 {
        self.since
    }

    #[inline]
    pub(crate) fn is_timed(self) -> bool {
        self.since != Self::UNTIMED
    }

    #[inline]
    pub(crate) fn is_ended(self) -> bool {
        self.marks == Self::ENDED.marks
    }

    #[inline]
    pub(crate) fn is_substituting(self) -> bool {
        self.marks & SUBSTITUTING != 0
    }

    #[inline]
    pub(crate) fn is_measured(self) -> bool {
        self.marks & MEASURED != 0
    }

    #[inline]
    pub(crate) fn epoch(self) -> u32 {
        (self.marks >> EPOCH) as u32
    }

    pub(crate) fn role(self) -> Role {
        let role = self.marks >> ROLE & 0xFF;
        let is_it = |other: &Role| *other as u64 == role;
        [Role::Primary, Role::Replica].into_iter().find(is_it).unwrap_or(Role::None)
    }

    pub(crate) fn reason(self) -> Reason {
        let reason = self.marks >> REASON & 0xFFFF;
        // Always found: it was put in as one.
        let is_it = |other: &&Reason| **other as u64 == reason;
        Reason::ALL.iter().find(is_it).copied().unwrap_or(Reason::Balanced)
    }

    #[inline]
    fn marked(self, mark: u64, set: bool) -> Self {
        Self { marks: self.marks | if set { mark } else { 0 }, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        for &reason in Reason::ALL {
            for role in [Role::Primary, Role::Replica, Role::None] {
                for (epoch, flag) in [(0, false), (7, true), (u32::MAX, true)] {
                    let ticket =
                        Ticket::new(epoch, role, reason).substituting(flag).measured(!flag);
                    assert_eq!(
                        (ticket.epoch(), ticket.role(), ticket.reason()),
                        (epoch, role, reason)
                    );
                    assert_eq!((ticket.is_substituting(), ticket.is_measured()), (flag, !flag));
                    assert!(!ticket.is_ended() && !ticket.is_timed());
                    let timed = ticket.begun(5);
                    assert_eq!((timed.since(), timed.is_timed(), timed.epoch()), (5, true, epoch));
                }
            }
        }
        assert!(Ticket::ENDED.is_ended());
    }
}
