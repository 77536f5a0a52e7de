//! Runs parts one after another, says what it runs, and keeps the time.

#![expect(clippy::disallowed_types, reason = "there is no runtime here whose clock could pause")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use crate::Part;
use crate::invocation::Invocation;

/// What a part runs its commands through.
#[derive(Debug)]
pub(crate) struct Session {
    part: &'static str,
}

impl Session {
    /// Runs the command from the workspace root, its output going where ours goes.
    pub(crate) fn run(&self, invocation: &Invocation) -> anyhow::Result<()> {
        println!("\n[{}] {invocation}", self.part);
        let started = Instant::now();
        let status = invocation
            .command()
            .current_dir(xtask::workspace::root())
            .status()
            .with_context(|| format!("cannot start `{invocation}`"))?;
        if !status.success() {
            bail!("{status}\n  the command was:  {invocation}");
        }
        println!("[{}] took {} s", self.part, seconds(started.elapsed()));
        Ok(())
    }

    /// Whether the command succeeds; its output is discarded.
    pub(crate) fn succeeds(&self, invocation: &Invocation) -> bool {
        invocation.command().output().is_ok_and(|output| output.status.success())
    }

    /// Says something in the name of the part.
    pub(crate) fn say(&self, text: &str) {
        println!("[{}] {text}", self.part);
    }
}

/// Runs the parts in order, up to the first failure, and ends with a table of their times.
pub(crate) fn run_all(parts: &[Part]) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let mut failure = None;
    for part in parts {
        println!("\n== {}: {}", part.name, part.about);
        let started = Instant::now();
        let result = (part.run)(&Session { part: part.name });
        times.push((part.name, started.elapsed(), result.is_ok()));
        if let Err(error) = result {
            let name = part.name;
            failure = Some(anyhow!("{name}: {error:#}\n  to repeat it:     cargo xtask {name}"));
            break;
        }
    }
    println!("\n{}", table(&times, parts.len()));
    failure.map_or(Ok(()), Err)
}

/// One line for each part that ran, and the sum.
fn table(times: &[(&'static str, Duration, bool)], of: usize) -> String {
    let mut text = format!("{:<12} {:>8}\n", "part", "seconds");
    for (name, time, passed) in times {
        let result = if *passed { "passed" } else { "FAILED" };
        let _ = writeln!(text, "{name:<12} {:>8} {result}", seconds(*time));
    }
    let passed = times.iter().filter(|(.., passed)| *passed).count();
    let sum = seconds(times.iter().map(|(_, time, _)| *time).sum());
    let _ = writeln!(text, "{:<12} {sum:>8} {passed} of {of} passed", "all");
    text
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_sums_up_and_names_what_failed() {
        let times =
            [("fmt", Duration::from_millis(1_250), true), ("lint", Duration::from_secs(60), false)];
        let expected = "part          seconds\n\
                        fmt               1.2 passed\n\
                        lint             60.0 FAILED\n\
                        all              61.2 1 of 8 passed\n";
        assert_eq!(table(&times, 8), expected);
    }

    #[test]
    fn the_first_failure_ends_the_run_and_says_how_to_repeat_it() {
        let part = |name, run| Part { name, about: "", run };
        let parts = [
            part("one", |_| Ok(())),
            part("two", |session| session.run(&Invocation::new("false"))),
            part("three", |_| panic!("a part after the failure was run")),
        ];
        let error = run_all(&parts).expect_err("the second part fails");
        let text = format!("{error:#}");
        assert!(text.contains("cargo xtask two"), "{text}");
        assert!(text.contains("the command was:  false"), "{text}");
        assert!(run_all(&parts[..1]).is_ok());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let session = Session { part: "x" };
        let absent = Invocation::new("escala-no-such-program --x");
        let error = session.run(&absent).expect_err("it cannot be started");
        assert!(format!("{error:#}").contains("escala-no-such-program --x"));
        assert!(!session.succeeds(&absent));
    }
}
