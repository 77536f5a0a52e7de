#![doc = include_str!("../README.md")]

mod attempt;
mod builder;
mod config;
mod engine;
mod error;
mod id;
mod job;
mod lane;
mod queue;
mod retry;
mod schedule;
mod seat;
mod shared;
mod stats;
mod trace;
mod worker;

pub use self::builder::QueueBuilder;
pub use self::config::{LaneConfig, Overflow, QueueConfig};
pub use self::engine::{DeadLetter, Engine, MemoryEngine};
pub use self::error::{BoxError, ConfigError, DecodeError, EncodeError, EnqueueError, ReplayError};
pub use self::id::{JobId, ParseJobIdError};
pub use self::job::{Job, Outcome, Receipt};
pub use self::lane::{Lane, ParseLaneError};
pub use self::queue::Queue;
pub use self::retry::RetryConfig;
pub use self::stats::{Emit, LaneStats, QueueStats};
pub use self::worker::{RunReport, Workers};
