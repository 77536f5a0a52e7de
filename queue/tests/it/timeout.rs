//! A timeout cancels: what the handler would have done afterwards does not happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use escala_queue::{Lane, Outcome};
use tokio::time::{Instant, sleep};

use crate::scene::{Log, adds_up, job, lane, run_for_good, seconds, small};

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_after_the_timeout_and_the_worker_is_free_at_once() {
    let queue = small().build().unwrap();
    let effect = Arc::new(AtomicBool::new(false));
    let dropped = Arc::new(AtomicUsize::new(0));
    let log = Log::default();
    let (too_late, drops, seen, begin) =
        (Arc::clone(&effect), Arc::clone(&dropped), log.clone(), Instant::now());
    run_for_good(&queue, move |job| {
        let (too_late, guard) = (Arc::clone(&too_late), OnDrop(Arc::clone(&drops)));
        seen.note(format!("{} at {}", job.kind, begin.elapsed().as_secs()));
        async move {
            let _guard = guard;
            if job.kind == "slow" {
                sleep(seconds(6)).await;
                too_late.store(true, Ordering::Relaxed);
            }
            Outcome::Done
        }
    });
    // The only worker of high does not borrow, so both jobs need the same one: the others are
    // kept busy.
    for lane in [Lane::Medium, Lane::Low, Lane::Background] {
        queue.enqueue(job("slow").lane(lane).max_attempts(1)).await.unwrap();
    }
    queue.enqueue(job("slow").lane(Lane::High).max_attempts(1)).await.unwrap();
    queue.enqueue(job("next").lane(Lane::High)).await.unwrap();
    sleep(seconds(5) + seconds(1) / 2).await;
    let stats = queue.stats();
    let high = lane(&stats, Lane::High);
    assert_eq!((high.timed_out_total, high.succeeded_total, high.running), (1, 1, 0));
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    assert!(log.entries().contains(&"next at 5".to_owned()), "{:?}", log.entries());
    assert!(!effect.load(Ordering::Relaxed));
    queue.wait_idle().await;
    assert!(effect.load(Ordering::Relaxed), "the other lanes have longer timeouts");
    assert_eq!(queue.dead_letters()[0].reason, "timed out after 5s");
    adds_up(&queue.stats());
}

#[tokio::test(start_paused = true)]
async fn a_timed_out_job_is_tried_again_and_may_succeed() {
    let queue = small().build().unwrap();
    run_for_good(&queue, |job| async move {
        if job.attempt < 3 {
            sleep(seconds(3_600)).await;
        }
        Outcome::Done
    });
    queue.enqueue(job("slow starter")).await.unwrap();
    queue.wait_idle().await;
    let stats = queue.stats();
    let medium = lane(&stats, Lane::Medium);
    assert_eq!((medium.timed_out_total, medium.retried_total, medium.succeeded_total), (2, 2, 1));
}
