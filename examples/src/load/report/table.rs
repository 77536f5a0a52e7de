//! The table in the terminal.

use std::fmt::Write as _;

use super::super::documented;
use super::super::measure::{Endpoint, Latency, Summary};
use super::Report;

/// Column widths: the name, then each figure.
const NAME: usize = 26;
const FIGURE: usize = 12;

/// The whole report as text.
pub(in crate::load) fn table(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "\nthousand-users against enterprise, {}", report.subject);
    let _ = writeln!(out, "first answer {:.2} s after the start\n", report.start.as_secs_f64());
    phases(&mut out, report);
    endpoints(&mut out, report);
    server(&mut out, report);
    failures(&mut out, report);
    verdict(&mut out, report);
    out
}

fn row(out: &mut String, name: &str, figures: [String; 3]) {
    let [documented, burst, sustained] = figures;
    let _ = writeln!(out, "{name:<NAME$}{documented:>FIGURE$}{burst:>FIGURE$}{sustained:>FIGURE$}");
}

fn phases(out: &mut String, report: &Report) {
    let both = |figure: fn(&Summary) -> String| {
        let sustained = report.sustained.as_ref().map_or_else(dash, figure);
        [figure(&report.burst), sustained]
    };
    let mut line = |name: &str, documented: String, [burst, sustained]: [String; 2]| {
        row(out, name, [documented, burst, sustained]);
    };
    line("", "documented".into(), ["burst".into(), "sustained".into()]);
    line("users", grouped(documented::USERS), both(|s| grouped(s.users)));
    line("operations", grouped(documented::OPERATIONS), both(|s| grouped(s.operations)));
    line("succeeded", grouped(documented::OPERATIONS), both(|s| grouped(s.succeeded)));
    line("failed", "0".into(), both(|s| grouped(s.failed)));
    line(
        "peak concurrent",
        grouped(documented::PEAK_CONCURRENT),
        both(|s| grouped(s.peak_concurrent)),
    );
    let throughput = format!("{:.0}", documented::THROUGHPUT_PER_SECOND);
    line("operations/s", throughput, both(|s| format!("{:.0}", s.throughput_per_second)));
    line("mean ms", ms(documented::MEAN_MS), both(|s| ms(s.latency.mean_ms)));
    line("p50 ms", dash(), both(|s| ms(s.latency.p50_ms)));
    line("p90 ms", dash(), both(|s| ms(s.latency.p90_ms)));
    line("p99 ms", dash(), both(|s| ms(s.latency.p99_ms)));
    line("p99.9 ms", dash(), both(|s| ms(s.latency.p999_ms)));
    line("total s", ms(documented::TOTAL_SECONDS), both(|s| ms(s.total_seconds)));
}

fn endpoints(out: &mut String, report: &Report) {
    let summary = report.sustained.as_ref().unwrap_or(&report.burst);
    let _ = write!(out, "\n{:<NAME$}", "endpoint");
    for title in ["operations", "failed", "mean ms", "p50 ms", "p99 ms", "p99.9 ms"] {
        let _ = write!(out, "{title:>FIGURE$}");
    }
    out.push('\n');
    for Endpoint { name, operations, failed, latency } in &summary.endpoints {
        let _ = write!(out, "{name:<NAME$}{:>FIGURE$}{:>FIGURE$}", grouped(*operations), failed);
        for figure in [latency.mean_ms, latency.p50_ms, latency.p99_ms, latency.p999_ms] {
            let _ = write!(out, "{:>FIGURE$}", ms(figure));
        }
        out.push('\n');
    }
}

