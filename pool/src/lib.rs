#![doc = include_str!("../README.md")]

mod config;
mod error;
mod event;
mod failures;
mod lease;
mod manager;
mod meter;
mod pool;
mod service;
mod stats;
mod upkeep;

pub mod batch;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use crate::batch::{BatchConfig, BatchError, BatchLayer, BatchStats, BatchWriter, Batcher};
pub use crate::config::{ConfigError, PoolConfig};
pub use crate::error::PoolError;
pub use crate::lease::Lease;
pub use crate::manager::Manager;
pub use crate::pool::{CloseReport, Pool};
pub use crate::service::AcquireFuture;
pub use crate::stats::{Emit, PoolStats};

#[cfg(feature = "postgres")]
pub use crate::postgres::{PgLease, PgPool, PgTransaction};
#[cfg(feature = "sqlite")]
pub use crate::sqlite::{JobError, SqliteConfig, SqlitePool, SqliteRow, Synchronous};

pub use bb8;
