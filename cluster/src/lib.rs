#![doc = include_str!("../README.md")]

mod breaker;
#[cfg(feature = "axum")]
mod drain;
mod error;
mod stats;

pub use crate::breaker::{
    AsError, Breaker, BreakerConfig, BreakerLayer, BreakerService, BreakerStats, Classify,
    ErrorsFail, Figures, Judgement, Open, Outcome, Permit, Reason, Reject, ResponseFuture, State,
    Transition,
};
#[cfg(feature = "axum")]
pub use crate::breaker::{AsResponse, ServerErrorsFail};
#[cfg(feature = "axum")]
pub use crate::drain::{Drain, DrainConfig, DrainEnd, DrainReport, DrainStats, ServeError, serve};
pub use crate::error::{BoxError, ConfigError};
pub use crate::stats::Emit;
