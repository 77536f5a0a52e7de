//! Measures subjects in turns and prints them. The columns:
//!
//! - **A**: one thread, its own time on the CPU per call, over the bare service: the median of many
//!   short batches, and the tenth percentile, which is what a call costs while nobody disturbs it.
//! - **allocations** per call, over the bare service.
//! - **B**: two threads that share one subject and call it at the very same time: nanoseconds on the
//!   wall per call of each, and how many times the whole of A's median that is. Only bursts count in
//!   which both ran side by side and all the time; a `-` where hardly any did, because the callers put
//!   each other to sleep.
//! - **C**: a runtime of two threads with 64 tasks: time on the CPU of the whole process per call, over
//!   the bare service. `stuck`: a call was never woken again, and was given up after ten seconds.

use std::sync::atomic::{AtomicUsize, Ordering};

use escala_benches::table::{median, row, title};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

use crate::Effort;
use crate::subject::Subject;

/// Nanoseconds that a batch should last: short enough to be seldom interrupted, long enough that
/// the clock's own price is nothing.
const BATCH: f64 = 60_000.0;
/// The same for all tasks of one round of C together, whose start and end cost more.
const TASKS_BATCH: f64 = 2_000_000.0;
const TASKS: u64 = 64;
/// A round of C takes milliseconds, and on a machine that is busy with other things a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bursts of B for which two threads are started once.
const BURSTS: usize = 20;
/// Bursts that must be undisturbed for their median to mean something.
const ENOUGH: usize = 10;

#[derive(Default)]
struct Measured {
    /// Calls of one batch of A and B.
    calls: u64,
    alone: Vec<f64>,
    allocations: f64,
    /// The undisturbed bursts of B.
    together: Vec<f64>,
    tasks: Vec<f64>,
    /// Whether a call of a task never came back.
    stuck: bool,
}

/// Measures all and prints a table. The first subject is the bare service, with which the others are
/// compared up to the next one named `bare ...`.
pub(crate) fn run(heading: &str, subjects: &[Subject], effort: Effort) -> anyhow::Result<()> {
    let alone = Builder::new_current_thread().enable_all().build()?;
    let workers = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut measured: Vec<Measured> = subjects.iter().map(|it| begin(it, &alone, effort)).collect();
    for round in 0..effort.of(1_000, 2) {
        for at in turns(subjects.len(), round) {
            let (subject, measured) = (&subjects[at], &mut measured[at]);
            if subject.few.is_none_or(|few| round < few.batches) {
                measured.alone.push(batch(subject, measured.calls, &alone));
            }
        }
    }
    let shared: Vec<usize> = (0..subjects.len()).filter(|&at| subjects[at].few.is_none()).collect();
    for round in 0..effort.of(60, 1) {
        for turn in turns(shared.len(), round) {
            let at = shared[turn];
            two_threads(&subjects[at], &mut measured[at], effort)?;
        }
    }
    for round in 0..effort.of(40, 1) {
        for turn in turns(shared.len(), round) {
            let at = shared[turn];
            let once = median(&measured[at].alone).max(1.0);
            let calls = effort.of((TASKS_BATCH / once) as u64 / TASKS, 3).max(1);
            if !measured[at].stuck {
                match many_tasks(&subjects[at], calls, &workers)? {
                    Some(each) => measured[at].tasks.push(each),
                    None => measured[at].stuck = true,
                }
            }
        }
    }
    title(heading);
    print(subjects, &measured, effort);
    Ok(())
}

/// Each round begins with another one.
fn turns(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (round + turn) % count)
}

/// Warms it up, counts its allocations and finds how many calls a batch shall have.
fn begin(subject: &Subject, runtime: &Runtime, effort: Effort) -> Measured {
    let tried = subject.few.map_or_else(|| effort.of(2_000, 3), |few| few.calls);
    batch(subject, tried, runtime);
    let calls = subject.calls(tried);
    let allocations = allocation_counter::measure(|| runtime.block_on(calls)).count_total;
    let once = batch(subject, tried, runtime);
    let calls = match subject.few {
        Some(few) => few.calls,
        None => effort.of(((BATCH / once) as u64).clamp(20, 20_000), 3),
    };
    Measured { calls, allocations: allocations as f64 / tried as f64, ..Measured::default() }
}

/// Nanoseconds on the CPU per call of this thread.
fn batch(subject: &Subject, count: u64, runtime: &Runtime) -> f64 {
    let calls = subject.calls(count);
    let begun = now(ClockId::ThreadCPUTime);
    runtime.block_on(calls);
    (now(ClockId::ThreadCPUTime) - begun) / count as f64
}

