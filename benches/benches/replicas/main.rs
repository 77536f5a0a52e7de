//! `cargo bench -p escala-benches --bench replicas`: what it costs to pick a node, what a slow replica
//! does to the answer times under each strategy, and what routing adds to a request; beside tower's
//! `Balance`, alone and in a `Buffer`, in one run. A word after `--` picks one table: `pick`, `slow`,
//! `overhead`.
//!
//! Batches are short and interleaved. The median says what a pick costs while the machine does
//! whatever else it does, the least what it costs when it is left alone.

mod overhead;
mod pick;
mod slow;
mod tower_balance;

/// For all alike, and the one that the examples use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// `cargo bench` says so; anything else (`cargo test --benches`) only sees whether it works.
    measuring: bool,
}

impl Effort {
    /// The first when it is measured, the second when it is only tried.
    fn of<T>(self, measured: T, tried: T) -> T {
        if self.measuring { measured } else { tried }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let effort = Effort { measuring: arguments.iter().any(|argument| argument == "--bench") };
    let words: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |table: &str| words.is_empty() || words.iter().any(|word| *word == table);
    machine();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if wanted("pick") {
        pick::run(effort, &runtime)?;
    }
    if wanted("overhead") {
        runtime.block_on(overhead::run(effort))?;
    }
    if wanted("slow") {
        runtime.block_on(slow::run(effort))?;
    }
    Ok(())
}

/// Says what the figures were measured on.
#[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
fn machine() {
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