fn server(out: &mut String, report: &Report) {
    let _ = writeln!(out, "\n{:<NAME$}{:>FIGURE$}  now", "server", "documented");
    let mut line = |name: &str, documented: String, now: String| {
        let _ = writeln!(out, "{name:<NAME$}{documented:>FIGURE$}  {now}");
    };
    if let Some(queue) = report.queue() {
        let (jobs, mean, errors) = documented::QUEUE;
        line(
            "queue",
            jobs.to_string(),
            format!(
                "{} jobs, mean {} ms, {} % errors, {} timed out (documented mean {mean} ms, \
                 {errors} % errors)",
                queue.jobs,
                ms(queue.mean_ms),
                queue.errors_percent,
                queue.timed_out
            ),
        );
    }
    let nodes = report.nodes();
    let healthy = nodes.iter().filter(|node| node.healthy).count();
    if !nodes.is_empty() {
        let documented = format!("{0}/{0}", documented::DATABASE.0);
        line("database nodes healthy", documented, format!("{healthy}/{}", nodes.len()));
    }
    for node in nodes {
        let share = match node.role.as_str() {
            "replica" => {
                format!("{:.1} % of the replica reads, weight {}", node.share, node.weight)
            }
            _ => node.role.clone(),
        };
        line(
            &format!("  {}", node.name),
            String::new(),
            format!("{} operations, {share}", node.operations),
        );
        let reasons: Vec<_> =
            node.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        if !reasons.is_empty() {
            line("    by reason", String::new(), reasons.join(", "));
        }
    }
    caching(&mut line, report);
    let scores = report.health_score_after_burst().zip(report.health_score());
    if let Some((burst, end)) = scores {
        let documented = format!("{:.0} %", documented::HEALTH_SCORE);
        let limiting =
            report.limiting().map_or_else(String::new, |text| format!(", limited by {text}"));
        let now = format!("{burst:.0} % after the burst, {end:.0} % at the end{limiting}");
        line("health score", documented, now);
    }
    if let Some(machine) = report.machine {
        line("CPU", dash(), format!("{:.0} % (100 % is one CPU)", machine.cpu_percent));
        line("memory", dash(), format!("{} MiB at most", machine.peak_memory_mib));
    }
}

/// What the caches save, and what they are worth to one answer.
fn caching(line: &mut impl FnMut(&str, String, String), report: &Report) {
    if let Some(saved) = report.reads_saved_percent() {
        let (from, to) = documented::READS_SAVED;
        let now = format!("{saved:.1} % of {} reads", report.reads);
        line("database reads saved", format!("{from}-{to} %"), now);
    }
    let hits = report.hit_percent();
    if !hits.is_empty() {
        let hits: Vec<_> = hits.iter().map(|(name, hit)| format!("{name} {hit:.1} %")).collect();
        line("  hits and joined loads", dash(), hits.join(", "));
    }
    let (uncached_ms, cached_ms) = documented::ANSWER_MS;
    let shown =
        |latency: &Latency| format!("p50 {} ms, p99 {} ms", ms(latency.p50_ms), ms(latency.p99_ms));
    if let Some(alone) = &report.alone {
        let user = "one user alone";
        let uncached = format!("{}, {user}", shown(&alone.uncached));
        line("answer, uncached", format!("{uncached_ms:.0} ms"), uncached);
        let cached = format!("{}, {user}", shown(&alone.cached));
        line("answer, cached", format!("< {cached_ms:.0} ms"), cached);
    }
    let summary = report.sustained.as_ref().unwrap_or(&report.burst);
    for (name, latency) in
        [("  page not in the cache", &summary.uncached), ("  page in the cache", &summary.cached)]
    {
        if let Some(latency) = latency {
            line(name, dash(), format!("{}, under load", shown(latency)));
        }
    }
}

fn failures(out: &mut String, report: &Report) {
    let summaries = std::iter::once(&report.burst).chain(&report.sustained);
    let failures = summaries.flat_map(|summary| &summary.failures);
    for (index, (failure, times)) in failures.enumerate() {
        if index == 0 {
            out.push_str("\nfailures\n");
        }
        let _ = writeln!(out, "{times:>8} x {failure}");
    }
}

fn verdict(out: &mut String, report: &Report) {
    out.push('\n');
    match report.consistency.as_slice() {
        [] => out.push_str("consistency: ok (money, orders, settlements, ledger, volumes)\n"),
        differences => {
            for difference in differences {
                let _ = writeln!(out, "consistency: {difference}");
            }
        }
    }
    out.push_str(if report.passed() { "passed\n" } else { "FAILED\n" });
}

fn dash() -> String {
    "-".to_owned()
}

fn ms(value: f64) -> String {
    format!("{value:.2}")
}

/// 1100 as 1,100.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let grouped: Vec<_> = [0, 999, 1_100, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(grouped, ["0", "999", "1,100", "1,234,567"]);
    }
}
