//! Limits on what a service takes on.

mod rate;

pub use self::rate::*;
