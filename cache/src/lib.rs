#![doc = include_str!("../README.md")]

mod builder;
mod cache;
mod codec;
mod config;
mod counters;
mod entry;
mod error;
#[cfg(feature = "tracing")]
mod events;
mod flight;
mod frame;
mod future;
mod glob;
#[cfg(feature = "http")]
pub mod http;
mod key;
mod layer;
mod load;
mod memory;
mod service;
mod shared;
mod stats;

pub use builder::CacheBuilder;
pub use cache::{Cache, Removal};
pub use config::{CacheConfig, ConfigError, Memory};
pub use entry::Entry;
pub use error::{LoadError, StoreError};
pub use future::ResponseFuture;
pub use glob::Pattern;
pub use key::CacheKey;
pub use layer::CacheLayer;
pub use service::{CacheService, ServiceError};
#[cfg(feature = "redis")]
pub use shared::redis::{ConnectError, RedisConfig, RedisStats, RedisStore};
pub use shared::{SharedStore, Signal, StoreFuture, When};
pub use stats::{CacheStats, Emit, LayerStats, SharedLayerStats};

/// An error of any type, as tower passes it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
