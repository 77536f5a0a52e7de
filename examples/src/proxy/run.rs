//! From settings to a served listener and back to a clean stop.

use std::io::Write as _;
use std::net;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use escala_cache::http::HttpCacheLayer;
use escala_cluster::{Drain, DrainConfig, serve, serve_management};
use tokio::net::TcpListener;
use tower::Layer as _;

use super::admin;
use super::front::Front;
use super::settings::Settings;
use super::store;
use super::upstream::Upstream;
use crate::listen::{listen, listen_often, runtime};
use crate::program;

/// How long an orderly stop may take once no connection is accepted.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// Runs the proxy; says on the error stream why it cannot.
pub(super) fn main_until(settings: &Settings) -> ExitCode {
    program::main_of("cache-proxy", || run(settings))
}

/// Serves on one runtime a thread, which share the cache: a connection stays with its thread, so
/// that a hit never crosses to another one.
fn run(settings: &Settings) -> anyhow::Result<()> {
    let config = DrainConfig::default().lame_duck(Duration::ZERO).deadline(STOP_DEADLINE);
    let drain = Drain::new(config);
    let threads = settings.threads.or_else(|| std::thread::available_parallelism().ok());
    let first = runtime()?;
    let (cache, layer, mut listeners, address, admin) = first.block_on(async {
        drain.on_signals().context("signals")?;
        let (listeners, address) = listen_often("--listen", settings.listen, threads)?;
        let admin = settings.admin.map(|admin| listen("--admin", admin)).transpose()?;
        let (cache, layer) = store::open(settings).await?;
        anyhow::Ok((cache, layer, listeners, address, admin))
    })?;
    let listener = listeners.pop().context("no listener")?;
    let others: Vec<JoinHandle<anyhow::Result<()>>> = listeners
        .into_iter()
        .map(|listener| {
            let (settings, layer, drain) = (settings.clone(), layer.clone(), drain.clone());
            let serve = move || runtime()?.block_on(serve_on(&settings, &layer, listener, drain));
            let thread = std::thread::Builder::new().name("cache-proxy".to_owned());
            thread.spawn(serve).context("thread")
        })
        .collect::<anyhow::Result<_>>()?;
    writeln!(std::io::stdout(), "listening on http://{address}").context("output")?;
    if let Some((_, address)) = &admin {
        writeln!(std::io::stdout(), "figures on http://{address}/stats").context("output")?;
    }

    let served = first.block_on(async {
        let figures = async {
            match admin {
                Some((listener, _)) => {
                    let router = admin::router(cache, drain.clone());
                    let listener = TcpListener::from_std(listener).context("listener")?;
                    let served = serve_management(listener, router, &drain).await;
                    served.map(|_| ()).context("serve")
                }
                None => Ok(()),
            }
        };
        let clients = serve_on(settings, &layer, listener, drain.clone());
        tokio::try_join!(clients, figures)
    });
    // Also if this one could not serve: the others end with it.
    drain.begin();
    for thread in others {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    served.map(|_| ())
}

/// Serves until the drain has ended, on every thread: what one has begun to load for the cache may
/// be waited for by another.
async fn serve_on(
    settings: &Settings,
    layer: &HttpCacheLayer,
    listener: net::TcpListener,
    drain: Drain,
) -> anyhow::Result<()> {
    let front = Front::new(layer.layer(Upstream::new(settings)));
    serve_router(Router::new().fallback_service(front), listener, drain).await
}

async fn serve_router(
    router: Router,
    listener: net::TcpListener,
    drain: Drain,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener).context("listener")?;
    let report = serve(listener, router, drain.clone()).await.context("serve")?;
    tracing::info!(%report, "requests are done");
    drain.stopped().await;
    Ok(())
}
