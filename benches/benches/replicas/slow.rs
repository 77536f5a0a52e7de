//! What becomes of the answer times when one of three replicas slows down.
//!
//! Each replica is a TCP server with as many workers as its weight says (12, 12 and 8), which take
//! exponentially distributed times of 20 ms in the mean. Requests arrive at random at 70 % of what all
//! can do when they are well, which is measured first because timers are late, whether or not earlier
//! ones were answered. The replica that slows down is the small one, so that the others can do the
//! work if they are given it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use escala_benches::table::{row, title};
use escala_replicas::{Replicas, Route, Routed, Strategy};
use futures_util::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::buffer::Buffer;
use tower::{BoxError, Service, ServiceExt as _, service_fn};

use crate::{Effort, tower_balance};

const MEAN: Duration = Duration::from_millis(20);
const WORKERS: [u32; 3] = [12, 12, 8];
const LOAD: f64 = 0.7;

/// A request, which the server sends back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read(pub(crate) u64);

impl Routed for Read {
    fn route(&self) -> Route {
        Route::Read
    }
}

/// A server that ends with it.
pub(crate) struct Server {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    /// With so many workers, each of which takes that long in the mean; zero for not at all.
    pub(crate) async fn start(workers: u32, mean: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let workers = Arc::new(Semaphore::new(workers as usize));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // An error is the client's end.
                let workers = Arc::clone(&workers);
                connections.spawn(async move { drop(serve(stream, workers, mean).await) });
            }
        });
        Ok(Self { addr, _tasks: tasks })
    }

    pub(crate) fn client(&self) -> Client {
        Client { addr: self.addr, idle: Arc::default() }
    }
}

async fn serve(
    mut stream: TcpStream,
    workers: Arc<Semaphore>,
    mean: Duration,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 8];
    loop {
        stream.read_exact(&mut request).await?;
        if !mean.is_zero() {
            let _worker = workers.acquire().await?;
            sleep(exponential(mean)).await;
        }
        stream.write_all(&request).await?;
    }
}

fn exponential(mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - fastrand::f64()).ln())
}

/// Its connections, one for each request at once.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    addr: SocketAddr,
    idle: Arc<Mutex<Vec<TcpStream>>>,
}

impl Client {
    async fn ask(self, Read(number): Read) -> Result<u64, BoxError> {
        let idle = self.idle.lock().pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.addr).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(&number.to_le_bytes()).await?;
        let answer = stream.read_u64_le().await?;
        if answer != number {
            return Err("the answer is another request's".into());
        }
        self.idle.lock().push(stream);
        Ok(answer)
    }
}

pub(crate) type Node = tower::util::BoxCloneSyncService<Read, u64, BoxError>;

pub(crate) fn node(client: Client) -> Node {
    Node::new(service_fn(move |request| client.clone().ask(request)))
}

pub(crate) type Ask = Arc<dyn Fn(Read) -> BoxFuture<'static, Result<u64, BoxError>> + Send + Sync>;

pub(crate) fn ask_with<S>(service: S) -> Ask
where
    S: Service<Read, Response = u64, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    Arc::new(move |request| service.clone().oneshot(request).boxed())
}

type Make = Box<dyn Fn(&[Node; 3]) -> anyhow::Result<Ask>>;

fn ours(strategy: Strategy) -> (String, Make) {
    let make = move |[a, b, c]: &[Node; 3]| {
        let set = Replicas::without_primary().strategy(strategy);
        let set = set.replica("a", WORKERS[0], a.clone()).replica("b", WORKERS[1], b.clone());
        Ok(ask_with(set.replica("c", WORKERS[2], c.clone()).build()?.service()))
    };
    (strategy.to_string(), Box::new(make))
}

fn contenders() -> Vec<(String, Make)> {
    vec![
        ours(Strategy::RoundRobin),
        ours(Strategy::Weighted),
        ours(Strategy::LeastLoaded),
        ours(Strategy::PeakEwma),
        (
            "tower Buffer<Balance>, pending".to_owned(),
            Box::new(|nodes| Ok(ask_with(Buffer::new(tower_balance::pending(nodes), 65_536)))),
        ),
        (
            "tower Buffer<Balance>, peak ewma".to_owned(),
            Box::new(|nodes| Ok(ask_with(Buffer::new(tower_balance::ewma(nodes), 65_536)))),
        ),
    ]
}

pub(crate) async fn run(effort: Effort) -> anyhow::Result<()> {
    let length = effort.of(Duration::from_secs(10), Duration::from_millis(200));
    let capacity = capacity(length / 5).await;
    title(
        "p50 / p99 in ms at 70 % load: all well, and one of three replicas 3 and 10 times slower",
    );
    row("", &["well", "3x slower", "10x slower", "p99 by well"].map(ToOwned::to_owned));
    for (name, make) in contenders() {
        let mut cells = Vec::new();
        let mut tails = Vec::new();
        for factor in [1, 3, 10] {
            let (half, tail) =
                measure(&make, factor, capacity, length).await.context(name.clone())?;
            let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
            cells.push(format!("{:.0} / {:.0}", ms(half), ms(tail)));
            tails.push(tail.as_secs_f64());
        }
        cells.push(format!("{:.1}", tails[2] / tails[0]));
        row(&name, &cells);
    }
    Ok(())
}

/// Requests per second that all workers can do together.
async fn capacity(length: Duration) -> f64 {
    let (end, mut workers) = (Instant::now() + length, JoinSet::new());
    for _ in 0..WORKERS.iter().sum() {
        workers.spawn(async move {
            let mut done = 0_u32;
            while Instant::now() < end {
                sleep(exponential(MEAN)).await;
                done += 1;
            }
            f64::from(done)
        });
    }
    workers.join_all().await.iter().sum::<f64>() / length.as_secs_f64()
}

/// The median and the 99th percentile; a request that is not answered in the end counts with the time
/// that it has waited.
async fn measure(
    make: &Make,
    factor: u32,
    capacity: f64,
    length: Duration,
) -> anyhow::Result<(Duration, Duration)> {
    let [a, b, c] = WORKERS;
    let servers = [
        Server::start(a, MEAN).await?,
        Server::start(b, MEAN).await?,
        Server::start(c, MEAN * factor).await?,
    ];
    let ask = make(&servers.each_ref().map(|server| node(server.client())))?;
    let pause = Duration::from_secs_f64(1.0 / (capacity * LOAD));
    let times = Arc::new(Mutex::new(Vec::<Option<Duration>>::new()));
    let mut arrivals = Vec::new();
    let mut requests = JoinSet::new();
    let (start, mut next) = (Instant::now(), Instant::now());
    while next - start < length {
        sleep_until(next).await;
        let number = arrivals.len();
        arrivals.push(next);
        times.lock().push(None);
        // From when it should have begun: a busy machine must not flatter anybody.
        let (ask, times, begun) = (Arc::clone(&ask), Arc::clone(&times), next);
        requests.spawn(async move {
            let answer = ask(Read(number as u64)).await;
            times.lock()[number] = answer.is_ok().then(|| begun.elapsed());
        });
        next += exponential(pause);
    }
    // Those that came last have a chance to be answered.
    sleep(length / 10).await;
    let end = Instant::now();
    let times = times.lock().clone();
    let mut times: Vec<Duration> = times
        .into_iter()
        .zip(arrivals)
        .map(|(time, arrival)| time.unwrap_or(end - arrival))
        .collect();
    ensure!(!times.is_empty(), "nothing was asked");
    times.sort_unstable();
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}
