//! The servers and the load test as a user runs them.

mod administration;
mod api;
mod bad_settings;
mod breakers;
mod caching;
mod draining;
mod gateway;
mod limits;
mod load;
mod postgres;
mod process;
mod proxy;
mod restart;
mod rfc9111;
