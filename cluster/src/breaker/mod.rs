//! A circuit breaker: a backend that keeps failing is left alone for a while, its callers get their
//! answer at once.

#[cfg(feature = "axum")]
mod body;
mod cell;
mod config;
mod core;
mod fallback;
mod future;
mod guard;
mod handle;
mod hook;
mod judge;
mod layer;
mod machine;
mod open;
mod outcome;
mod permit;
mod primitives;
mod registry;
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

#[cfg(feature = "axum")]
pub use self::body::JudgedBody;
pub use self::config::BreakerConfig;
pub use self::fallback::{FallbackFuture, FallbackTo};
pub use self::future::ResponseFuture;
pub use self::guard::Guard;
pub use self::handle::Breaker;
#[cfg(feature = "axum")]
pub use self::judge::AtEndOfBody;
pub use self::judge::{AtHead, JudgeAt, ReadRequest};
pub use self::layer::BreakerLayer;
pub use self::open::Open;
#[cfg(feature = "axum")]
pub use self::outcome::ServerErrorsFail;
pub use self::outcome::{Classify, ErrorsFail, Judgement, Outcome};
pub use self::permit::Permit;
pub use self::registry::{
    BreakerRegistry, KeyFn, KeyOf, KeyOverflow, Keyed, RegistryConfig, RegistryStats, key_fn,
};
#[cfg(feature = "axum")]
pub use self::registry::{ExtensionKey, HashedKey, HeaderKey, HostKey, RouteKey};
#[cfg(feature = "axum")]
pub use self::reject::AsResponse;
pub use self::reject::{AsError, Divert, Reject};
pub use self::service::BreakerService;
pub use self::state::State;
pub use self::stats::BreakerStats;
pub use self::transition::{Figures, Reason, Transition};
