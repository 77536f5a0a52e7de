//! The figures of a whole run, beside the documented ones.

mod html;
mod table;

use std::time::Duration;

use serde_json::{Value, json};

pub(super) use html::html;
pub(super) use table::table;

use super::documented;
use super::measure::{Outcome, Summary, rounded};
use super::options::{Database, Options};

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
    /// `/cache/stats` after the sustained run.
    pub(super) caches: Value,
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
        let subject = match (options.target, options.database, options.redis) {
            (Some(target), ..) => format!("http://{target}"),
            (None, Database::Embedded, false) => "embedded (SQLite, memory)".to_owned(),
            (None, Database::Embedded, true) => "SQLite, Redis".to_owned(),
            (None, Database::Postgres, false) => "PostgreSQL and 3 standbys".to_owned(),
            (None, Database::Postgres, true) => "PostgreSQL and 3 standbys, Redis".to_owned(),
        };
        Self {
            subject,
            start,
            burst: burst.summary(),
            sustained: sustained.map(Outcome::summary),
            machine,
            cluster_after_burst: Value::Null,
            cluster: Value::Null,
            caches: Value::Null,
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

    /// Of all quotes that were asked for, those that no database read followed, in percent.
    pub(super) fn cached_percent(&self) -> Option<f64> {
        let quotes = &self.caches["quotes"];
        let answered = [&quotes["memory"]["hits"], &quotes["shared"]["hits"], &quotes["coalesced"]];
        let cached: u64 = answered.into_iter().map(count).sum();
        let asked = cached + count(&quotes["loads"]);
        (asked > 0).then(|| percent(cached, asked))
    }

    /// The figures for programs.
    pub(super) fn json(&self) -> Value {
        let nodes: Vec<Value> = self
            .nodes()
            .iter()
            .map(|node| {
                json!({ "name": node.name, "role": node.role, "weight": node.weight,
                        "healthy": node.healthy, "operations": node.operations,
                        "read_share_percent": node.share })
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
            "cached_percent": self.cached_percent(),
            "server": self.machine.map(|machine| json!({
                "cpu_percent": rounded(machine.cpu_percent),
                "peak_memory_mib": machine.peak_memory_mib })),
            "documented": {
                "users": documented::USERS, "operations": documented::OPERATIONS,
                "peak_concurrent": documented::PEAK_CONCURRENT,
                "throughput_per_second": documented::THROUGHPUT_PER_SECOND,
                "mean_ms": documented::MEAN_MS, "total_seconds": documented::TOTAL_SECONDS,
            },
        })
    }
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
