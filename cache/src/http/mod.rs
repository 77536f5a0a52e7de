//! An HTTP cache that obeys the RFCs: a layer in front of an axum router or any tower service of
//! HTTP requests.
//!
//! The rules stand in a pure engine: it is handed requests, stored responses and the time, and
//! says what may be done. [`Policy`] is what a shared cache is free to choose.

pub(crate) mod engine;

pub use engine::Policy;
