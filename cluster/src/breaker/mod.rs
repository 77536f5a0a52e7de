//! A circuit breaker: a backend that keeps failing is left alone for a while, its callers get their
//! answer at once.

mod cell;
mod config;
mod core;
mod future;
mod handle;
mod hook;
mod layer;
mod machine;
mod open;
mod outcome;
mod permit;
mod primitives;
mod reject;
mod service;
mod shard;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod transition;
mod watch;
mod window;
mod word;

pub use self::config::BreakerConfig;
pub use self::future::ResponseFuture;
pub use self::handle::Breaker;
pub use self::layer::BreakerLayer;
pub use self::open::Open;
#[cfg(feature = "axum")]
pub use self::outcome::ServerErrorsFail;
pub use self::outcome::{Classify, ErrorsFail, Judgement, Outcome};
pub use self::permit::Permit;
#[cfg(feature = "axum")]
pub use self::reject::AsResponse;
pub use self::reject::{AsError, Reject};
pub use self::service::BreakerService;
pub use self::state::State;
pub use self::stats::BreakerStats;
pub use self::transition::{Figures, Reason, Transition};
