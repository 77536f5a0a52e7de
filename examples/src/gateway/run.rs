//! From a file to a served listener and back to a clean stop.

use std::io::Write as _;
use std::net;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use escala_cluster::{Drain, DrainConfig, serve, serve_management};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::front::Front;
use super::settings::Settings;
use super::snapshot::{self, Current, Snapshot};
use super::{management, reload};
use crate::listen::{listen, listen_often, runtime};
use crate::program;

/// Runs the gateway; says on the error stream why it cannot.
pub(super) fn main_until(settings: &Settings) -> ExitCode {
    program::main_of("gateway", || run(settings))
}

/// Serves on one runtime a thread: a connection and those it is passed on by stay with their thread.
/// Groups, their health and their figures are shared.
fn run(settings: &Settings) -> anyhow::Result<()> {
    let first = runtime()?;
    let snapshot = first.block_on(async { snapshot::load(&settings.config, None) })?;
    if settings.check {
        let (routes, groups) = (snapshot.file.routes.len(), snapshot.groups.len());
        let shown = settings.config.display();
        return writeln!(std::io::stdout(), "{shown}: {routes} routes, {groups} upstreams")
            .context("output");
    }
    let drain = Drain::new(server(&snapshot));
    let (listen_on, management_on) = (snapshot.file.listen, snapshot.file.management);
    let threads = snapshot.file.threads.or_else(|| std::thread::available_parallelism().ok());
    let current = Arc::new(Current::new(snapshot));
    let (mut listeners, address, management) = first.block_on(async {
        drain.on_signals().context("signals")?;
        let (listeners, address) = listen_often("listen", listen_on, threads)?;
        let management = management_on.map(|address| listen("management", address)).transpose()?;
        anyhow::Ok((listeners, address, management))
    })?;
    let listener = listeners.pop().context("no listener")?;
    let (ended, mut ends) = mpsc::unbounded_channel();
    let others: Vec<JoinHandle<anyhow::Result<()>>> = listeners
        .into_iter()
        .map(|listener| {
            let (current, drain) = (Arc::clone(&current), drain.clone());
            let told = Told(ended.clone());
            let serve = move || {
                let _told = told;
                runtime()?.block_on(serve_on(current, listener, drain))
            };
            let thread = std::thread::Builder::new().name("gateway".to_owned());
            thread.spawn(serve).context("thread")
        })
        .collect::<anyhow::Result<_>>()?;
    let served = first.block_on(async {
        // Before it says that it listens: who reads that may send SIGHUP.
        let reloads = reload::on_changes(settings.config.clone(), Arc::clone(&current))?;
        writeln!(std::io::stdout(), "listening on http://{address}").context("output")?;
        let figures = async {
            match management {
                Some((listener, address)) => {
                    writeln!(std::io::stdout(), "management on http://{address}")
                        .context("output")?;
                    let router = management::router(Arc::clone(&current), drain.clone());
                    let listener = TcpListener::from_std(listener).context("listener")?;
                    let served = serve_management(listener, router, &drain).await;
                    served.map(|_| ()).context("serve")
                }
                None => Ok(()),
            }
        };
        let clients = serve_on(Arc::clone(&current), listener, drain.clone());
        let both = async { tokio::try_join!(clients, figures) };
        let broken = async {
            // In the end they all end, the first one waits for the others below.
            while let Some(()) = ends.recv().await {
                if !drain.is_draining() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = both => served.map(|_| ()),
            () = reloads => Err(anyhow!("SIGHUP is no longer listened to")),
            () = broken => Err(anyhow!("a thread has ended")),
        }
    });
    // Also if this one could not serve: the others end with it.
    drain.begin();
    for thread in others {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    served
}

/// Says that its thread has ended, however that came.
struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        // Fails only if nobody waits any more.
        let _ = self.0.send(());
    }
}

/// The file's bounds, of which each thread has its share.
fn server(snapshot: &Snapshot) -> DrainConfig {
    let config = snapshot.file.server.clone();
    let threads = snapshot.file.threads.or_else(|| std::thread::available_parallelism().ok());
    let threads = threads.map_or(1, |threads| u32::try_from(threads.get()).unwrap_or(u32::MAX));
    let share = config.max_connections.div_ceil(threads);
    config.max_connections(share)
}

async fn serve_on(
    current: Arc<Current>,
    listener: net::TcpListener,
    drain: Drain,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener).context("listener")?;
    let report = serve(listener, Front::new(current), drain.clone()).await.context("serve")?;
    tracing::info!(%report, "requests are done");
    drain.stopped().await;
    Ok(())
}
