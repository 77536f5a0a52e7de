//! `cargo bench -p escala-benches --bench pool`: what a checkout costs, how many lookups by key and
//! how many inserts go through ten connections to PostgreSQL and how fairly, and what SQLite is
//! worth behind an async call; beside bb8, deadpool, sqlx and bare drivers in one run. And how long
//! callers notice a fault of the server, each beside its bound. A word after `--` picks one table:
//! `checkout`, `lookup`, `insert`, `sqlite`, `faults`.
//!
//! Rounds are short and interleaved, and ratios are taken within a round before their median, so
//! that a noisy machine disturbs all alike. Every answer is asserted inside the loop. Fairness is
//! the operations of the task that got most, divided by those of the task that got least.

mod checkout;
mod contest;
mod faults;
mod insert;
mod lookup;
mod sqlite;

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
    contest::machine();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if wanted("checkout") {
        runtime.block_on(checkout::run(effort))?;
    }
    if wanted("lookup") {
        runtime.block_on(lookup::run(effort))?;
    }
    if wanted("insert") {
        runtime.block_on(insert::run(effort))?;
    }
    if wanted("sqlite") {
        runtime.block_on(sqlite::run(effort))?;
    }
    // The last, since it fails when a bound is broken.
    if wanted("faults") {
        runtime.block_on(faults::run(effort))?;
    }
    Ok(())
}
