//! Sources: the statistics of other parts, turned into metrics and JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::exposition::Families;
use crate::quiet;

/// What a source calls once per figure: name, labels, value.
///
/// A name that ends in `_total` is a counter, any other a gauge. It is the same type as the `Emit`
/// of the other escala crates, so their `stats().visit` takes it as it is.
pub type Emit<'a> = dyn FnMut(&str, &[(&str, &str)], f64) + 'a;

type Visit = dyn Fn(&mut Emit<'_>) + Send + Sync;

/// All sources by name; a second one of a name replaces the first.
#[derive(Default)]
pub(crate) struct Sources {
    by_name: RwLock<BTreeMap<Arc<str>, Arc<Visit>>>,
    /// Figures left out because their source had emitted its share.
    over_limit: AtomicU64,
    /// Figures left out because they were not finite.
    not_finite: AtomicU64,
}

impl Sources {
    pub(crate) fn add(&self, name: &str, visit: Arc<Visit>) {
        self.by_name.write().insert(name.into(), visit);
    }

    /// The figures of each source. One that panics reports nothing and stops nobody.
    fn read(&self, limit: usize, mut each: impl FnMut(&str, &str, &[(&str, &str)], f64)) {
        // Cloned, so that a source may register another one and none is called under the lock.
        let sources = self.by_name.read().clone();
        for (source, visit) in sources {
            let mut seen = 0;
            quiet::call("source", &source, || {
                visit(&mut |name, labels, value| {
                    seen += 1;
                    if seen <= limit {
                        each(&source, name, labels, value);
                    } else {
                        self.over_limit.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
    }

    pub(crate) fn export(&self, limit: usize, families: &mut Families) {
        self.read(limit, |source, name, labels, value| {
            let help = format!("Figure {name} as reported by source {source}.");
            families.add(&metric_name(source, name), &help, labels, value);
        });
        let not_finite = self.not_finite.fetch_add(families.not_finite, Ordering::Relaxed)
            + std::mem::take(&mut families.not_finite);
        let help = "Figures that sources emitted and that were left out, by reason.";
        for (reason, count) in
            [("not_finite", not_finite), ("series_limit", self.over_limit.load(Ordering::Relaxed))]
        {
            let labels = [("reason", reason)];
            families.add("metrics_dropped_total", help, &labels, count as f64);
        }
    }

    /// `{source: [{"name", "labels", "value"}]}`; a value that is not finite is null.
    pub(crate) fn json(&self, limit: usize) -> Value {
        let mut sources: serde_json::Map<String, Value> =
            self.by_name.read().keys().map(|name| (name.to_string(), json!([]))).collect();
        self.read(limit, |source, name, labels, value| {
            let labels: serde_json::Map<String, Value> =
                labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            if let Some(Value::Array(rows)) = sources.get_mut(source) {
                rows.push(json!({ "name": name, "labels": labels, "value": value }));
            }
        });
        Value::Object(sources)
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.read().keys()).finish()
    }
}

/// `escala_<source>_<name>`, without saying the source or the prefix twice.
fn metric_name(source: &str, name: &str) -> String {
    let source = source.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if name.starts_with("escala_") {
        name.to_owned()
    } else if name.strip_prefix(&*source).is_some_and(|rest| rest.starts_with('_')) {
        format!("escala_{name}")
    } else {
        format!("escala_{source}_{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sources: &Sources, limit: usize) -> String {
        let mut families = Families::default();
        sources.export(limit, &mut families);
        let mut text = String::new();
        families.write(&mut text);
        text
    }

    #[test]
    fn names_say_their_source_once() {
        for (source, name, metric) in [
            ("pool", "size", "escala_pool_size"),
            ("pool", "pool_size", "escala_pool_size"),
            ("pool", "poolside", "escala_pool_poolside"),
            ("pool", "escala_pool_size", "escala_pool_size"),
            ("read-replicas", "picks_total", "escala_read_replicas_picks_total"),
        ] {
            assert_eq!(metric_name(source, name), metric);
        }
    }

    #[test]
    fn a_source_past_its_share_is_cut_and_counted() {
        let sources = Sources::default();
        sources.add(
            "many",
            Arc::new(|emit| (0..10).for_each(|n| emit("x", &[("n", &n.to_string())], 1.0))),
        );
        sources.add("few", Arc::new(|emit| emit("y", &[], f64::NAN)));
        let written = text(&sources, 3);
        assert_eq!(written.matches("escala_many_x{").count(), 3);
        assert!(written.contains("metrics_dropped_total{reason=\"series_limit\"} 7"), "{written}");
        assert!(written.contains("metrics_dropped_total{reason=\"not_finite\"} 1"), "{written}");
    }

    #[test]
    fn a_source_that_panics_leaves_the_others() {
        let sources = Sources::default();
        sources.add("bad", Arc::new(|_| panic!("a broken source")));
        sources.add("good", Arc::new(|emit| emit("x", &[], 1.0)));
        assert!(text(&sources, 10).contains("escala_good_x 1"));
        let json = sources.json(10);
        assert_eq!(json["bad"], json!([]));
        assert_eq!(json["good"], json!([{ "name": "x", "labels": {}, "value": 1.0 }]));
    }

    #[test]
    fn what_a_source_no_longer_reports_is_gone() {
        let sources = Sources::default();
        sources.add("nodes", Arc::new(|emit| emit("up", &[("node", "r1")], 1.0)));
        assert!(text(&sources, 10).contains("r1"));
        sources.add("nodes", Arc::new(|emit| emit("up", &[("node", "r2")], 1.0)));
        let written = text(&sources, 10);
        assert!(!written.contains("r1") && written.contains("r2"), "{written}");
    }
}
