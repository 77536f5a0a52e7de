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
    /// How long ago the newest of what the node shows was written; `None` if unknown.
    pub lag: Option<Duration>,
    /// How many bytes of history the node has still to show; `None` if unknown.
    pub lag_bytes: Option<u64>,
    /// When the node was observed; `None` if it never was. All the rest was true then.
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

    /// Excludes the node.
    #[must_use]
    pub fn excluded(mut self, why: Exclusion) -> Self {
        self.excluded = Some(why);
        self
    }

    pub(crate) fn freshness(&self, now: Instant) -> Freshness {
        let Self { role: _, system, timeline, position, lag, lag_bytes, excluded: _ } = *self;
        Freshness { system, timeline, position, lag, lag_bytes, observed_at: Some(now) }
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
    /// Its monitor cannot tell what it is or how far it has come.
    Unknown,
}

impl Exclusion {
    /// The name used in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Fenced => "fenced",
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
