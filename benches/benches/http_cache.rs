//! `cargo bench -p escala-benches --bench http_cache`: what is left of bare axum's requests per
//! second when the HTTP cache answers, and how `cache-proxy` does beside nginx's `proxy_cache`;
//! all answer the same kilobyte.
//!
//! Each server is a process with one thread that serves (nginx: one worker), the clients have
//! another one. The rounds are interleaved and the medians compared, so that a noisy machine
//! disturbs all alike; time on the CPU is counted too, which it disturbs least.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::{MethodRouter, get};
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer, StoredResponse};
use escala_cache::{Cache, Memory};
use escala_examples::{load, proxy};
use testkit::Nginx;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const PATH: &str = "/catalogue";
/// How often the origin made the answer itself.
const MADE: &str = "/made";
const BODY: [u8; 1024] = [b'x'; 1024];
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_default();
    match first.to_str() {
        Some("serve-bare") => serve(get(answer)),
        Some("serve-cached") => serve(get(answer).layer(layer()?)),
        Some("serve-proxy") => serve_proxy(arguments),
        _ => compare(std::env::args().any(|argument| argument == "--bench")),
    }
}

/// `cargo bench` measures; anything else (`cargo test --benches`) only sees whether it works.
fn compare(measuring: bool) -> anyhow::Result<()> {
    let (rounds, round) = if measuring { (ROUNDS, ROUND) } else { (1, Duration::from_millis(100)) };
    let clients = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let origin = Server::start("serve-bare", &[])?;
    let behind = format!("http://{}", origin.address);
    let cached = Server::start("serve-cached", &[])?;
    let nginx = clients.block_on(nginx(&behind))?;
    let threads = ["--listen", "127.0.0.1:0", "--threads", "1", "--origin", &behind];
    let safe = Server::start("serve-proxy", &threads)?;
    let rfc = Server::start("serve-proxy", &[&threads[..], &["--profile", "rfc"]].concat())?;
    let mut tables = [
        vec![
            Contender::new("bare axum", origin.address, origin.pid()),
            Contender::new("axum, HTTP cache, hit", cached.address, cached.pid()),
        ],
        vec![
            Contender::new("nginx proxy_cache, hit", nginx.addr(), nginx.pid().context("nginx")?),
            Contender::new("cache-proxy, safe, hit", safe.address, safe.pid()),
            Contender::new("cache-proxy, rfc, hit", rfc.address, rfc.pid()),
            Contender::new("bare origin", origin.address, origin.pid()),
        ],
    ];
    for table in &mut tables {
        same_answers(&clients, table)?;
        let before = [made(&clients, &cached)?, made(&clients, &origin)?];
        for _ in 0..rounds {
            table.iter_mut().try_for_each(|contender| contender.measure(&clients, round))?;
        }
        ensure!(before[0] == made(&clients, &cached)?, "the layer asked its service again");
        // Only those without a cache have been to the origin.
        let bare: u64 =
            table.iter().filter(|c| c.address == origin.address).map(|c| c.answers).sum();
        ensure!(before[1] + bare == made(&clients, &origin)?, "a cache asked its origin again");
        print(table);
    }
    Ok(())
}

/// A server by name, with the figures of each round.
struct Contender {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
    answers: u64,
    /// Requests per second, and microseconds on the CPU for each.
    rates: Vec<f64>,
    costs: Vec<f64>,
}

impl Contender {
    fn new(name: &'static str, address: SocketAddr, pid: u32) -> Self {
        Self { name, address, pid, answers: 0, rates: Vec::new(), costs: Vec::new() }
    }

