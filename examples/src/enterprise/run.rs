//! From settings to a served listener and back to a clean stop.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::response::IntoResponse as _;
use escala_cluster::{Drain, DrainConfig, State, serve};
use escala_observability::{Check, Signal};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tracing_subscriber::EnvFilter;

use super::app::App;
use super::breakers::around_area;
use super::problem::Problem;
use super::routes::{administration, affiliate, financial, status, trading};
use super::settings::Settings;
use super::{BODY_LIMIT, changes, check, jobs};

/// How long an orderly stop may take once no connection is accepted.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// How often the lanes are given what a full lane refused.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Runs the checklist or the server; says on the error stream why it cannot.
pub(super) fn main_until(settings: Settings) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // Fails only if somebody set one before: then that one stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    crate::raise_file_limit();
    let run = async {
        if settings.check {
            return check::run(&settings).await;
        }
        let port = settings.port;
        let app = App::open(settings).await?;
        let drain = Drain::new(
            DrainConfig::default().lame_duck(app.settings.pre_stop).deadline(STOP_DEADLINE),
        );
        drain.on_signals().context("signals")?;
        let address = SocketAddr::new(app.settings.host, port);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("PORT: {address} cannot be listened on; another program may have it")
        })?;
        let address = listener.local_addr()?;
        writeln!(std::io::stdout(), "listening on http://{address}").context("output")?;
        serve_until(app, listener, drain).await?;
        Ok(true)
    };
    match runtime().and_then(|runtime| runtime.block_on(run)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "enterprise: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")
}

/// Serves until the drain has ended, jobs at work included, then closes the database: a job still needs
/// it.
///
/// # Errors
/// The listener cannot be served.
pub async fn serve_until(app: App, listener: TcpListener, drain: Drain) -> anyhow::Result<()> {
    let ready = drain.clone();
    app.obs.ready_when(move || !ready.is_draining());
    let figures = drain.clone();
    app.obs.source("drain", move |emit| figures.stats().visit(emit));
    let sampling = app.obs.run(drain.stopped());
    // Not until every request has ended: the drain waits for the jobs at work, and lanes with a backlog
    // would never be without one. What they leave is swept by the next start.
    let (lanes, closing) = (app.clone(), drain.closing());
    let worker = jobs::Worker { app: app.clone(), drain: drain.clone() };
    let workers = app.lanes.spawn(async move { lanes.queue.run(worker, closing).join().await });
    let sweeper = tokio::spawn(sweep_until(app.clone(), drain.stopped()));

    let changes = tokio::spawn(changes::follow(app.clone(), drain.stopped()));

    // Nobody has an empty token: without ADMIN_TOKEN there is nobody who may.
    let token = app.settings.admin_token.as_ref().map_or("", |token| token.reveal());
    let router = router(&app).merge(drain.router_with_token(token));
    let report = serve(listener, router, drain).await.context("serve")?;
    tracing::info!(%report, "requests and jobs are done");

    let lanes = workers.await.context("lanes")?;
    tracing::info!(?lanes, "lanes are done");
    sweeper.await.context("sweeper")?;
    changes.await.context("changes")?;
    let exit = sampling.await;
    tracing::info!(?exit, "sampling is done");
    app.close().await;
    Ok(())
}

async fn sweep_until(app: App, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        if let Err(error) = jobs::sweep(&app).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "sweep failed");
        }
    }
}

/// Every route in its layers.
pub fn router(app: &App) -> Router {
    let [financial, affiliate] =
        [&app.breakers.financial, &app.breakers.affiliate].map(around_area);
    let access = app.access.clone();
    // Outermost first. One stack, and whole paths instead of `nest`: each further `layer` or level
    // is a box that axum clones for every request.
    let stack = ServiceBuilder::new()
        // Sees rejections and panics as the client does.
        .layer(app.obs.http_layer())
        // Inside the metrics, so that a panic is counted as the 500 it becomes.
        .layer(CatchPanicLayer::custom(|_| Problem::internal().into_response()))
        .map_request(move |request| access.only_gateways_name_tenants(request))
        // Before anything is done for a request, and behind the metrics, which count what is refused.
        .layer(app.limits.layer(&app.access))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        // Outside of the page cache, which keeps nothing that carries a token: none does that is a
        // page.
        .layer(app.sessions.clone());
    Router::new()
        // A breaker an area: trading goes on while affiliate reports fail.
        .merge(trading::routes(app))
        .merge(financial::routes().route_layer(financial))
        .merge(affiliate::routes().route_layer(affiliate))
        .merge(status::routes(app))
        .merge(administration::routes(app))
        .with_state(app.clone())
        .fallback(async |uri: Uri| Problem::no_route(uri.path()))
        .method_not_allowed_fallback(async |method: Method| Problem::no_method(&method))
        .layer(stack)
        // Health, metrics and dashboard are neither measured among the requests nor limited.
        .merge(app.obs.router())
}

