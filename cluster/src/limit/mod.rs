//! Limits on what a service takes on.

mod concurrency;
mod rate;

pub use self::concurrency::*;
pub use self::rate::*;
