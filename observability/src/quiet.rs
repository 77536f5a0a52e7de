//! Calls the application's closures so that a panic in one of them stays there.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The closure's result, or `None` and a log line when it panicked.
///
/// Unwind safety is asserted: all that is shared with the closure are atomics and locks that are
/// not held across the call.
pub(crate) fn call<T>(what: &'static str, name: &str, run: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(run));
    if result.is_err() {
        tracing::error!(name, "a {what} panicked and was left out");
    }
    result.ok()
}
