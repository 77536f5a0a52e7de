//! Serves on a listening socket that it was given as its standard input, until SIGTERM or SIGINT: one
//! process among several on the same socket, so that a new one can be started before an old one is
//! stopped, and no connection is lost.
//!
//! ```text
//! systemd-socket-activate --inetd --listen 8080 cargo run --example inherited --features axum
//! ```

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use escala_cluster::{Drain, DrainConfig, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;

    // Nothing in front has to notice that this process goes: the socket stays open in the next one.
    let drain = Drain::new(DrainConfig::default().lame_duck(Duration::ZERO));
    drain.on_signals()?;
    let pause = async || {
        tokio::time::sleep(Duration::from_millis(5)).await;
        "paused"
    };
    let router = Router::new().route("/", get(async || "hello")).route("/pause", get(pause));
    // For who started it: from here on the one before may be stopped.
    writeln!(std::io::stdout(), "ready")?;
    let report = serve(listener, router, drain).await?;
    writeln!(std::io::stdout(), "{report}")?;
    if report.is_clean() { Ok(()) } else { Err("requests were cut".into()) }
}
