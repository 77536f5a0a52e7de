//! `gateway`: a reverse proxy that balances over groups of servers and moves routes between them.
//!
//! One request runs through `drain -> front -> route -> side -> proxy -> server`. The front refuses
//! what two readers could read differently and what is too large; the route is the longest that fits;
//! the side is the group of servers that a weighted split or a toggle chooses; the proxy balances,
//! retries and carries the bodies.
//!
//! Everything that a file says is compiled into one snapshot, which a request takes once. A new file
//! is a new snapshot, so that no request ever sees half of one.

mod choice;
mod error;
mod file;
mod front;
mod group;
mod management;
mod path;
mod reload;
mod routes;
mod run;
mod settings;
mod snapshot;

use std::ffi::OsString;
use std::process::ExitCode;

pub use settings::Settings;

/// Runs the gateway until SIGINT or SIGTERM, or only checks its file.
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
