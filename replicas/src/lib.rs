#![doc = include_str!("../README.md")]

mod balancer;
mod builder;
mod config;
mod freshness;
mod member;
mod replicas;
mod route;
pub mod session;

mod choose;
mod gate;
mod health;
mod latency;
mod node;
mod pace;
mod primitives;
mod probe;
mod rota;
mod select;
mod shared;
mod tally;
mod ticket;
mod topology;

mod error;
mod pick;
#[cfg(feature = "axum")]
mod problem;
mod stats;

pub mod future;
mod service;

#[cfg(any(feature = "discovery", feature = "postgres"))]
mod caught;
#[cfg(feature = "discovery")]
pub mod discovery;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "postgres")]
pub mod postgres;

pub use balancer::{Balancer, Candidate, Candidates, Selection};
pub use builder::ReplicasBuilder;
pub use config::{ConfigError, ReplicasConfig, Strategy};
pub use error::{BoxError, ReadError, RouteError};
pub use freshness::{Exclusion, Freshness, Observation, Observed};
pub use member::{Member, Members};
pub use pick::Pick;
pub use replicas::Replicas;
pub use route::{Reason, Role, Route, Routed};
pub use service::{Classify, Outcome, ReplicaService, ResultIsVerdict};
pub use session::{Fault, Session, TOKEN_LIFE, Token, WriteError};
#[cfg(feature = "token")]
pub use session::{Keys, TokenError};
#[cfg(feature = "axum")]
pub use session::{SessionConfig, SessionHandle, SessionLayer, SessionService, SessionStats};
pub use stats::{Emit, NodeStats, ReasonStats, ReplicasStats};
