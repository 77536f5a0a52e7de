//! How long callers wait for the database, hold a connection and make one: the pools tell each by
//! their event hook, and the metrics show them as histograms.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escala_pool::{Emit, PoolEvent};

/// Upper bounds in seconds. A wait is mostly none and a point read some microseconds; a connect takes
/// milliseconds.
const BOUNDS: [f64; 10] = [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// The times of all pools of this server. Cheap to clone; every clone is the same.
#[derive(Clone, Debug, Default)]
pub struct PoolTimes(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    wait: Histogram,
    hold: Histogram,
    connect: Histogram,
}

impl PoolTimes {
    /// What a pool is to call. It does not block.
    pub(super) fn hook(&self) -> impl Fn(&PoolEvent<'_>) + Send + Sync + use<> {
        let times = Arc::clone(&self.0);
        move |event| match event {
            PoolEvent::Acquired { waited, .. } => times.wait.record(*waited),
            PoolEvent::Returned { held, .. } => times.hold.record(*held),
            PoolEvent::Connected { took } => times.connect.record(*took),
            _ => {}
        }
    }

    /// Hands the histograms out as Prometheus has them.
    pub(super) fn visit(&self, emit: &mut Emit<'_>) {
        let Times { wait, hold, connect } = &*self.0;
        wait.visit(["wait_seconds_bucket", "wait_seconds_count", "wait_seconds_sum"], emit);
        hold.visit(["hold_seconds_bucket", "hold_seconds_count", "hold_seconds_sum"], emit);
        connect.visit(
            ["connect_seconds_bucket", "connect_seconds_count", "connect_seconds_sum"],
            emit,
        );
    }
}

#[derive(Debug, Default)]
struct Histogram {
    /// One more than there are bounds: the last has none.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    fn visit(&self, [bucket, count, sum]: [&str; 3], emit: &mut Emit<'_>) {
        let mut so_far = 0;
        for (at, own) in self.buckets.iter().enumerate() {
            so_far += own.load(Ordering::Relaxed);
            let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            emit(bucket, &[("le", &bound)], so_far as f64);
        }
        emit(count, &[], so_far as f64);
        emit(sum, &[], self.microseconds.load(Ordering::Relaxed) as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_what_is_at_most_its_bound() {
        let histogram = Histogram::default();
        for microseconds in [0, 10, 11, 700, 2_000_000] {
            histogram.record(Duration::from_micros(microseconds));
        }
        let mut lines = Vec::new();
        histogram.visit(["b", "c", "s"], &mut |name, labels, value| {
            lines.push(format!("{name}{labels:?} {value}"));
        });
        for line in [
            r#"b[("le", "0.00001")] 2"#,
            r#"b[("le", "0.0001")] 3"#,
            r#"b[("le", "0.001")] 4"#,
            r#"b[("le", "1")] 4"#,
            r#"b[("le", "+Inf")] 5"#,
            "c[] 5",
            "s[] 2.000721",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:?}");
        }
    }
}
