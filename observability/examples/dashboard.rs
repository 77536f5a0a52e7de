//! A server with made-up parts, to look at the dashboard.
//!
//! `cargo run -p escala-observability --example dashboard`, then open
//! <http://127.0.0.1:3900/dashboard>. With `-- trouble` a database is down, a lane is full and
//! requests fail. Samples are taken every second, so the charts fill in a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{get, post};
use escala_observability::{Check, Emit, Observability, ObservabilityConfig, Signal};
use tower::ServiceExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_target(false).init();
    let trouble = std::env::args().any(|argument| argument == "trouble");
    let config = ObservabilityConfig::default()
        .metrics_interval(Duration::from_secs(1))
        .alert_for(Duration::from_secs(3));
    let obs = Observability::builder("enterprise")
        .version(env!("CARGO_PKG_VERSION"))
        .environment("production")
        .config(config)
        .build()?;
    let world = Arc::new(World { beat: AtomicU64::new(0), trouble });
    parts(&obs, &world);
    let app = Router::new()
        .route("/api/trading/quotes/{symbol}", get(|| pause(0.3, 0.0)))
        .route("/api/trading/orders", post(move || pause(9.0, if trouble { 0.2 } else { 0.0 })))
        .route("/api/trading/orders/{id}", get(|| pause(2.0, 0.0)))
        .route("/api/financial/balance/{user}", get(|| pause(3.0, 0.0)))
        .route("/api/financial/transfers", post(|| pause(14.0, 0.0)))
        .route("/api/affiliate/{user}/report", get(|| pause(25.0, 0.0)))
        .layer(obs.http_layer());
    tokio::spawn(traffic(app.clone(), Arc::clone(&world)));
    let task = obs.run(std::future::pending());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3900").await?;
    tracing::info!("http://{}/dashboard", listener.local_addr()?);
    axum::serve(listener, app.merge(obs.router())).await?;
    tracing::info!(exit = ?task.await, "background task ended");
    Ok(())
}

/// What the made-up figures are computed from.
struct World {
    beat: AtomicU64,
    trouble: bool,
}

impl World {
    fn beat(&self) -> f64 {
        self.beat.load(Ordering::Relaxed) as f64
    }

    /// Sways slowly around 1.
    fn sway(&self, phase: f64) -> f64 {
        1.0 + 0.35 * (self.beat() / 300.0 + phase).sin() + 0.1 * (self.beat() / 37.0 + phase).sin()
    }
}

