//! `cargo bench -p escala-benches --bench gateway`: how many requests `gateway` passes on beside
//! nginx, how long they take, and what they cost; both to the same two servers over kept connections,
//! balanced by least connections, with the same fields added on the way in and out.
//!
//! Each proxy is a process with one thread that serves (nginx: one worker), the servers are an nginx
//! each, the clients have a thread. The rounds are interleaved and the medians compared, so that
//! a noisy machine disturbs all alike; time on the CPU is counted too, which it disturbs least.
//!
//! At the full load of each, time is but the other side of requests per second. So both are also
//! sent the same number of requests a second, half of what nginx can do.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use escala_benches::table::{median, row, title};
use escala_examples::{gateway, load};
use testkit::Nginx;
use tokio::runtime::{Builder, Runtime};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);
/// Of what nginx can do at most.
const SHARE: f64 = 0.5;
/// What is asked for, and how long it is.
const PATHS: [(&str, usize); 2] = [("/small", 1024), ("/large", 64 * 1024)];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(serve) if serve == "serve-gateway" => serve_gateway(arguments),
        _ => compare(std::env::args().any(|argument| argument == "--bench")),
    }
}

/// `cargo bench` measures; anything else (`cargo test --benches`) only sees whether it works.
fn compare(measuring: bool) -> anyhow::Result<()> {
    let (rounds, round) = if measuring { (ROUNDS, ROUND) } else { (1, Duration::from_millis(100)) };
    let clients = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let servers = [clients.block_on(server())?, clients.block_on(server())?];
    let behind = [servers[0].addr(), servers[1].addr()];
    let nginx = clients.block_on(proxy(behind))?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("gateway.toml");
    fs::write(&file, settings(behind))?;
    let gateway = Gateway::start(&file)?;
    for (path, length) in PATHS {
        let mut contenders = [
            Contender::new("nginx", nginx.addr(), nginx.pid().context("nginx")?),
            Contender::new("gateway", gateway.address, gateway.child.id()),
            Contender::new(
                "one of the servers itself",
                behind[0],
                servers[0].pid().context("pid")?,
            ),
        ];
        same_answers(&clients, &contenders, path, length)?;
        for _ in 0..rounds {
            contenders.iter_mut().try_for_each(|one| one.measure(&clients, path, round))?;
        }
        print(&contenders, path, length);
        let rate = contenders.first().map_or(0.0, |nginx| median(&nginx.rates)) * SHARE;
        contenders.iter_mut().for_each(Contender::forget);
        for _ in 0..rounds {
            let mut both = contenders.iter_mut().take(2);
            both.try_for_each(|one| one.measure_at(&clients, path, rate, round))?;
        }
        print_at(&contenders[..2], path, rate);
    }
    Ok(())
}

