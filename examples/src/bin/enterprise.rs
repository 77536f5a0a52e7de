//! The documented phase-3 server.
//!
//! ```console
//! cargo run --release --bin enterprise            # embedded: SQLite file, memory cache and queue
//! cargo run --release --bin enterprise -- --help  # every option and environment variable
//! cargo run --release --bin enterprise -- --check # the pre-deployment checklist
//! ```

fn main() -> std::process::ExitCode {
    escala_examples::enterprise::main(std::env::args_os())
}
