//! The servers and the load test that put the six escala crates together.
//!
//! [`enterprise`] is the documented phase-3 server (trading, financial, affiliate); [`load`] drives
//! it with 1,100 concurrent users and checks every answer. Both are ordinary modules so that tests
//! call them in process; the binaries in `src/bin` only start them.

pub mod enterprise;
pub mod load;

/// The README's code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;
