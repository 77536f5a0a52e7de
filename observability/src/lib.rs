#![doc = include_str!("../README.md")]

mod alerts;
mod clock;
mod config;
mod credentials;
mod error;
mod exposition;
mod health;
mod history;

mod label;
mod monitor;
mod observability;
mod page;
mod quiet;
mod recorder;
mod routes;
mod score;
mod scrape;
mod signal;
mod snapshot;
mod source;
mod system;
mod task;
mod traffic;

pub use alerts::{Alert, AlertEvent, Change, Level, Sink};
pub use config::{ObservabilityConfig, Threshold, Thresholds};
pub use credentials::Credentials;
pub use error::ConfigError;
pub use health::{Check, CheckStatus};
pub use observability::{Observability, ObservabilityBuilder};
pub use score::{Component, Limiting, Score, Status};
pub use signal::Signal;
pub use source::Emit;
pub use task::{Exit, Task};
pub use traffic::{HttpLayer, HttpService, ObservedBody, ResponseFuture};
