//! Events on the `tracing` facade: what they show, and that a bad subscriber costs nothing.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;

use escala_queue::{Job, Lane, Outcome};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::scene::{adds_up, job, lane, run_for_good, small};

/// Writes every event down and then panics, if it is to.
struct Pen {
    lines: Arc<Mutex<Vec<String>>>,
    breaks: bool,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Pen {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("escala_queue")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.lines.lock().push(line.0);
        if self.breaks {
            std::panic::resume_unwind(Box::new("the pen broke"));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn failed_jobs_are_told_without_payload_and_key_even_to_a_subscriber_that_panics() {
    for breaks in [false, true] {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let pen = Pen { lines: Arc::clone(&lines), breaks };
        let _guard = tracing::subscriber::set_default(pen);
        let queue = small().build().unwrap();
        run_for_good(&queue, |job| async move {
            match &*job.kind {
                "pointless" => Outcome::Discard("too old".into()),
                "flaky" if job.attempt == 1 => Outcome::Retry(None),
                "flaky" => Outcome::Dead("gave up".into()),
                _ => Outcome::Done,
            }
        });
        let flaky = Job::new("flaky", "hunter2").unwrap().idempotency_key("token-9");
        for job in [flaky, job("pointless"), job("fine")] {
            queue.enqueue(job).await.unwrap();
            queue.wait_idle().await;
        }
        let lines = std::mem::take(&mut *lines.lock());
        let begins: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(begins, ["WARN", "ERROR", "INFO"], "{lines:?}");
        assert!(lines[1].contains("reason=\"gave up\"") && lines[1].contains("lane=medium"));
        let all = lines.concat();
        assert!(!all.contains("hunter2") && !all.contains("token-9"), "{all}");

        let stats = queue.stats();
        adds_up(&stats);
        let medium = lane(&stats, Lane::Medium);
        assert_eq!((medium.succeeded_total, medium.discarded_total, medium.dead_total), (1, 1, 1));
        assert!(stats.lanes.iter().all(|lane| lane.workers_alive == 1));
    }
}
