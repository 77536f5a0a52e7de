//! The figures of a whole run, beside the documented ones.

mod html;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

pub(super) use html::html;
pub(super) use table::table;

use super::alone::Alone;
use super::documented;
use super::measure::{Outcome, Summary, rounded};
use super::options::{Database, Options};
use super::plan::Operation;
use super::server::RATE_LIMIT_IP;

/// What the server's process used during the sustained run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// 100 is one whole CPU.
    pub(super) cpu_percent: f64,
    pub(super) peak_memory_mib: u64,
}

/// Everything that is reported.
pub(super) struct Report {
    pub(super) subject: String,
    pub(super) start: Duration,
    pub(super) burst: Summary,
    pub(super) sustained: Option<Summary>,
    pub(super) machine: Option<Machine>,
    /// `/api/enterprise/cluster/status` after the burst.
    pub(super) cluster_after_burst: Value,
    /// The same after the sustained run.
    pub(super) cluster: Value,
    /// Reads that the users made, in both phases.
    pub(super) reads: u64,
    /// `/cache/stats` before the burst.
    pub(super) caches_before: Value,
    /// The same after the sustained run.
    pub(super) caches: Value,
    /// One user on the quiet server afterwards.
    pub(super) alone: Option<Alone>,
    /// `/api/enterprise/queues/status` when the lanes were empty again.
    pub(super) queues: Value,
    /// What does not add up.
    pub(super) consistency: Vec<String>,
}

/// One database node's part of the work.
pub(super) struct NodeLine {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) weight: u64,
    pub(super) healthy: bool,
    pub(super) operations: u64,
    /// Of the reads of all replicas, in percent.
    pub(super) share: f64,
    /// Why it was picked, and how often; the most frequent first.
    pub(super) reasons: Vec<(String, u64)>,
}

