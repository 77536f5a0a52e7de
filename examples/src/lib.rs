//! The servers and the load test that put the six escala crates together.
//!
//! [`enterprise`] is the documented phase-3 server (trading, financial, affiliate); [`load`] drives
//! it with 1,100 concurrent users and checks every answer; [`proxy`] is a caching reverse proxy,
//! [`gateway`] one that balances. All are ordinary modules so that tests call them in process; the
//! binaries in `src/bin` only start them.

pub mod enterprise;
pub mod gateway;
pub mod load;
pub mod proxy;

mod listen;
mod program;
mod turn;

/// A seventh of the server's CPU time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lets this process open as many files as the system allows it: a shell's soft limit of 1,024 is
/// fewer than 1,100 connections. What cannot be raised stays; opening then fails with its own error.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The README's code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;
