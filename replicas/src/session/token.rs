//! A point in the history of a database: what a session has written must be there to be read.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a token counts. A replica further behind than this is of no use to a reader anyway, and
/// it ends what no replica can satisfy: the write of a timeline that was lost, say. GitLab's and
/// others' figure.
pub const TOKEN_LIFE: Duration = Duration::from_secs(30);

/// Where the history stood after a write: a replica that shows this much shows the write.
///
/// Read it together with the commit, on the connection of the commit: `session::postgres` does so
/// for PostgreSQL (feature `postgres`). A position from before the commit proves nothing.
///
/// Tokens say nothing across histories. One that is of another [`timeline`](Self::timeline) than
/// a replica, or of another [`system`](Self::system), may be of a write that was lost with an old
/// primary or never was there: no replica satisfies it, so the primary reads until it expires.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    system: u64,
    timeline: u32,
    position: u64,
    /// Milliseconds since 1970. A token travels between machines, so it is the wall clock's.
    issued: u64,
}

/// No log reaches it.
const NOWHERE: u64 = u64::MAX;

impl Token {
    /// The write is in this position of this timeline of this system (PostgreSQL: LSN, timeline,
    /// system identifier), read at this time.
    #[must_use]
    pub fn new(system: u64, timeline: u32, position: u64, issued: SystemTime) -> Self {
        let issued = issued.duration_since(UNIX_EPOCH).unwrap_or_default();
        let issued = u64::try_from(issued.as_millis()).unwrap_or(u64::MAX);
        Self { system, timeline, position, issued }
    }

    /// There was a write, and nobody knows where: the commit succeeded and its position could not
    /// be read. No replica satisfies this; the primary reads until it expires.
    #[must_use]
    pub fn unplaced(issued: SystemTime) -> Self {
        Self::new(0, 0, NOWHERE, issued)
    }

    /// The database: PostgreSQL's system identifier.
    #[must_use]
    pub fn system(&self) -> u64 {
        self.system
    }

    /// The history within it.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// How far into the history.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// When it was made, to the millisecond.
    #[must_use]
    pub fn issued(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.issued)
    }

    /// Whether it is one of [`unplaced`](Self::unplaced).
    #[must_use]
    pub fn is_unplaced(&self) -> bool {
        self.position == NOWHERE
    }

    /// One token that stands for both writes.
    ///
    /// Within one system that is the later: whoever shows a position shows all before it. A higher
    /// timeline is later than any position of a lower one, since it began as a copy of that, and what
    /// it did not take over is lost to everybody. Of two systems neither stands for the other, so the
    /// outcome is [unplaced](Self::unplaced).
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let issued = self.issued.max(other.issued);
        if self.is_unplaced() || other.is_unplaced() || self.system != other.system {
            return Self { issued, ..Self::unplaced(UNIX_EPOCH) };
        }
        let later = (self.timeline, self.position).max((other.timeline, other.position));
        Self { system: self.system, timeline: later.0, position: later.1, issued }
    }

    /// How much of `life` is left at `now`; `None` when it is over. A token from the future, of
    /// a machine whose clock is ahead, has all of it left, and none if it is further ahead than
    /// `life`: else a clock that is a year wrong would send reads to the primary for a year.
    #[must_use]
    pub fn remaining(&self, life: Duration, now: SystemTime) -> Option<Duration> {
        let age = match now.duration_since(self.issued()) {
            Ok(age) => age,
            Err(ahead) if ahead.duration() > life => return None,
            Err(_) => Duration::ZERO,
        };
        life.checked_sub(age).filter(|left| !left.is_zero())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unplaced() {
            return f.debug_struct("Token").field("unplaced_since", &self.issued).finish();
        }
        // As PostgreSQL writes it.
        let lsn = format_args!("{:X}/{:X}", self.position >> 32, self.position & 0xFFFF_FFFF);
        f.debug_struct("Token")
            .field("system", &self.system)
            .field("timeline", &self.timeline)
            .field("position", &lsn)
            .field("issued", &self.issued)
            .finish()
    }
}

/// What [`Keys`](super::Keys) seal: the fields in this order, big endian, the time in 48 bits.
#[cfg(feature = "token")]
pub(super) const PAYLOAD: usize = 8 + 4 + 8 + 6;

#[cfg(feature = "token")]
impl Token {
    pub(super) fn to_payload(self) -> [u8; PAYLOAD] {
        let mut payload = [0; PAYLOAD];
        payload[..8].copy_from_slice(&self.system.to_be_bytes());
        payload[8..12].copy_from_slice(&self.timeline.to_be_bytes());
        payload[12..20].copy_from_slice(&self.position.to_be_bytes());
        // 48 bits of milliseconds last until the year 10889.
        payload[20..].copy_from_slice(&self.issued.to_be_bytes()[2..]);
        payload
    }

    pub(super) fn from_payload(payload: [u8; PAYLOAD]) -> Self {
        let number = |range: std::ops::Range<usize>| {
            payload[range].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let timeline = u32::try_from(number(8..12)).unwrap_or_default();
        let (system, position, issued) = (number(0..8), number(12..20), number(20..26));
        Self { system, timeline, position, issued }
    }
}
