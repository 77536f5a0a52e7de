//! A caching reverse proxy, strict to the HTTP caching RFCs.
//!
//! ```console
//! cargo run --release --bin cache-proxy -- --listen 127.0.0.1:8080 --origin http://127.0.0.1:3000
//! cargo run --release --bin cache-proxy -- --origin http://127.0.0.1:3000 --profile rfc
//! cargo run --release --bin cache-proxy -- --help
//! ```
//!
//! It prints `listening on http://127.0.0.1:8080`. Ask it twice for something that the origin says
//! may be kept (`curl -i http://127.0.0.1:8080/...`): the second answer has an `Age`, and its
//! `Cache-Status` says `hit`.

fn main() -> std::process::ExitCode {
    escala_examples::proxy::main(std::env::args_os())
}
