//! The HTTP cache in front of axum routers, in process.

mod bodies;
mod cancel;
mod collapse;
mod contract;
mod hits;
mod purge;
mod races;
mod safety;
mod settings;
mod shared;
mod stale;
mod support;
mod tenants;
mod variants;
