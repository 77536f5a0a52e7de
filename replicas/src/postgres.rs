//! Follows a PostgreSQL primary and its streaming standbys.

mod config;
mod connect;
mod event;
mod monitor;
mod stats;

mod desk;
mod engine;
mod gate;
mod history;
mod lsn;
mod roles;
mod sample;
mod supervisor;

pub use config::MonitorConfig;
pub use connect::connect;
pub use event::Event;
pub use lsn::{Lsn, ParseLsnError};
pub use monitor::{Monitor, MonitorBuilder};
pub use stats::{MonitorStats, NodeMonitorStats};
