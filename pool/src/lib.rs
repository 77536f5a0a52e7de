#![doc = include_str!("../README.md")]

mod acquire;
mod backoff;
mod builder;
mod config;
mod connect;
mod error;
mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
#[cfg(feature = "axum")]
pub mod layer;
mod leaks;
mod lease;
mod manager;
mod meter;
mod pool;
#[cfg(feature = "axum")]
mod request;
mod service;
mod shared;
mod stats;
mod upkeep;

pub mod batch;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use crate::acquire::Acquire;
pub use crate::batch::{BatchConfig, BatchError, BatchLayer, BatchStats, BatchWriter, Batcher};
pub use crate::builder::PoolBuilder;
pub use crate::config::{ConfigError, PoolConfig, Statements};
pub use crate::error::PoolError;
pub use crate::event::PoolEvent;
#[cfg(feature = "axum")]
pub use crate::layer::{PoolLayer, PoolService, RequestConfig};
pub use crate::lease::Lease;
pub use crate::manager::Manager;
pub use crate::pool::{CloseReport, Pool};
#[cfg(feature = "axum")]
pub use crate::request::{Deadline, LeaseHandle, LeasePool, LeaseRejection, Leased};
pub use crate::service::AcquireFuture;
pub use crate::stats::{CloseReason, ClosedStats, Emit, PoolSnapshot, PoolStats};

#[cfg(feature = "postgres")]
pub use crate::postgres::{PgLease, PgPool, PgPoolBuilder, PgTransaction};
#[cfg(feature = "sqlite")]
pub use crate::sqlite::{
    JobError, SqliteConfig, SqlitePool, SqlitePoolBuilder, SqliteRow, Synchronous,
};

pub use bb8;
