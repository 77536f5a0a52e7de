//! The public surface of the cache, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod allocation;
mod coherence;
mod config;
mod errors;
#[cfg(feature = "tracing")]
mod events;
mod flight;
#[cfg(feature = "fuzzing")]
mod fuzz;
#[cfg(feature = "http")]
mod http;
mod layer;
mod lifetime;
mod many;
mod matching;
mod model;
mod promotion;
#[cfg(feature = "redis")]
mod redis;
mod shared;
mod stale;
mod stats;
mod support;
mod tags;
