#![doc = include_str!("../README.md")]

mod builder;
mod cache;
mod change;
mod clock;
mod codec;
mod coherence;
mod compression;
mod config;
mod counters;
mod entry;
mod error;
#[cfg(feature = "tracing")]
mod events;
mod flight;
mod frame;
mod freshness;
mod future;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod glob;
#[cfg(feature = "http")]
pub mod http;
mod key;
mod layer;
mod load;
mod memory;
mod prepare;
mod removals;
mod service;
mod shared;
mod stats;
mod write;

pub use builder::CacheBuilder;
pub use cache::{Cache, Found};
pub use codec::Encoding;
pub use compression::Compression;
pub use config::{CacheConfig, Coherence, ConfigError, Engine, Memory, Tidings, Unit, WhileDeaf};
pub use entry::Entry;
pub use error::{LoadError, StoreError};
pub use freshness::EarlyRefresh;
pub use future::ResponseFuture;
pub use glob::Pattern;
pub use key::CacheKey;
pub use layer::CacheLayer;
pub use load::Previous;
pub use service::{CacheService, ServiceError};
#[cfg(feature = "redis")]
pub use shared::redis::{ConnectError, RedisConfig, RedisStats, RedisStore, RedisTls, Topology};
pub use shared::{SharedStore, Signal, StoreFuture, When};
pub use stats::{CacheStats, CoherenceStats, Emit, LayerStats, SharedLayerStats};
pub use write::{Fence, Removal};

/// An error of any type, as tower passes it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
