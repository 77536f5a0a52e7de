//! The public surface of the pools: with a scripted manager, real PostgreSQL and SQLite files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod acquire;
mod batch;
mod close;
mod config;
mod events;
mod faults;
#[cfg(feature = "fuzzing")]
mod fuzz;
#[cfg(feature = "axum")]
mod layer;
mod live;
mod model;
mod reserved;
mod scripted;
mod service;
mod upkeep;

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
