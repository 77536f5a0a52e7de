//! A reverse proxy that balances, splits and moves traffic, by routes from a TOML file.
//!
//! ```console
//! cargo run --release --bin gateway -- --config gateway.toml --check
//! cargo run --release --bin gateway -- --config gateway.toml
//! ```
//!
//! The shortest file that works:
//!
//! ```toml
//! listen = "127.0.0.1:8080"
//!
//! [upstreams.app]
//! servers = [{ address = "127.0.0.1:3000" }]
//!
//! [[routes]]
//! path = "/"
//! upstream = "app"
//! ```
//!
//! It prints `listening on http://127.0.0.1:8080`. `kill -HUP` has it read the file again: a good one
//! takes over for the next request, a bad one changes nothing and says why.

fn main() -> std::process::ExitCode {
    escala_examples::gateway::main(std::env::args_os())
}
