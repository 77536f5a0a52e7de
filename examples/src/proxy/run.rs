//! From settings to a served listener and back to a clean stop.

use std::io::{IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use escala_cache::http::HttpCacheLayer;
use escala_cluster::{Drain, DrainConfig, serve};
use tower::Layer as _;
use tracing_subscriber::EnvFilter;

use super::front::Front;
use super::settings::Settings;
use super::store;
use super::upstream::Upstream;

/// How long an orderly stop may take once no connection is accepted.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// Runs the proxy; says on the error stream why it cannot.
pub(super) fn main_until(settings: &Settings) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    // Fails only if somebody set one before: then that one stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    crate::raise_file_limit();
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cache-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves on one runtime a thread, which share the listening socket and the cache: a connection
/// stays with the thread that accepted it, so that a hit never crosses to another one.
fn run(settings: &Settings) -> anyhow::Result<()> {
    let config = DrainConfig::default().lame_duck(Duration::ZERO).deadline(STOP_DEADLINE);
    let drain = Drain::new(config);
    let listener = TcpListener::bind(settings.listen)
        .with_context(|| format!("--listen: {} cannot be listened on", settings.listen))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;

    let first = runtime()?;
    let layer = first.block_on(async {
        drain.on_signals().context("signals")?;
        store::open(settings).await
    })?;
    let threads = settings.threads.or_else(|| std::thread::available_parallelism().ok());
    let others: Vec<JoinHandle<anyhow::Result<()>>> = (1..threads.map_or(1, NonZeroUsize::get))
        .map(|number| {
            let (listener, drain) = (listener.try_clone()?, drain.clone());
            let (settings, layer) = (settings.clone(), layer.clone());
            let serve = move || runtime()?.block_on(serve_on(&settings, &layer, listener, drain));
            let thread = std::thread::Builder::new().name(format!("cache-proxy-{number}"));
            thread.spawn(serve).context("thread")
        })
        .collect::<anyhow::Result<_>>()?;
    writeln!(std::io::stdout(), "listening on http://{address}").context("output")?;

    let served = first.block_on(serve_on(settings, &layer, listener, drain.clone()));
    // Also if this one could not serve: the others end with it.
    drain.begin();
    for thread in others {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    served
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")
}

/// Serves until the drain has ended, on every thread: what one has begun to load for the cache may
/// be waited for by another.
async fn serve_on(
    settings: &Settings,
    layer: &HttpCacheLayer,
    listener: TcpListener,
    drain: Drain,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("listener")?;
    let front = Front::new(layer.layer(Upstream::new(settings)));
    let router = Router::new().fallback_service(front);
    let report = serve(listener, router, drain.clone()).await.context("serve")?;
    tracing::info!(?report, "requests are done");
    drain.stopped().await;
    Ok(())
}