/// Registers every part with the dashboard, the metrics and the health document.
pub(super) fn watch(app: &App) {
    let obs = &app.obs;
    let caches = app.caches.clone();
    obs.source("cache", move |emit| {
        caches.quotes.stats().visit(emit);
        caches.reports.stats().visit(emit);
        caches.pages.cache().stats().visit(emit);
    });
    let pages = app.caches.pages.clone();
    obs.source("http_cache", move |emit| pages.stats().visit(emit));
    let db = app.db.clone();
    obs.source("replicas", move |emit| db.stats().visit(emit));
    if let Some(monitor) = app.monitor.clone() {
        obs.source("monitor", move |emit| monitor.stats().visit(emit));
    }
    let sessions = app.sessions.clone();
    obs.source("sessions", move |emit| sessions.stats().visit(emit));
    let (nodes, times) = (app.nodes.clone(), app.times.clone());
    obs.source("pool", move |emit| {
        times.visit(emit);
        for (name, node) in &nodes {
            node.stats().visit(&mut |metric, labels, value| {
                let mut labelled = vec![("pool", *name)];
                labelled.extend_from_slice(labels);
                emit(metric, &labelled, value);
            });
        }
    });
    let nodes = app.nodes.clone();
    obs.source("batch", move |emit| {
        for (name, node) in &nodes {
            node.visit_batches(&mut |metric, labels, value| {
                let mut labelled = vec![("pool", *name)];
                labelled.extend_from_slice(labels);
                emit(metric, &labelled, value);
            });
        }
    });
    let queue = app.queue.clone();
    obs.source("queue", move |emit| queue.stats().visit(emit));
    let (breakers, redis, rates) = (app.breakers.clone(), app.redis.is_some(), app.rates.is_some());
    obs.source("breaker", move |emit| {
        for stats in breakers.stats(redis, rates) {
            stats.visit(emit);
        }
    });
    app.limits.watch(obs);
    let queue = app.queue.clone();
    obs.signal(Signal::QueueSize, move || waiting(&queue.stats()));
    watch_health(app);
}

/// What the health document asks.
fn watch_health(app: &App) {
    let obs = &app.obs;
    // Past the router: a check is no write, and needs no free place.
    let (db, nodes) = (app.db.clone(), app.nodes.clone());
    let database = move || {
        let primary = db.primary();
        let node = nodes.iter().find(|(name, _)| Some(*name) == primary.as_deref());
        let node = node.map(|(_, node)| node.clone());
        async move {
            let node = node.ok_or("nobody is known to be the primary")?;
            node.ping().await.map_err(|error| error.to_string())
        }
    };
    obs.check(Check::new("database", database).critical());
    if let Some(redis) = app.redis.clone() {
        let figures = redis.clone();
        obs.source("redis", move |emit| figures.stats().visit(emit));
        let answers = move || {
            let left_alone = redis.is_left_alone();
            async move { if left_alone { Err("does not answer".to_owned()) } else { Ok(()) } }
        };
        // Not critical: without Redis the cache goes on with memory and source.
        obs.check(Check::new("redis", answers));
    }
    if app.rates.is_some() {
        let breaker = app.breakers.rates.clone();
        let answers = move || {
            let left_alone = matches!(breaker.state(), State::Open | State::ForcedOpen);
            async move { if left_alone { Err("does not answer".to_owned()) } else { Ok(()) } }
        };
        // Not critical: the last rates that are known stand in.
        obs.check(Check::new("exchange rates", answers));
    }
}

/// Jobs of all lanes that wait for a worker.
#[expect(clippy::cast_precision_loss, reason = "lanes hold at most 10,000 jobs each")]
fn waiting(stats: &escala_queue::QueueStats) -> f64 {
    stats.lanes.iter().map(|lane| lane.depth as f64).sum()
}
