//! `cache-proxy` as a process of its own, between a scripted origin and a client that sees bytes.

mod bodies;
mod caching;
mod client;
mod faults;
mod forwarding;
mod origin;
mod process;

pub(crate) use self::client::{Answer, Client};
pub(crate) use self::origin::{Origin, Reply};
pub(crate) use self::process::{PATIENCE, Proxy};
