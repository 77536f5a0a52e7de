//! Events: few, and with what one needs to act.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::{FakeStore, memory};

/// Keeps every event as one line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("escala_cache")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        assert_eq!(*event.metadata().level(), Level::WARN);
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_told_once_in_ten_seconds() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let store = FakeStore::default();
    store.fail(true);
    let cache = crate::support::builder("quotes").shared(store).build().unwrap();
    for _ in 0..100 {
        assert_eq!(cache.get("BTC").await, None);
    }
    assert_eq!(lines.0.lock().len(), 1);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(cache.get("BTC").await, None);
    let lines = lines.0.lock();
    assert_eq!(lines.len(), 2);
    for part in ["cache=\"quotes\"", "the store is away", "suppressed=99"] {
        assert!(lines[1].contains(part), "{part} is not in {}", lines[1]);
    }
}

#[tokio::test]
async fn a_load_that_panics_is_told() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let panic = async || -> Result<u64, Infallible> { panic!("boom") };
    memory("quotes").get_or_load("BTC", panic).await.unwrap_err();
    let lines = lines.0.lock();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("boom") && lines[0].contains("quotes"), "{}", lines[0]);
    assert!(!lines[0].contains("BTC"), "no key");
}
