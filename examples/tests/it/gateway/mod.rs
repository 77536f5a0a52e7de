//! `gateway` as a process of its own, between upstreams and clients that see bytes.

mod balancing;
mod bodies;
mod faults;
mod files;
mod moving;
mod process;
mod smuggling;
mod tunnels;
mod upstream;

use self::process::Gateway;
use self::upstream::Upstream;
use crate::proxy::{Client, Origin, PATIENCE, Reply};
