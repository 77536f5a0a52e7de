//! How far a node has come, as its monitor last saw it.

use std::time::Duration;

use tokio::time::Instant;

use crate::Role;

/// What is known of a node's data. Until its monitor has [observed](crate::Replicas::observe) it,
/// nothing is: that is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freshness {
    /// The database whose history this is; 0 if unknown. PostgreSQL's system identifier.
    pub system: u64,
    /// The history that [`position`](Self::position) belongs to; 0 if unknown. PostgreSQL's timelines
    /// start at 1 and grow with each promotion.
    pub timeline: u32,
    /// How much of that history the node shows to its readers; 0 if unknown. PostgreSQL's LSN.
    pub position: u64,
    /// How far behind it was; `None` if unknown. Zero if it showed all that was then known to have
    /// been written, so it may be too small by the age of that knowledge.
    pub lag: Option<Duration>,
    /// The node shows all that was written until then; `None` if unknown. Never too late, so that
    /// bounds are kept by it.
    pub complete_until: Option<Instant>,
    /// How many bytes of history the node has still to show; `None` if unknown.
    pub lag_bytes: Option<u64>,
    /// When the node was observed; `None` if it never was, or has failed since. All the rest was true
    /// then.
    pub observed_at: Option<Instant>,
}

/// What a monitor saw when it looked at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observation {
    /// What the node is.
    pub role: Role,
    /// As in [`Freshness::system`].
    pub system: u64,
    /// As in [`Freshness::timeline`].
    pub timeline: u32,
    /// As in [`Freshness::position`].
    pub position: u64,
    /// As in [`Freshness::lag`].
    pub lag: Option<Duration>,
    /// As in [`Freshness::complete_until`]. If not said it is the time of the observation less the
    /// lag.
    pub complete_until: Option<Instant>,
    /// As in [`Freshness::lag_bytes`].
    pub lag_bytes: Option<u64>,
    /// Why the node must not be used although it answers, if so.
    pub excluded: Option<Exclusion>,
}

impl Observation {
    /// A node of that role, of which nothing else is known.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            system: 0,
            timeline: 0,
            position: 0,
            lag: None,
            complete_until: None,
            lag_bytes: None,
            excluded: None,
        }
    }

    /// Sets the database whose history it is.
    #[must_use]
    pub fn of_system(mut self, system: u64) -> Self {
        self.system = system;
        self
    }

    /// Sets the history and how much of it the node shows.
    #[must_use]
    pub fn at(mut self, timeline: u32, position: u64) -> Self {
        (self.timeline, self.position) = (timeline, position);
        self
    }

    /// Sets the lag in time and in bytes.
    #[must_use]
    pub fn lag(mut self, time: Option<Duration>, bytes: Option<u64>) -> Self {
        (self.lag, self.lag_bytes) = (time, bytes);
        self
    }

    /// Sets until when the node shows all that was written. To be said when the lag is that behind
    /// something that was seen a while before the node.
    #[must_use]
    pub fn complete_until(mut self, time: Option<Instant>) -> Self {
        self.complete_until = time;
        self
    }

    /// Excludes the node.
    #[must_use]
    pub fn excluded(mut self, why: Exclusion) -> Self {
        self.excluded = Some(why);
        self
    }

    pub(crate) fn freshness(&self, now: Instant) -> Freshness {
        let Self {
            role: _,
            system,
            timeline,
            position,
            lag,
            complete_until,
            lag_bytes,
            excluded: _,
        } = *self;
        let complete_until = complete_until.or_else(|| now.checked_sub(lag?));
        let observed_at = Some(now);
        Freshness { system, timeline, position, lag, complete_until, lag_bytes, observed_at }
    }
}

/// Why a node is not used although it is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Exclusion {
    /// It is too far behind. When every replica is, and the primary cannot help, the least stale one
    /// still serves sessions that ask for nothing better.
    Lag,
    /// It belongs to a history that has been left, as an old primary that came back does.
    Fenced,
    /// Its monitor has had no word of it for as long as it may lag, and so cannot tell whether it does.
    /// Used as one that lags.
    Silent,
    /// Its monitor cannot tell what it is or how far it has come. A replica of that kind is the last
    /// resort of sessions that ask for nothing better, when nothing else is left and there is no
    /// primary that could serve.
    Unknown,
}

impl Exclusion {
    /// The name used in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Fenced => "fenced",
            Self::Silent => "silent",
            Self::Unknown => "unknown",
        }
    }
}

/// What became of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Observed {
    /// It is in force.
    Applied,
    /// There is another primary whose timeline is not older: the node was given [`Role::None`].
    /// Two primaries of one timeline are a split brain, which no router can settle.
    SecondPrimary,
    /// The set has no node of that name (any more).
    NoSuchNode,
}
