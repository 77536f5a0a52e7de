//! The crate from outside: breakers under paused time, drains over real TCP on loopback.

mod accounting;
mod busy;
mod concurrency;
mod conditions;
mod config;
mod contract;
mod defects;
mod fallback;
mod model;
mod modes;
mod rate;
mod registry;
mod states;

#[cfg(feature = "axum")]
mod body;
#[cfg(feature = "axum")]
mod client;
#[cfg(feature = "axum")]
mod concurrency_http;
#[cfg(feature = "axum")]
mod drain;
#[cfg(feature = "axum")]
mod drain_cut;
#[cfg(feature = "http2")]
mod drain_http2;
#[cfg(feature = "axum")]
mod drain_limits;
#[cfg(feature = "axum")]
mod drain_route;
#[cfg(feature = "axum")]
mod drain_service;
#[cfg(feature = "axum")]
mod drain_streams;
#[cfg(feature = "retry")]
mod hedge;
#[cfg(feature = "axum")]
mod http;
#[cfg(feature = "axum")]
mod keys;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "axum")]
mod restarts;
#[cfg(feature = "retry")]
mod retry;
#[cfg(feature = "axum")]
mod signals;