/// A server by name, with the figures of each round.
struct Contender {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
    /// Requests per second, microseconds on the CPU for each, milliseconds.
    rates: Vec<f64>,
    costs: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Contender {
    fn new(name: &'static str, address: SocketAddr, pid: u32) -> Self {
        let (rates, costs, p50, p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { name, address, pid, rates, costs, p50, p99 }
    }

    fn measure(
        &mut self,
        clients: &Runtime,
        path: &'static str,
        round: Duration,
    ) -> anyhow::Result<()> {
        let run = load::closed_loop(self.address, path, CONNECTIONS, round);
        self.count(round, || clients.block_on(run))
    }

    /// The same, but with so many requests a second.
    fn measure_at(
        &mut self,
        clients: &Runtime,
        path: &'static str,
        rate: f64,
        round: Duration,
    ) -> anyhow::Result<()> {
        let run = load::at_rate(self.address, path, CONNECTIONS, rate, round);
        self.count(round, || clients.block_on(run))
    }

    fn count(
        &mut self,
        round: Duration,
        run: impl FnOnce() -> anyhow::Result<load::Answers>,
    ) -> anyhow::Result<()> {
        let before = time_on_cpu(self.pid)?;
        let answers = run().context(self.name)?;
        let spent = time_on_cpu(self.pid)?.saturating_sub(before);
        self.rates.push(answers.count as f64 / round.as_secs_f64());
        self.costs.push(spent.as_secs_f64() * 1e6 / answers.count as f64);
        self.p50.push(answers.quantile(0.5).as_secs_f64() * 1e3);
        self.p99.push(answers.quantile(0.99).as_secs_f64() * 1e3);
        Ok(())
    }

    fn forget(&mut self) {
        let Self { name: _, address: _, pid: _, rates, costs, p50, p99 } = self;
        [rates, costs, p50, p99].into_iter().for_each(Vec::clear);
    }
}

fn print_at(contenders: &[Contender], path: &str, rate: f64) {
    title(&format!("GET {path}, {rate:.0} requests/s for each, {CONNECTIONS} connections"));
    row("", &["requests/s", "p50 ms", "p99 ms", "CPU us/req"].map(str::to_owned));
    for Contender { name, rates, costs, p50, p99, .. } in contenders {
        let [p50, p99] = [p50, p99].map(|times| format!("{:.2}", median(times)));
        let rate = format!("{:.0}", median(rates));
        row(name, &[rate, p50, p99, format!("{:.1}", median(costs))]);
    }
}

fn print(contenders: &[Contender], path: &str, length: usize) {
    title(&format!("GET {path}, {length} bytes, {CONNECTIONS} connections; ratios to the first"));
    row("", &["requests/s", "ratio", "p50 ms", "p99 ms", "CPU us/req", "ratio"].map(str::to_owned));
    let Some(first) = contenders.first() else { return };
    let (first_rate, first_cost) = (median(&first.rates), median(&first.costs));
    for Contender { name, rates, costs, p50, p99, .. } in contenders {
        let (rate, cost) = (median(rates), median(costs));
        row(
            name,
            &[
                format!("{rate:.0}"),
                format!("{:.2}", rate / first_rate),
                format!("{:.2}", median(p50)),
                format!("{:.2}", median(p99)),
                format!("{cost:.1}"),
                format!("{:.2}", cost / first_cost),
            ],
        );
    }
}

/// A fast wrong answer must not win.
fn same_answers(
    clients: &Runtime,
    contenders: &[Contender],
    path: &str,
    length: usize,
) -> anyhow::Result<()> {
    for Contender { name, address, .. } in contenders {
        let (status, body) = clients.block_on(load::get(*address, path)).context(*name)?;
        let right = status.is_success() && body.len() == length;
        ensure!(right, "{name}: {status}: {} bytes", body.len());
    }
    Ok(())
}

/// No end to a connection after a thousand requests, on either side of the proxies.
const KEEP: &str = "keepalive_requests 1000000000; keepalive_timeout 1h;";

async fn server() -> anyhow::Result<Nginx> {
    let answer = |(path, length): (&str, usize)| {
        // One parameter of nginx may have no more than some 4 KiB.
        let (kib, body) = ("x".repeat(1024), "$kib".repeat(length / 1024));
        format!(
            "location = {path} {{ set $kib {kib}; default_type text/plain; return 200 {body}; }}"
        )
    };
    Ok(Nginx::builder().http(KEEP).server(PATHS.map(answer).concat()).start().await?)
}

async fn proxy([one, two]: [SocketAddr; 2]) -> anyhow::Result<Nginx> {
    let http = format!(
        "{KEEP} upstream app {{ least_conn; server {one}; server {two}; keepalive 256;
         keepalive_requests 1000000000; }}"
    );
    let server = "location / { proxy_pass http://app; proxy_http_version 1.1;
        proxy_set_header Connection ''; proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host;
        add_header x-content-type-options nosniff; add_header x-frame-options SAMEORIGIN;
        add_header referrer-policy strict-origin-when-cross-origin; }";
    Ok(Nginx::builder().http(http).server(server).start().await?)
}

fn settings([one, two]: [SocketAddr; 2]) -> String {
    format!(
        r#"
        listen = "127.0.0.1:0"
        threads = 1
        [upstreams.app]
        strategy = "least_conn"
        servers = [{{ address = "{one}" }}, {{ address = "{two}" }}]
        [[routes]]
        path = "/"
        upstream = "app"
        "#
    )
}

/// This program again, as the gateway; killed on drop, and gone when this process is.
struct Gateway {
    child: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(file: &std::path::Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve-gateway").arg("--config").arg(file);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start itself")?;
        let said = child.stdout.take().map(|output| BufReader::new(output).lines().next());
        let mut gateway = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let Some(Some(Ok(line))) = said else { bail!("the gateway said nothing") };
        let (_, address) = line.rsplit_once("http://").context("no address")?;
        gateway.address = address.parse().with_context(|| line.clone())?;
        Ok(gateway)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve_gateway(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    // Ends this process when the one that started it is gone.
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let code = gateway::main(std::iter::once(OsString::from("gateway")).chain(arguments));
    ensure!(code == std::process::ExitCode::SUCCESS, "the gateway failed");
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
