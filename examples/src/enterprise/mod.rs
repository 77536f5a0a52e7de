//! The documented phase-3 server: trading, financial and affiliate on one port.
//!
//! One request runs through
//! `drain -> metrics -> rate limits -> HTTP cache -> breaker of its area -> route -> cache ->
//! breaker of the database -> replica router -> pool -> database`,
//! a write through `-> primary pool (transaction) -> invalidate -> enqueue in a priority lane`.

mod access;
mod app;
mod breakers;
mod caches;
mod changes;
mod check;
mod database;
pub mod domain;
mod jobs;
mod lane_runtime;
mod limits;
mod pool_times;
mod problem;
mod rates;
mod reads;
mod redis;
mod routes;
mod run;
mod sessions;
mod settings;
pub mod store;

use std::ffi::OsString;
use std::process::ExitCode;

pub use app::App;
pub use breakers::Breakers;
pub use caches::Caches;
pub use limits::{Allowance, Limits, RateLimits, WithoutRedis};
pub use pool_times::PoolTimes;
pub use redis::Redis;
pub use run::{router, serve_until};
pub(crate) use sessions::TOKEN_HEADER;
pub use settings::{Secret, Settings, cpus};

/// Longest body a route accepts, in bytes: the largest legal one has under 300.
pub const BODY_LIMIT: usize = 16 * 1024;

/// Runs the server (or its checklist) until SIGINT or SIGTERM.
///
/// The exit code is 0 after a clean stop, 1 if it could not start or a check fails, 2 for settings
/// that cannot be.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let settings = match Settings::read(arguments) {
        Ok(settings) => settings,
        Err(error) => {
            // Also prints `--help` and `--version`, to the stream and with the code they have.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    run::main_until(settings)
}
