//! What `serve` adds to a request over TCP, beside `axum::serve`: bounds, deadlines and the books that a
//! drain waits on.
//!
//! Client and server share one thread and one connection. One request after the other, as most clients
//! send them, costs mostly the kernel; of 64 sent together hardly anything is measured but the server.

use std::net::SocketAddr;

use anyhow::ensure;
use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use escala_benches::table::{median, row, title};
use escala_cluster::{Drain, DrainConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::Effort;
use crate::table::{short, tenth, time_of_this_thread};

/// Requests that are sent together: none, and many.
const TOGETHER: [usize; 2] = [1, 64];
/// Requests between two looks at the clock.
const BATCH: usize = 64;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";

struct Contender {
    name: &'static str,
    client: TcpStream,
    /// Bytes of each answer.
    answer: usize,
    /// Nanoseconds on the CPU for each request, by how many are sent together.
    spent: [Vec<f64>; 2],
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut contenders = runtime.block_on(contenders())?;
    for round in 0..effort.of(2_000, 2) {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let contender = &mut contenders[at];
            for (together, spent) in TOGETHER.into_iter().zip(0..) {
                let begun = time_of_this_thread();
                runtime.block_on(contender.ask(together))?;
                let each = (time_of_this_thread() - begun) / BATCH as f64;
                contender.spent[spent].push(each);
            }
        }
    }
    title("A request over TCP, client included, ns on the CPU: one by one, and 64 together");
    let columns = ["one by one", "over row 1", "its p10", "64 together", "over row 1", "its p10"];
    row("", &columns.map(ToOwned::to_owned));
    let [first, ..] = &contenders[..] else { return Ok(()) };
    for Contender { name, spent, .. } in &contenders {
        let cells = spent.iter().zip(&first.spent).flat_map(|(spent, first)| {
            let over = |of: fn(&[f64]) -> f64| short(of(spent) - of(first));
            [format!("{:.0}", median(spent)), over(median), over(tenth)]
        });
        row(name, &cells.collect::<Vec<_>>());
    }
    Ok(())
}

async fn contenders() -> anyhow::Result<[Contender; 3]> {
    // `serve` sends at once as well; without it a request now and then waits 40 ms for an ack.
    let at_once = |stream: &mut TcpStream| drop(stream.set_nodelay(true));
    let plain = TcpListener::bind("127.0.0.1:0").await?;
    let plain_at = plain.local_addr()?;
    tokio::spawn(axum::serve(plain.tap_io(at_once), router()).into_future());
    let informed = TcpListener::bind("127.0.0.1:0").await?;
    let informed_at = informed.local_addr()?;
    let service = router().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(informed.tap_io(at_once), service).into_future());
    let ours = TcpListener::bind("127.0.0.1:0").await?;
    let ours_at = ours.local_addr()?;
    tokio::spawn(escala_cluster::serve(ours, router(), Drain::new(DrainConfig::default())));
    Ok([
        contender("axum::serve, ConnectInfo", informed_at).await?,
        contender("axum::serve", plain_at).await?,
        contender("escala serve, ConnectInfo", ours_at).await?,
    ])
}

fn router() -> Router {
    Router::new().route("/", get(async || "ok"))
}

async fn contender(name: &'static str, server: SocketAddr) -> anyhow::Result<Contender> {
    let mut client = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    client.write_all(REQUEST).await?;
    let mut answer = vec![0; 1_024];
    let length = client.read(&mut answer).await?;
    ensure!(answer[..length].starts_with(b"HTTP/1.1 200") && answer[..length].ends_with(b"ok"));
    Ok(Contender { name, client, answer: length, spent: [Vec::new(), Vec::new()] })
}

impl Contender {
    /// As many requests as a batch has, so many of them together.
    async fn ask(&mut self, together: usize) -> anyhow::Result<()> {
        let requests = REQUEST.repeat(together);
        let mut answers = vec![0; together * self.answer];
        for _ in 0..BATCH / together {
            self.client.write_all(&requests).await?;
            self.client.read_exact(&mut answers).await?;
            ensure!(answers.ends_with(b"ok"), "the answers have another length");
        }
        Ok(())
    }
}