/// When a burst began and ended on the wall, and what the thread had of the CPU meanwhile.
#[derive(Clone, Copy)]
struct Burst {
    begun: f64,
    ended: f64,
    on_cpu: f64,
}

impl Burst {
    fn time(self) -> f64 {
        self.ended - self.begun
    }

    /// Whether the thread was neither interrupted nor asleep.
    fn undisturbed(self) -> bool {
        self.on_cpu >= 0.97 * self.time()
    }

    fn beside(self, other: Self) -> bool {
        let both = self.ended.min(other.ended) - self.begun.max(other.begun);
        both >= 0.8 * self.time().max(other.time())
    }
}

fn two_threads(subject: &Subject, measured: &mut Measured, effort: Effort) -> anyhow::Result<()> {
    let calls = measured.calls;
    let bursts = effort.of(BURSTS, 1);
    let arrived = AtomicUsize::new(0);
    let worker = || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut seen = Vec::with_capacity(bursts);
        for turn in 1..=bursts {
            let future = subject.calls(calls);
            arrived.fetch_add(1, Ordering::AcqRel);
            let mut spins = 0_u32;
            while arrived.load(Ordering::Acquire) < 2 * turn {
                spins += 1;
                // The other one may want this very core.
                if spins.is_multiple_of(4_096) {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
            let (on_cpu, begun) = (now(ClockId::ThreadCPUTime), now(ClockId::Monotonic));
            runtime.block_on(future);
            let ended = now(ClockId::Monotonic);
            seen.push(Burst { begun, ended, on_cpu: now(ClockId::ThreadCPUTime) - on_cpu });
        }
        anyhow::Ok(seen)
    };
    let [left, right] = std::thread::scope(|scope| {
        let threads = [scope.spawn(worker), scope.spawn(worker)];
        threads.map(|thread| thread.join().expect("answers are right"))
    });
    for (one, two) in left?.into_iter().zip(right?) {
        let per_call = f64::midpoint(one.time(), two.time()) / calls as f64;
        if one.undisturbed() && two.undisturbed() && one.beside(two) {
            measured.together.push(per_call);
        }
    }
    Ok(())
}

/// Nanoseconds on the CPU per call of the whole process.
/// `None`: a call never came back.
fn many_tasks(subject: &Subject, calls: u64, runtime: &Runtime) -> anyhow::Result<Option<f64>> {
    let futures: Vec<_> = (0..TASKS).map(|_| subject.calls(calls)).collect();
    let begun = now(ClockId::ProcessCPUTime);
    let ended = runtime.block_on(async {
        let mut tasks: JoinSet<()> = futures.into_iter().collect();
        let all = async {
            while let Some(task) = tasks.join_next().await {
                task?;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, all).await
    });
    let took = now(ClockId::ProcessCPUTime) - begun;
    match ended {
        Ok(ended) => ended.map(|()| Some(took / (calls * TASKS) as f64)),
        Err(_) => Ok(None),
    }
}

/// What this thread has had of the CPU, in nanoseconds.
pub(crate) fn time_of_this_thread() -> f64 {
    now(ClockId::ThreadCPUTime)
}

fn now(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

pub(crate) fn tenth(measured: &[f64]) -> f64 {
    let mut sorted = measured.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 10).copied().unwrap_or(f64::NAN)
}

fn print(subjects: &[Subject], measured: &[Measured], effort: Effort) {
    let columns = ["A over bare", "its p10", "allocations", "B", "B / A", "C over bare"];
    row("nanoseconds per call", &columns.map(ToOwned::to_owned));
    let mut bare = &Measured::default();
    for (subject, own) in subjects.iter().zip(measured) {
        let is_bare = subject.name.starts_with("bare");
        if is_bare {
            bare = own;
        }
        let over = |of: fn(&Measured) -> f64| {
            if is_bare { format!("({})", short(of(own))) } else { short(of(own) - of(bare)) }
        };
        let mut cells = vec![
            over(|it| median(&it.alone)),
            over(|it| tenth(&it.alone)),
            over(|it| it.allocations),
        ];
        if subject.few.is_none() {
            let both = median(&own.together);
            let known = own.together.len() >= effort.of(ENOUGH, 1);
            let known = |number| if known { short(number) } else { "-".to_owned() };
            cells.extend([known(both), known(both / median(&own.alone))]);
            let stuck = "stuck".to_owned();
            cells.push(if own.stuck { stuck } else { over(|it| median(&it.tasks)) });
        }
        row(&subject.name, &cells);
    }
}

/// As many digits as it is worth.
pub(crate) fn short(number: f64) -> String {
    if number.abs() < 20.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}
