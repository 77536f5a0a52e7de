//! The load test: 1,100 concurrent users against `enterprise`, every answer checked.
//!
//! ```console
//! cargo run --release --bin thousand-users
//! cargo run --release --bin thousand-users -- --database postgres --redis
//! cargo run --release --bin thousand-users -- --html report.html --json report.json
//! ```

use std::ffi::OsStr;

use escala_examples::{enterprise, load};

fn main() -> std::process::ExitCode {
    // `cargo run --bin thousand-users` builds this binary only, so the server it starts as its own
    // process is this same file: a first argument `serve` hands over to `enterprise`.
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).map(std::ffi::OsString::as_os_str) == Some(OsStr::new(load::SERVE)) {
        arguments.remove(1);
        return enterprise::main(arguments);
    }
    load::main(arguments)
}