    fn measure(&mut self, clients: &Runtime, round: Duration) -> anyhow::Result<()> {
        let before = time_on_cpu(self.pid)?;
        let run = load::closed_loop(self.address, PATH, CONNECTIONS, round);
        let answers = clients.block_on(run).context(self.name)?.count;
        let spent = time_on_cpu(self.pid)?.saturating_sub(before);
        self.answers += answers;
        self.rates.push(answers as f64 / round.as_secs_f64());
        self.costs.push(spent.as_secs_f64() * 1e6 / answers as f64);
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
fn print(table: &[Contender]) {
    let figures = |c: &Contender| (median(&c.rates), median(&c.costs));
    let Some((rate, cost)) = table.first().map(figures) else { return };
    println!(
        "\n{:<26}{:>12}{:>8}{:>18}{:>8}",
        "", "requests/s", "ratio", "CPU us/request", "ratio"
    );
    for contender in table {
        let (own_rate, own_cost) = figures(contender);
        let (faster, dearer) = (own_rate / rate, own_cost / cost);
        let name = contender.name;
        println!("{name:<26}{own_rate:>12.0}{faster:>8.2}{own_cost:>18.1}{dearer:>8.2}");
    }
}

/// A fast wrong answer must not win. Also fills the caches.
fn same_answers(clients: &Runtime, contenders: &[Contender]) -> anyhow::Result<()> {
    for Contender { name, address, .. } in contenders {
        for _ in 0..2 {
            let (status, body) = clients.block_on(load::get(*address, PATH)).context(*name)?;
            ensure!(status.is_success() && body.as_bytes() == BODY, "{name}: {status}: {body}");
        }
    }
    Ok(())
}

fn made(clients: &Runtime, server: &Server) -> anyhow::Result<u64> {
    let (_, made) = clients.block_on(load::get(server.address, MADE))?;
    made.parse().with_context(|| format!("{MADE}: {made}"))
}

async fn nginx(origin: &str) -> anyhow::Result<Nginx> {
    // What its own advice on speed says; and no end to a connection after a thousand requests.
    let http = "
        proxy_cache_path store keys_zone=store:10m inactive=1d;
        sendfile on; tcp_nopush on; open_file_cache max=1000; open_file_cache_valid 1h;
        keepalive_requests 1000000000; keepalive_timeout 1h;";
    let server = format!(
        "location / {{ proxy_pass {origin}; proxy_http_version 1.1; proxy_cache store;
         proxy_cache_valid 200 1h; add_header x-cache $upstream_cache_status; }}"
    );
    Ok(Nginx::builder().http(http).server(server).start().await?)
}

/// This program again, as a server; killed on drop, and gone when this process is.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(serve: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(serve).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start itself")?;
        let said = child.stdout.take().map(|output| BufReader::new(output).lines().next());
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let Some(Some(Ok(line))) = said else { bail!("{serve} said nothing") };
        let (_, address) = line.rsplit_once("http://").context("no address")?;
        server.address = address.parse().with_context(|| format!("{serve}: {line}"))?;
        Ok(server)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process when the one that started it is gone.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

static ANSWERS: AtomicU64 = AtomicU64::new(0);

async fn answer() -> impl axum::response::IntoResponse {
    ANSWERS.fetch_add(1, Ordering::Relaxed);
    ([(CONTENT_TYPE, "text/plain"), (CACHE_CONTROL, "public, max-age=86400")], &BODY[..])
}

fn layer() -> anyhow::Result<HttpCacheLayer> {
    let memory = Memory::entries(1_000).ttl(Duration::from_secs(86_400));
    let pages = Cache::<String, StoredResponse>::builder("pages").memory(memory).build()?;
    Ok(HttpCacheLayer::new(HttpCache::new(pages, HttpCacheConfig::default())?))
}

#[expect(clippy::print_stdout, reason = "tells the one that started it where it listens")]
fn serve(route: MethodRouter) -> anyhow::Result<()> {
    end_with_parent();
    let made = async || ANSWERS.load(Ordering::Relaxed).to_string();
    let router = Router::new().route(PATH, route).route(MADE, get(made));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        let served = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(served.await??)
    })
}

fn serve_proxy(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    end_with_parent();
    let code = proxy::main(std::iter::once(OsString::from("cache-proxy")).chain(arguments));
    ensure!(code == std::process::ExitCode::SUCCESS, "cache-proxy failed");
    Ok(())
}

/// What all threads of a process and of its children have had of the CPU.
fn time_on_cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = thread?.path();
        let nanoseconds = fs::read_to_string(folder.join("schedstat"))?;
        let nanoseconds = nanoseconds.split(' ').next().unwrap_or_default().parse()?;
        sum += Duration::from_nanos(nanoseconds);
        for child in fs::read_to_string(folder.join("children"))?.split_whitespace() {
            sum += time_on_cpu(child.parse()?)?;
        }
    }
    Ok(sum)
}

fn median(measured: &[f64]) -> f64 {
    let mut sorted = measured.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
