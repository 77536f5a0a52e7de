//! `cargo bench -p escala-benches --bench cluster`: what a circuit breaker, a limit and the drain add
//! to a call, beside their rivals in one run. A word after `--` picks one table: `breaker`, `rate`,
//! `rate_layer`, `concurrency`, `drain`.
//!
//! The first row of each table is the bare service. All rows take turns in short batches, so that
//! whatever else the machine does disturbs all alike, and only figures of one run are compared.
//! Every answer is asserted inside the loop. See [`table`] for what the columns mean.

mod breaker;
mod concurrency;
mod drain;
mod rate;
mod subject;
mod table;

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
    if wanted("breaker") {
        breaker::run(effort)?;
    }
    if wanted("rate") {
        rate::run_checks(effort)?;
    }
    if wanted("rate_layer") {
        rate::run_layers(effort)?;
    }
    if wanted("concurrency") {
        concurrency::run(effort)?;
    }
    if wanted("drain") {
        drain::run(effort)?;
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
    println!("{cores} cores of {model}, load {load} at the start");
}
