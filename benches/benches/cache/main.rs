//! `cargo bench -p escala-benches --bench cache`: what a cache in memory costs, how often it hits,
//! and how much memory it holds; beside moka, quick_cache and foyer in one run. A word after `--`
//! picks one table: `memory`, `ratio`, `footprint`.
//!
//! The first row of each table is what the ratios are against. Rounds are short and interleaved
//! and their medians compared, so that a noisy machine disturbs all alike. Every answer is
//! asserted inside the loop.

mod footprint;
mod memory;
mod profile;
mod ratio;
mod trace;

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
    if wanted("memory") {
        memory::run(effort)?;
    }
    if wanted("ratio") {
        ratio::run(effort)?;
    }
    if wanted("footprint") {
        footprint::run(effort)?;
    }
    Ok(())
}
