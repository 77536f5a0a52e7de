//! Rate limits from outside: as calls, in front of a tower service, and in an axum router.

mod contract;
mod direct;
mod layer;

#[cfg(feature = "axum")]
mod headers;
#[cfg(feature = "axum")]
mod http;
