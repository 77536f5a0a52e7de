//! The four lanes, in order of urgency, and a table with one entry a lane.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How urgent a job is: each lane has its own workers, timeout and capacity.
///
/// Reads and writes as `high`, `medium`, `low` and `background`, in text and in serde formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Somebody is waiting: a settlement, a withdrawal. One of its workers never serves others.
    High,
    /// Soon, but nobody is watching. The default, so that urgency is always asked for.
    #[default]
    Medium,
    /// Within minutes: mail, exports.
    Low,
    /// Whenever there is room: reports, clean-up.
    Background,
}

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::High, Self::Medium, Self::Low, Self::Background];

    /// The lane's name in lower case, as used in labels and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
            Self::Background => "background",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = ParseLaneError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == text).ok_or(ParseLaneError(()))
    }
}

/// The text names no lane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lane: expected high, medium, low or background")]
pub struct ParseLaneError(());

/// One value a lane, indexed by the lane itself, so that an index cannot be out of range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerLane<T>([T; 4]);

impl<T> PerLane<T> {
    pub(crate) fn from_fn(mut make: impl FnMut(Lane) -> T) -> Self {
        Self(Lane::ALL.map(&mut make))
    }
}

impl<T> Index<Lane> for PerLane<T> {
    type Output = T;

    fn index(&self, lane: Lane) -> &T {
        &self.0[lane as usize]
    }
}

impl<T> IndexMut<Lane> for PerLane<T> {
    fn index_mut(&mut self, lane: Lane) -> &mut T {
        &mut self.0[lane as usize]
    }
}
