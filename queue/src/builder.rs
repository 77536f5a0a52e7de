//! From settings to a queue.

use std::time::Duration;

use crate::config::{LaneConfig, Overflow, QueueConfig};
use crate::engine::{MemoryEngine, Store};
use crate::error::ConfigError;
use crate::lane::Lane;
use crate::queue::Queue;
use crate::retry::RetryConfig;
use crate::shared::Shared;

/// Builds a [`Queue`]; made by [`Queue::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct QueueBuilder {
    engine: MemoryEngine,
    config: QueueConfig,
}

impl QueueBuilder {
    pub(crate) fn new(engine: MemoryEngine) -> Self {
        Self { engine, config: QueueConfig::default() }
    }

    /// Takes all settings from here, for example from a file.
    pub fn config(mut self, config: QueueConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets all lanes to the documented workers, timeouts and capacities, where they also begin;
    /// see [`LaneConfig::documented`].
    pub fn documented_lanes(mut self) -> Self {
        for lane in Lane::ALL {
            *self.config.lane_mut(lane) = LaneConfig::documented(lane);
        }
        self
    }

    /// Sets everything about one lane.
    pub fn lane(mut self, lane: Lane, config: LaneConfig) -> Self {
        *self.config.lane_mut(lane) = config;
        self
    }

    /// Sets the number of dedicated workers of one lane.
    pub fn workers(mut self, lane: Lane, workers: usize) -> Self {
        self.config.lane_mut(lane).workers = workers;
        self
    }

    /// Sets how long an attempt of one lane may run.
    pub fn timeout(mut self, lane: Lane, timeout: Duration) -> Self {
        self.config.lane_mut(lane).timeout = timeout;
        self
    }

    /// Sets how many jobs one lane may hold.
    pub fn capacity(mut self, lane: Lane, capacity: usize) -> Self {
        self.config.lane_mut(lane).capacity = capacity;
        self
    }

    /// Sets what happens to a job whose lane is full.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.config.overflow = overflow;
        self
    }

    /// Sets when failed attempts are made again.
    pub fn retry(mut self, retry: RetryConfig) -> Self {
        self.config.retry = retry;
        self
    }

    /// Sets how long a stop waits for running jobs; zero aborts them at once.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.grace = grace;
        self
    }

    /// Makes the queue.
    ///
    /// # Errors
    /// The first setting that cannot work: field, value and rule.
    pub fn build(self) -> Result<Queue, ConfigError> {
        self.config.validate()?;
        self.engine.validate()?;
        Ok(Queue::from_shared(Shared::new(self.config, Store::new(&self.engine))))
    }
}
