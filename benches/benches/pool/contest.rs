//! Contenders that take turns, and tasks that do one thing over and over for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use escala_benches::table::{median, row, title};
use futures_util::future::{BoxFuture, FutureExt as _, try_join_all};
use tokio::time::{Instant, sleep};

/// Tasks at work in every table but those for a single one.
pub(crate) const TASKS: u64 = 64;

type Round = Box<dyn Fn(Duration) -> BoxFuture<'static, anyhow::Result<Measured>>>;

/// One who does the same work in another way.
pub(crate) struct Contender {
    name: &'static str,
    round: Round,
    rounds: Vec<Measured>,
}

/// What came of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    /// The most operations of a task by the fewest.
    pub(crate) fairness: f64,
}

impl Contender {
    /// Tasks that do `operation` for a while; it is told a number that no other call has.
    pub(crate) fn new<F, Fut>(name: &'static str, tasks: u64, operation: F) -> Self
    where
        F: Fn(u64) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let round = move |length| at_work(tasks, length, operation.clone()).boxed();
        Self { name, round: Box::new(round), rounds: Vec::new() }
    }
}

async fn at_work<F, Fut>(tasks: u64, length: Duration, operation: F) -> anyhow::Result<Measured>
where
    F: Fn(u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<()>> + Send,
{
    let on = Arc::new(AtomicBool::new(true));
    let begun = Instant::now();
    let workers: Vec<_> = (0..tasks)
        .map(|task| {
            let (on, operation) = (Arc::clone(&on), operation.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while on.load(Ordering::Relaxed) {
                    operation(task + tasks * done).await?;
                    done += 1;
                }
                anyhow::Ok(done)
            })
        })
        .collect();
    sleep(length).await;
    on.store(false, Ordering::Relaxed);
    let mut done = Vec::new();
    for worker in try_join_all(workers).await? {
        done.push(worker?);
    }
    let all: u64 = done.iter().sum();
    let most = done.iter().max().copied().context("there are tasks")?;
    let least = done.iter().min().copied().context("there are tasks")?;
    Ok(Measured {
        per_second: all as f64 / begun.elapsed().as_secs_f64(),
        fairness: most as f64 / least.max(1) as f64,
    })
}

/// One who is timed call by call.
pub(crate) struct Timed {
    name: &'static str,
    round: Box<dyn Fn(u64) -> BoxFuture<'static, anyhow::Result<Vec<f64>>>>,
    rounds: Vec<f64>,
}

impl Timed {
    /// One task that makes `calls` at a time, and looks at the clock before and after.
    pub(crate) fn new<F, Fut>(name: &'static str, calls: u64, operation: F) -> Self
    where
        F: Fn(u64) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let round = move |times| one_by_one(times, calls, operation.clone()).boxed();
        Self { name, round: Box::new(round), rounds: Vec::new() }
    }
}

async fn one_by_one<F, Fut>(times: u64, calls: u64, operation: F) -> anyhow::Result<Vec<f64>>
where
    F: Fn(u64) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    // On a task, as in a server.
    let task = tokio::spawn(async move {
        let mut nanoseconds = Vec::with_capacity(times as usize);
        for time in 0..times {
            let begun = Instant::now();
            for call in 0..calls {
                operation(time * calls + call).await?;
            }
            nanoseconds.push(begun.elapsed().as_nanos() as f64 / calls as f64);
        }
        anyhow::Ok(nanoseconds)
    });
    task.await?
}

/// Lets the contenders take turns, and prints the median of each one's medians in nanoseconds.
pub(crate) async fn time(
    text: &str,
    contenders: &mut [Timed],
    rounds: usize,
    times: u64,
) -> anyhow::Result<()> {
    for _ in 0..rounds {
        for contender in contenders.iter_mut() {
            let measured = (contender.round)(times).await.with_context(|| contender.name)?;
            contender.rounds.push(median(&measured));
        }
    }
    title(text);
    row("", &["ns", "over row 1"].map(ToOwned::to_owned));
    for Timed { name, rounds, .. } in contenders.iter() {
        let base = &contenders[0].rounds;
        let over: Vec<f64> = rounds.iter().zip(base).map(|(time, base)| time - base).collect();
        row(name, &[format!("{:.0}", median(rounds)), format!("{:+.0}", median(&over))]);
    }
    Ok(())
}

/// Lets the contenders take turns.
pub(crate) async fn compete(
    contenders: &mut [Contender],
    rounds: usize,
    length: Duration,
) -> anyhow::Result<()> {
    for round in 0..rounds {
        // Another one begins each time.
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let measured = (contenders[at].round)(length).await;
            let measured = measured.with_context(|| contenders[at].name)?;
            contenders[at].rounds.push(measured);
        }
    }
    Ok(())
}

/// Prints who did how much, against the contenders at these places.
pub(crate) fn print(text: &str, contenders: &[Contender], against: &[usize]) {
    title(text);
    let mut head = vec!["per second".to_owned()];
    head.extend(against.iter().map(|at| format!("by row {}", at + 1)));
    head.push("max/min".to_owned());
    row("", &head);
    for contender in contenders {
        let rates: Vec<f64> = contender.rounds.iter().map(|round| round.per_second).collect();
        let mut cells = vec![format!("{:.0}", median(&rates))];
        for at in against {
            let base = contenders[*at].rounds.iter().map(|round| round.per_second);
            let ratios: Vec<f64> = rates.iter().zip(base).map(|(rate, base)| rate / base).collect();
            cells.push(format!("{:.2}", median(&ratios)));
        }
        let fairness: Vec<f64> = contender.rounds.iter().map(|round| round.fairness).collect();
        cells.push(format!("{:.2}", median(&fairness)));
        row(contender.name, &cells);
    }
}

/// Says what the figures were measured on.
#[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
pub(crate) fn machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model =
        model.map_or("an unknown processor", |model| model.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown");
    println!("{cores} cores of {model}, load {load} at the start; two runtime threads");
}
