//! `cache-proxy`: a caching reverse proxy of HTTP/1.1.
//!
//! One request runs through `drain -> front -> cache -> upstream -> origin`. The front refuses what
//! no message may look like and takes off what is meant for one connection only, so that the cache
//! and the origin see the same request; the upstream does the same to the origin's response, so
//! that the cache stores nothing it would have to take off at each hit.

mod admin;
mod body;
mod error;
mod front;
mod hop;
mod run;
mod settings;
mod store;
pub(crate) mod target;
mod upstream;

use std::ffi::OsString;
use std::process::ExitCode;

pub use settings::Settings;

/// What the proxy calls itself in `Via`, `Cache-Status` and `Proxy-Status`.
const NAME: &str = "cache-proxy";

/// Runs the proxy until SIGINT or SIGTERM.
///
/// The exit code is 0 after a clean stop, 1 if it could not start, 2 for settings that cannot be.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Settings::read(arguments) {
        Ok(settings) => run::main_until(&settings),
        Err(error) => {
            // Also prints `--help` and `--version`, to the stream and with the code they have.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}