/// All lanes together.
pub(super) struct QueueLine {
    pub(super) jobs: u64,
    pub(super) mean_ms: f64,
    pub(super) errors_percent: f64,
    pub(super) timed_out: u64,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        start: Duration,
        burst: &Outcome,
        sustained: Option<&Outcome>,
        machine: Option<Machine>,
    ) -> Self {
        let started = match (options.database, options.redis) {
            (Database::Embedded, false) => "embedded (SQLite, memory)",
            (Database::Embedded, true) => "SQLite, Redis",
            (Database::Postgres, false) => "PostgreSQL and 3 standbys",
            (Database::Postgres, true) => "PostgreSQL and 3 standbys, Redis",
        };
        let subject = match options.target {
            Some(target) => format!("http://{target}"),
            None => format!("{started}, RATE_LIMIT_IP={RATE_LIMIT_IP}"),
        };
        Self {
            subject,
            start,
            burst: burst.summary(),
            sustained: sustained.map(Outcome::summary),
            machine,
            cluster_after_burst: Value::Null,
            cluster: Value::Null,
            reads: reads(std::iter::once(burst).chain(sustained)),
            caches_before: Value::Null,
            caches: Value::Null,
            alone: None,
            queues: Value::Null,
            consistency: Vec::new(),
        }
    }

    /// Did every operation succeed and does everything add up?
    pub(super) fn passed(&self) -> bool {
        let clean = |summary: &Summary| summary.failed == 0 && summary.operations > 0;
        clean(&self.burst)
            && self.sustained.as_ref().is_none_or(clean)
            && self.consistency.is_empty()
    }

    /// The server's own score at the end, 0 to 100; `None` if it keeps it to itself.
    pub(super) fn health_score(&self) -> Option<f64> {
        score(&self.cluster)
    }

    /// The score after the burst, which is what the documented system's test was.
    pub(super) fn health_score_after_burst(&self) -> Option<f64> {
        score(&self.cluster_after_burst)
    }

    /// What keeps the score down, in the server's words.
    pub(super) fn limiting(&self) -> Option<String> {
        let limiting = &self.cluster["health_score"]["limiting"];
        let (component, reason) =
            (limiting["component"].as_str()?, limiting["reason"].as_str().unwrap_or_default());
        Some(format!("{component}: {reason}"))
    }

    pub(super) fn nodes(&self) -> Vec<NodeLine> {
        let nodes = self.cluster["database"]["nodes"].as_array();
        let mut lines: Vec<NodeLine> = nodes
            .into_iter()
            .flatten()
            .map(|node| NodeLine {
                name: text(&node["name"]),
                role: text(&node["role"]),
                weight: count(&node["weight"]),
                healthy: node["healthy"].as_bool().unwrap_or(false),
                operations: count(&node["started_total"]),
                share: 0.0,
                reasons: reasons(&node["picks"]),
            })
            .collect();
        let is_replica = |line: &NodeLine| line.role == "replica";
        let reads: u64 = lines.iter().filter(|line| is_replica(line)).map(|l| l.operations).sum();
        for line in lines.iter_mut().filter(|line| is_replica(line)) {
            line.share = percent(line.operations, reads);
        }
        lines
    }

    pub(super) fn queue(&self) -> Option<QueueLine> {
        let lanes = self.queues["lanes"].as_array()?;
        let sum = |field: &str| lanes.iter().map(|lane| count(&lane[field])).sum::<u64>();
        let attempts = sum("started_total");
        let seconds =
            |field: &str| lanes.iter().filter_map(|lane| lane[field].as_f64()).sum::<f64>();
        let spent = seconds("wait_seconds_total") + seconds("run_seconds_total");
        Some(QueueLine {
            jobs: sum("succeeded_total"),
            mean_ms: rounded(1_000.0 * spent / as_f64(attempts.max(1))),
            errors_percent: percent(sum("failed_total") + sum("timed_out_total"), attempts),
            timed_out: sum("timed_out_total"),
        })
    }

    /// Reads that reached a database during both phases, those of the lanes among them.
    pub(super) fn database_reads(&self) -> Option<u64> {
        let of = |caches: &Value| caches["database_reads"].as_u64();
        Some(of(&self.caches)?.saturating_sub(of(&self.caches_before)?))
    }

    /// Of all reads that the users made, balances among them, which are never cached: those that
    /// the databases were spared, in percent.
    pub(super) fn reads_saved_percent(&self) -> Option<f64> {
        let reached = self.database_reads().filter(|_| self.reads > 0)?;
        Some(percent(self.reads.saturating_sub(reached), self.reads))
    }

    /// Of what each cache was asked for, in percent: what it had, or another caller was loading.
    pub(super) fn hit_percent(&self) -> Vec<(&'static str, f64)> {
        let growth = |of: &[&str]| {
            let at = |caches: &Value| count(of.iter().fold(caches, |value, name| &value[*name]));
            at(&self.caches).saturating_sub(at(&self.caches_before))
        };
        let mut lines = Vec::new();
        for name in ["quotes", "reports"] {
            let had = growth(&[name, "memory", "hits"])
                + growth(&[name, "shared", "hits"])
                + growth(&[name, "coalesced"]);
            lines.push((name, had, had + growth(&[name, "loads"])));
        }
        let page = |outcome| growth(&["pages", "http", outcome]);
        let had = page("hits") + page("stale") + page("coalesced");
        lines.push(("pages", had, page("requests")));
        let asked = lines.into_iter().filter(|(_, _, asked)| *asked > 0);
        asked.map(|(name, had, asked)| (name, percent(had, asked))).collect()
    }

    /// The figures for programs.
    pub(super) fn json(&self) -> Value {
        let nodes: Vec<Value> = self
            .nodes()
            .iter()
            .map(|node| {
                let reasons: BTreeMap<_, _> = node.reasons.iter().cloned().collect();
                json!({ "name": node.name, "role": node.role, "weight": node.weight,
                        "healthy": node.healthy, "operations": node.operations,
                        "read_share_percent": node.share, "reasons": reasons })
            })
            .collect();
        let consistency = match self.consistency.as_slice() {
            [] => "ok".to_owned(),
            differences => differences.join("; "),
        };
        json!({
            "subject": self.subject,
            "start_ms": u64::try_from(self.start.as_millis()).unwrap_or(u64::MAX),
            "burst": self.burst,
            "sustained": self.sustained,
            "health_score": self.health_score(),
            "health_score_after_burst": self.health_score_after_burst(),
            "health_limited_by": self.limiting(),
            "consistency": consistency,
            "database_nodes": nodes,
            "queue": self.queue().map(|queue| json!({
                "jobs": queue.jobs, "mean_ms": queue.mean_ms,
                "errors_percent": queue.errors_percent, "timed_out": queue.timed_out })),
            "reads": self.reads,
            "database_reads": self.database_reads(),
            "reads_saved_percent": self.reads_saved_percent(),
            "cache_hit_percent": self.hit_percent().into_iter().collect::<BTreeMap<_, _>>(),
            "alone": self.alone,
            "server": self.machine.map(|machine| json!({
                "cpu_percent": rounded(machine.cpu_percent),
                "peak_memory_mib": machine.peak_memory_mib })),
            "documented": {
                "users": documented::USERS, "operations": documented::OPERATIONS,
                "peak_concurrent": documented::PEAK_CONCURRENT,
                "throughput_per_second": documented::THROUGHPUT_PER_SECOND,
                "mean_ms": documented::MEAN_MS, "total_seconds": documented::TOTAL_SECONDS,
                "reads_saved_percent": documented::READS_SAVED,
                "uncached_ms": documented::ANSWER_MS.0, "cached_ms": documented::ANSWER_MS.1,
            },
        })
    }
}

/// Those that led to a pick at all.
fn reasons(picks: &Value) -> Vec<(String, u64)> {
    let picks = picks.as_array().into_iter().flatten();
    let counted = picks.map(|pick| (text(&pick["reason"]), count(&pick["picks_total"])));
    let mut reasons: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    reasons
}

fn reads<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> u64 {
    let samples = outcomes.flat_map(|outcome| &outcome.samples);
    samples.filter(|sample| Operation::reads(sample.endpoint)).map(|_| 1).sum()
}

fn score(cluster: &Value) -> Option<f64> {
    cluster["health_score"]["value"].as_f64().map(rounded)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn percent(part: u64, whole: u64) -> f64 {
    rounded(100.0 * as_f64(part) / as_f64(whole.max(1)))
}
