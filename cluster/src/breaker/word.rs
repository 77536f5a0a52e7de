//! Where a circuit stands, in one word that every call reads.

use super::State;

/// `epoch << 3 | code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

/// The two codes under which results count are those that differ in the last bit only.
const CLOSED: u64 = 0;
const RAMPING: u64 = 1;
const FORCED_CLOSED: u64 = 2;
const DISABLED: u64 = 3;
const HALF_OPEN: u64 = 4;
const OPEN: u64 = 5;
const FORCED_OPEN: u64 = 6;

impl Word {
    pub(super) fn new(epoch: u64, state: State, ramping: bool) -> Self {
        let code = match state {
            State::Closed if ramping => RAMPING,
            State::Closed => CLOSED,
            State::ForcedClosed => FORCED_CLOSED,
            State::Disabled => DISABLED,
            State::HalfOpen => HALF_OPEN,
            State::Open => OPEN,
            State::ForcedOpen => FORCED_OPEN,
        };
        Self(epoch << 3 | code)
    }

    #[inline]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn epoch(self) -> u64 {
        self.0 >> 3
    }

    pub(super) fn state(self) -> State {
        match self.0 & 7 {
            CLOSED | RAMPING => State::Closed,
            FORCED_CLOSED => State::ForcedClosed,
            DISABLED => State::Disabled,
            HALF_OPEN => State::HalfOpen,
            OPEN => State::Open,
            _ => State::ForcedOpen,
        }
    }

    /// Whether a call may go through without another question.
    #[inline]
    pub(super) fn admits_all(self) -> bool {
        self.0 & 7 == CLOSED
    }

    /// Whether the result of a call that was let in under this epoch counts.
    #[inline]
    pub(super) fn counts(self, epoch: u64) -> bool {
        self.0 >> 1 == epoch << 2
    }
}