fn parts(obs: &Observability, world: &Arc<World>) {
    let bad = world.trouble;
    obs.check(Check::new("database", move || async move {
        tokio::time::sleep(Duration::from_micros(900)).await;
        if bad { Err("connection to postgres://ops:secret@db:5432 refused".into()) } else { Ok(()) }
    }));
    for (name, micros) in [("redis", 300), ("queue engine", 120), ("data directory", 60)] {
        let check = move || async move {
            tokio::time::sleep(Duration::from_micros(micros)).await;
            Ok(())
        };
        obs.check(Check::new(name, check).critical());
    }
    let depth = Arc::clone(world);
    let scale = if bad { 190.0 } else { 9.0 };
    obs.signal(Signal::QueueSize, move || (depth.sway(1.0) * scale).round());
    for (name, figures) in [
        ("queue", queue as fn(&World, &mut Emit<'_>)),
        ("replicas", replicas),
        ("cache", cache),
        ("pool", pool),
        ("breaker", breaker),
    ] {
        let world = Arc::clone(world);
        obs.source(name, move |emit| figures(&world, emit));
    }
}

fn queue(world: &World, emit: &mut Emit<'_>) {
    let lanes = [
        ("high", 4.0, 2.1, 0.004),
        ("medium", 3.0, 1.2, 0.011),
        ("low", 2.0, 0.5, 0.038),
        ("background", 1.0, 0.2, 0.21),
    ];
    for (at, (lane, workers, share, seconds)) in lanes.into_iter().enumerate() {
        let full = if world.trouble && lane == "low" { 1_600.0 } else { 0.0 };
        let (sway, done) = (world.sway(at as f64), (world.beat() * share).floor());
        for (name, value) in [
            ("depth", (3.0 * share * sway).floor() + full),
            ("running", (workers * 0.4 * sway).round()),
            ("workers", workers),
            ("capacity", 10_000.0),
            ("enqueued_total", done + 2.0),
            ("rejected_total", 0.0),
            ("succeeded_total", done),
            ("failed_total", 0.0),
            ("timed_out_total", 0.0),
            ("cancelled_total", 0.0),
            ("retried_total", (done / 190.0).floor()),
            ("dead_total", 0.0),
            ("oldest_age_seconds", 0.004 * sway / share + full / 400.0),
            ("wait_mean_seconds", seconds / 9.0 * sway),
            ("run_mean_seconds", seconds * sway),
        ] {
            emit(name, &[("lane", lane)], value);
        }
    }
    emit("dead_letters", &[], 0.0);
    emit("idempotency_keys", &[], (world.beat() * 0.7).floor());
}

fn replicas(world: &World, emit: &mut Emit<'_>) {
    for (node, role, weight) in [
        ("primary", "primary", 1.0),
        ("replica-1", "replica", 3.0),
        ("replica-2", "replica", 3.0),
        ("replica-3", "replica", 2.0),
    ] {
        let labels = [("node", node), ("role", role)];
        let up = !(world.trouble && node == "replica-2");
        let (reason, share) = if role == "primary" { ("write", 1.9) } else { ("balanced", 1.3) };
        let picks = (world.beat() * weight * share).floor();
        emit("replicas_node_weight", &labels, weight);
        emit("replicas_node_healthy", &labels, f64::from(u8::from(up)));
        emit("replicas_node_started_total", &labels, picks);
        emit("replicas_node_succeeded_total", &labels, picks);
        emit("replicas_node_failed_total", &labels, 0.0);
        emit("replicas_node_ejections_total", &labels, f64::from(u8::from(!up)));
        emit("replicas_picks_total", &[("node", node), ("reason", reason)], picks);
    }
}

fn cache(world: &World, emit: &mut Emit<'_>) {
    for (cache, calls) in [("quotes", 14.0), ("reports", 1.2)] {
        emit("cache_loads_total", &[("cache", cache)], (world.beat() * calls * 0.05).floor());
        emit("cache_coalesced_total", &[("cache", cache)], (world.beat() * calls * 0.02).floor());
        for (layer, hits, entries) in [("memory", 0.86, 934.0), ("shared", 0.61, 18_402.0)] {
            let labels = [("cache", cache), ("layer", layer)];
            emit("cache_entries", &labels, (entries * (1.0 + 0.02 * world.sway(hits))).floor());
            emit("cache_hits_total", &labels, (world.beat() * calls * hits).floor());
            emit("cache_misses_total", &labels, (world.beat() * calls * (1.0 - hits)).floor());
            emit("cache_faults_total", &labels, 0.0);
        }
    }
}

fn pool(world: &World, emit: &mut Emit<'_>) {
    for (at, pool) in ["primary", "replica-1", "replica-2", "replica-3"].into_iter().enumerate() {
        let busy = (2.0 * world.sway(at as f64)).floor();
        for (name, value) in [
            ("size", 10.0),
            ("available", 10.0 - busy),
            ("waiting", 0.0),
            ("acquired_total", (world.beat() * (4.0 - at as f64 * 0.7)).floor()),
            ("timed_out_total", 0.0),
            ("rejected_total", 0.0),
            ("connects_total", 10.0),
        ] {
            emit(name, &[("pool", pool)], value);
        }
    }
}

fn breaker(world: &World, emit: &mut Emit<'_>) {
    for (name, share) in [("trading", 6.1), ("financial", 1.4), ("affiliate", 0.4)] {
        let labels = [("breaker", name)];
        let open = world.trouble && name == "affiliate";
        emit("ready", &labels, f64::from(u8::from(!open)));
        emit("admitted_total", &labels, (world.beat() * share).floor());
        emit("failed_total", &labels, (world.beat() * share / 900.0).floor());
        emit("rejected_total", &labels, if open { 41.0 } else { 0.0 });
        emit("opened_total", &labels, f64::from(u8::from(open)));
    }
}

/// Answers after about this many milliseconds, sometimes with an error.
async fn pause(millis: f64, failing: f64) -> Result<&'static str, StatusCode> {
    let luck = luck();
    tokio::time::sleep(Duration::from_secs_f64(millis / 1e3 * (0.4 - (1.0 - luck).ln()))).await;
    if luck < failing { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok("fine") }
}

/// From 0 to 1; good enough for a demonstration.
fn luck() -> f64 {
    static STATE: AtomicU64 = AtomicU64::new(0x9E37_79B9_7F4A_7C15);
    let mut x = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Sends requests for ever, in slow waves.
async fn traffic(app: Router, world: Arc<World>) {
    const MIX: [(&str, &str, f64); 6] = [
        ("GET", "/api/trading/quotes/BTC", 0.70),
        ("GET", "/api/financial/balance/7", 0.85),
        ("POST", "/api/trading/orders", 0.93),
        ("GET", "/api/trading/orders/12", 0.96),
        ("POST", "/api/financial/transfers", 0.99),
        ("GET", "/api/affiliate/7/report", 1.0),
    ];
    loop {
        world.beat.fetch_add(1, Ordering::Relaxed);
        for _ in 0..(7.0 * world.sway(0.0)) as u32 {
            let luck = luck();
            let Some((method, path, _)) = MIX.into_iter().find(|(_, _, share)| luck <= *share)
            else {
                continue;
            };
            let request = Request::builder().method(method).uri(path).body(Body::empty());
            let Ok(request) = request else { continue };
            // The answer is of no interest: the layer has counted it.
            tokio::spawn(app.clone().oneshot(request));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
