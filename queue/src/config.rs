//! Settings of a queue: its lanes, what happens when one is full, retries and the stop.

use std::time::Duration;

use crate::error::ConfigError;
use crate::lane::Lane;
use crate::retry::RetryConfig;

/// More workers than this in one lane is a mistake of a digit, not a wish: each is a task.
const MAX_WORKERS: usize = 4_096;

/// Above this a lane no longer bounds memory in any useful sense.
const MAX_CAPACITY: usize = 10_000_000;

/// All settings of a queue. The default is the documented set of lanes.
///
/// In a file, a lane may name only what differs: `[high] workers = 8` keeps high's 5 s.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct QueueConfig {
    /// The lane in which somebody waits. 4 workers, 5 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "file::high"))]
    pub high: LaneConfig,
    /// The lane of ordinary jobs. 3 workers, 10 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "file::medium"))]
    pub medium: LaneConfig,
    /// The lane that may wait for minutes. 2 workers, 30 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "file::low"))]
    pub low: LaneConfig,
    /// The lane that runs when there is room. 1 worker, 60 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "file::background"))]
    pub background: LaneConfig,
    /// What happens to a job whose lane is full.
    pub overflow: Overflow,
    /// When a failed attempt is made again.
    pub retry: RetryConfig,
    /// How long a stop waits for running jobs before it aborts them.
    ///
    /// 15 s: inside the 30 s that Kubernetes gives a process, with room for the rest of its stop.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub grace: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            high: LaneConfig::documented(Lane::High),
            medium: LaneConfig::documented(Lane::Medium),
            low: LaneConfig::documented(Lane::Low),
            background: LaneConfig::documented(Lane::Background),
            overflow: Overflow::default(),
            retry: RetryConfig::default(),
            grace: Duration::from_secs(15),
        }
    }
}

impl QueueConfig {
    /// The settings of one lane.
    #[must_use]
    pub const fn lane(&self, lane: Lane) -> &LaneConfig {
        match lane {
            Lane::High => &self.high,
            Lane::Medium => &self.medium,
            Lane::Low => &self.low,
            Lane::Background => &self.background,
        }
    }

    /// The settings of one lane, to be changed.
    pub const fn lane_mut(&mut self, lane: Lane) -> &mut LaneConfig {
        match lane {
            Lane::High => &mut self.high,
            Lane::Medium => &mut self.medium,
            Lane::Low => &mut self.low,
            Lane::Background => &mut self.background,
        }
    }

    /// Checks every setting; the builder does it too.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for lane in Lane::ALL {
            self.lane(lane).validate(lane)?;
        }
        if let Overflow::Wait(limit) = self.overflow {
            ConfigError::check(!limit.is_zero(), "overflow.wait", limit, "must be above zero")?;
        }
        self.retry.validate()
    }
}

/// Workers, timeout and capacity of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct LaneConfig {
    /// Workers that serve this lane before any other: its floor, not its limit, since idle
    /// workers of other lanes help. From 1 to 4,096. Default 1, the least that cannot starve.
    pub workers: usize,
    /// How long one attempt may run before it is cancelled. Default 30 s, the documented timeout
    /// of the low lane and the usual patience of a caller.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub timeout: Duration,
    /// Jobs the lane may hold, whether ready, delayed or running, so that a retry always has a
    /// place. From 1 to 10,000,000. Default 10,000, as documented.
    pub capacity: usize,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self { workers: 1, timeout: Duration::from_secs(30), capacity: 10_000 }
    }
}

impl LaneConfig {
    /// The documented settings: 4 workers and 5 s for high, 3 and 10 s for medium, 2 and 30 s for
    /// low, 1 and 60 s for background; 10,000 jobs each.
    #[must_use]
    pub fn documented(lane: Lane) -> Self {
        let (workers, seconds) = match lane {
            Lane::High => (4, 5),
            Lane::Medium => (3, 10),
            Lane::Low => (2, 30),
            Lane::Background => (1, 60),
        };
        Self::default().workers(workers).timeout(Duration::from_secs(seconds))
    }

    /// Sets the number of dedicated workers.
    #[must_use]
    pub const fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets how long one attempt may run.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many jobs the lane may hold.
    #[must_use]
    pub const fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }

    fn validate(&self, lane: Lane) -> Result<(), ConfigError> {
        ConfigError::check(
            (1..=MAX_WORKERS).contains(&self.workers),
            format!("{lane}.workers"),
            self.workers,
            "must be from 1 to 4096",
        )?;
        ConfigError::check(
            !self.timeout.is_zero(),
            format!("{lane}.timeout"),
            self.timeout,
            "must be above zero",
        )?;
        ConfigError::check(
            (1..=MAX_CAPACITY).contains(&self.capacity),
            format!("{lane}.capacity"),
            self.capacity,
            "must be from 1 to 10000000",
        )
    }
}

/// What happens to a job whose lane is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Overflow {
    /// It is given back at once inside the error. The default: the caller of a full queue should
    /// learn of it while it can still answer its own caller.
    #[default]
    Reject,
    /// The caller waits its turn for a place, at most this long, and then gets the job back.
    Wait(#[cfg_attr(feature = "serde", serde(with = "humantime_serde"))] Duration),
}

/// Reading lanes from a file: what a lane does not name keeps that lane's documented value, not
/// the value common to all lanes that a derived `Deserialize` would put there.
#[cfg(feature = "serde")]
mod file {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    use super::LaneConfig;
    use crate::lane::Lane;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Changes {
        workers: Option<usize>,
        #[serde(default, with = "humantime_serde")]
        timeout: Option<Duration>,
        capacity: Option<usize>,
    }

    fn changed<'de, D: Deserializer<'de>>(lane: Lane, from: D) -> Result<LaneConfig, D::Error> {
        let documented = LaneConfig::documented(lane);
        let changes = Changes::deserialize(from)?;
        Ok(LaneConfig {
            workers: changes.workers.unwrap_or(documented.workers),
            timeout: changes.timeout.unwrap_or(documented.timeout),
            capacity: changes.capacity.unwrap_or(documented.capacity),
        })
    }

    pub(super) fn high<'de, D: Deserializer<'de>>(from: D) -> Result<LaneConfig, D::Error> {
        changed(Lane::High, from)
    }

    pub(super) fn medium<'de, D: Deserializer<'de>>(from: D) -> Result<LaneConfig, D::Error> {
        changed(Lane::Medium, from)
    }

    pub(super) fn low<'de, D: Deserializer<'de>>(from: D) -> Result<LaneConfig, D::Error> {
        changed(Lane::Low, from)
    }

    pub(super) fn background<'de, D: Deserializer<'de>>(from: D) -> Result<LaneConfig, D::Error> {
        changed(Lane::Background, from)
    }
}
