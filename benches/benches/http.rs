//! `cargo bench -p escala-benches --bench http`: requests per second on loopback, in one run, of
//! bare axum, of axum with our whole stack on the cached read, and of axum with the usual
//! alternatives; all answer the same bytes.
//!
//! Each server has a runtime with one worker, the clients have another one. The rounds are
//! interleaved and the medians compared, so that a noisy machine disturbs all alike.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use axum_prometheus::PrometheusMetricLayer;
use escala_examples::enterprise::domain::Quote;
use escala_examples::enterprise::{self, App, Settings};
use escala_examples::load;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tower::limit::GlobalConcurrencyLimitLayer;

const PATH: &str = "/api/trading/quotes/S0001";
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);

/// A server by name, with the requests per second of each round.
struct Contender {
    name: &'static str,
    address: SocketAddr,
    rates: Vec<f64>,
    _runtime: Runtime,
}

#[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
fn main() -> anyhow::Result<()> {
    // `cargo bench` says so; anything else (`cargo test --benches`) only sees whether it works.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let (rounds, round) = if measuring { (ROUNDS, ROUND) } else { (1, Duration::from_millis(100)) };
    let folder = tempfile::tempdir()?;
    let settings = Settings::read([
        "enterprise".into(),
        "--data-dir".into(),
        folder.path().as_os_str().to_owned(),
    ])?;
    let mut contenders = [
        serve("bare axum", async { Ok(bare()) })?,
        serve("escala, whole stack", async {
            Ok(enterprise::router(&App::open(settings).await?))
        })?,
        serve("usual alternatives", async { Ok(usual()) })?,
    ];
    let clients = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    same_answers(&clients, &contenders)?;
    for _ in 0..rounds {
        for contender in &mut contenders {
            let run = load::closed_loop(contender.address, PATH, CONNECTIONS, round);
            let requests = clients.block_on(run)?.count;
            contender.rates.push(requests as f64 / round.as_secs_f64());
        }
    }
    let bare = median(&contenders[0].rates);
    println!("{:<24}{:>12}{:>10}", "", "requests/s", "ratio");
    for Contender { name, rates, .. } in &contenders {
        let rate = median(rates);
        println!("{name:<24}{rate:>12.0}{:>10.2}", rate / bare);
    }
    Ok(())
}

/// Serves the router on a runtime with one worker of its own.
fn serve(
    name: &'static str,
    router: impl Future<Output = anyhow::Result<Router>>,
) -> anyhow::Result<Contender> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (listener, router) = runtime
        .block_on(async { anyhow::Ok((TcpListener::bind("127.0.0.1:0").await?, router.await?)) })?;
    let address = listener.local_addr()?;
    runtime.spawn(async move { axum::serve(listener, router).await });
    Ok(Contender { name, address, rates: Vec::new(), _runtime: runtime })
}

/// A fast wrong answer must not win.
fn same_answers(clients: &Runtime, contenders: &[Contender]) -> anyhow::Result<()> {
    let expected = serde_json::to_string(&quote())?;
    for Contender { name, address, .. } in contenders {
        let (status, body) = clients.block_on(load::get(*address, PATH)).context(*name)?;
        ensure!(status.is_success() && body == expected, "{name}: {status}: {body}");
    }
    Ok(())
}

/// What the seeded database answers for S0001.
fn quote() -> Quote {
    let (bid_cents, ask_cents) = enterprise::store::bid_and_ask(1);
    Quote { symbol: "S0001".to_owned(), bid_cents, ask_cents, volume: 0 }
}

fn bare() -> Router {
    let quote = Arc::new(quote());
    let answer = async |State(quote): State<Arc<Quote>>, Path(_): Path<String>| Json(quote);
    Router::new().route("/api/trading/quotes/{symbol}", get(answer)).with_state(quote)
}

/// What an axum user finds first: axum-prometheus, moka's future cache, tower's concurrency limit.
fn usual() -> Router {
    let cache = moka::future::Cache::builder().max_capacity(1_000).build();
    let answer = async |State(cache): State<moka::future::Cache<String, Arc<Quote>>>,
                        Path(symbol): Path<String>| {
        Json(cache.get_with(symbol, async { Arc::new(quote()) }).await)
    };
    Router::new()
        .route("/api/trading/quotes/{symbol}", get(answer))
        .with_state(cache)
        .layer(GlobalConcurrencyLimitLayer::new(2_000))
        .layer(PrometheusMetricLayer::new())
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
