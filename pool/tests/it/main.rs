//! The public surface of the pools: with a scripted manager, real PostgreSQL and SQLite files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod accounting;
mod acquire;
mod batch;
mod close;
mod config;
mod faults;
mod scripted;

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
