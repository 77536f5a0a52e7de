//! What it costs to choose one of three nodes and to count a request in and out.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::Barrier;

use anyhow::ensure;
use escala_benches::table::{median, row, title};
use escala_replicas::{Replicas, Route, Routed, Session, Strategy};
use futures_util::FutureExt as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tower::buffer::Buffer;
use tower::{BoxError, Service, ServiceExt as _, service_fn};

use crate::{Effort, tower_balance};

/// Operations between two looks at the clock; few, so that some batches are not interrupted.
const BATCH: u32 = 1_000;

#[derive(Debug, Clone, Copy)]
struct Read;

impl Routed for Read {
    fn route(&self) -> Route {
        Route::Read
    }
}

type Answer = Ready<Result<u64, Infallible>>;

fn one(_: Read) -> Answer {
    ready(Ok(1))
}

fn set(strategy: Strategy) -> anyhow::Result<Replicas<u64>> {
    let set = Replicas::builder(0).strategy(strategy);
    Ok(set.replica("a", 3, 1).replica("b", 3, 2).replica("c", 2, 3).build()?)
}

/// Calls a service that is ready at once and answers at once.
fn call<S: Service<Read, Response = u64>>(service: &mut S) -> u64 {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready(), "nothing is slow here");
    service.call(Read).now_or_never().and_then(Result::ok).expect("it answers at once")
}

/// Nanoseconds per operation of each batch, on the CPU: nothing here sleeps, and what other processes
/// take from the thread does not count.
fn batches(count: usize, mut operation: impl FnMut()) -> Vec<f64> {
    let mut measured = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = time_on_cpu();
        for _ in 0..BATCH {
            operation();
        }
        measured.push((time_on_cpu() - begun) / f64::from(BATCH));
    }
    measured
}

/// What this thread has had of the CPU, in nanoseconds.
fn time_on_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Batches on two threads at once.
fn on_two<F: FnMut() + Send>(count: usize, make: impl Fn() -> F + Sync) -> Vec<f64> {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let worker = || {
            let operation = make();
            start.wait();
            batches(count, operation)
        };
        let threads = [scope.spawn(worker), scope.spawn(worker)];
        threads.into_iter().flat_map(|thread| thread.join().expect("no bench panics")).collect()
    })
}

fn print(name: &str, alone: &[f64], both: Option<&[f64]>) {
    let least = |measured: &[f64]| measured.iter().copied().fold(f64::INFINITY, f64::min);
    let mut cells = vec![format!("{:.0}", least(alone)), format!("{:.0}", median(alone))];
    if let Some(both) = both {
        cells.extend([format!("{:.0}", least(both)), format!("{:.0}", median(both))]);
    }
    row(name, &cells);
}

pub(crate) fn run(effort: Effort, runtime: &Runtime) -> anyhow::Result<()> {
    picks(effort.of(4_000, 2))?;
    calls(effort, runtime)
}

fn picks(count: usize) -> anyhow::Result<()> {
    title("Picking one of three nodes and ending it, in ns on the CPU; no call");
    row("", &["1 thread", "median", "2 threads", "median"].map(ToOwned::to_owned));
    let strategies =
        [Strategy::RoundRobin, Strategy::Weighted, Strategy::LeastLoaded, Strategy::PeakEwma];
    let limited = Strategy::LeastLoaded;
    let sets = strategies.map(|strategy| (strategy.as_str(), set(strategy)));
    for (name, set) in sets.into_iter().chain([("least_loaded, max_in_flight", set(limited))]) {
        let set = set?;
        if name.ends_with("max_in_flight") {
            set.change(|members| {
                let names: Vec<String> = members.names().map(ToOwned::to_owned).collect();
                names.iter().try_for_each(|name| members.set_max_in_flight(name, Some(50)))
            })?;
        }
        let make = || {
            let (set, session) = (set.clone(), Session::new());
            move || {
                let pick = set.read(black_box(&session)).expect("there are nodes");
                assert!((1..=3).contains(&*pick), "reads go to replicas");
                pick.succeeded();
            }
        };
        let both = on_two(count, make);
        print(name, &batches(count, make()), Some(&both));
        let stats = set.stats();
        ensure!(stats.nodes.iter().all(|node| node.in_flight == 0), "a pick was not counted out");
    }
    Ok(())
}

fn calls(effort: Effort, runtime: &Runtime) -> anyhow::Result<()> {
    let count = effort.of(4_000, 2);
    title(
        "The same through a service that answers at once, in ns on the CPU (behind a Buffer: on the wall)",
    );
    row("", &["1 thread", "median", "2 threads", "median"].map(ToOwned::to_owned));
    let bare = || {
        let mut service = service_fn(one);
        move || assert_eq!(call(black_box(&mut service)), 1)
    };
    print("bare service", &batches(count, bare()), Some(&on_two(count, bare)));
    let node = service_fn(one as fn(Read) -> Answer);
    for strategy in [Strategy::LeastLoaded, Strategy::PeakEwma] {
        let set = Replicas::without_primary().strategy(strategy);
        let set = set.replica("a", 3, node).replica("b", 3, node).replica("c", 2, node).build()?;
        let ours = || {
            let mut service = set.service();
            move || assert_eq!(call(&mut service), 1)
        };
        let name = format!("escala {strategy}");
        print(&name, &batches(count, ours()), Some(&on_two(count, ours)));
    }
    // Each caller needs its own, so that two threads share nothing, the load of the nodes included.
    let pending = || {
        let mut service = tower_balance::pending(&[node; 3]);
        move || assert_eq!(call(&mut service), 1)
    };
    let name = "tower Balance, pending; one per thread";
    print(name, &batches(count, pending()), Some(&on_two(count, pending)));
    let ewma = || {
        let mut service = tower_balance::ewma(&[node; 3]);
        move || assert_eq!(call(&mut service), 1)
    };
    let name = "tower Balance, peak ewma; one per thread";
    print(name, &batches(count, ewma()), Some(&on_two(count, ewma)));
    let few = effort.of(40, 1);
    print_buffered(
        "tower Buffer<Balance>, pending",
        few,
        runtime,
        tower_balance::pending(&[node; 3]),
    )?;
    print_buffered(
        "tower Buffer<Balance>, peak ewma",
        few,
        runtime,
        tower_balance::ewma(&[node; 3]),
    )
}

/// What callers must share is behind a queue and a task.
fn print_buffered<S>(name: &str, count: usize, runtime: &Runtime, service: S) -> anyhow::Result<()>
where
    S: Service<Read, Response = u64, Error = BoxError> + Send + 'static,
    S::Future: Send + 'static,
{
    let service = {
        let _entered = runtime.enter();
        Buffer::new(service, 1_024)
    };
    let task = |service: Buffer<Read, S::Future>| {
        runtime.spawn(async move {
            let mut measured = Vec::new();
            for _ in 0..count {
                let begun = Instant::now();
                for _ in 0..BATCH {
                    ensure!(service.clone().oneshot(Read).await.is_ok_and(|one| one == 1));
                }
                measured.push(begun.elapsed().as_nanos() as f64 / f64::from(BATCH));
            }
            anyhow::Ok(measured)
        })
    };
    let alone = runtime.block_on(task(service.clone()))??;
    let both = [task(service.clone()), task(service)];
    let mut two = Vec::new();
    for task in both {
        two.extend(runtime.block_on(task)??);
    }
    print(name, &alone, Some(&two));
    Ok(())
}
