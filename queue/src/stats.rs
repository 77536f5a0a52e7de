//! Figures of a queue at one moment, taken under its lock, so that they always add up.

use crate::lane::Lane;

/// Receives one figure: name, labels and value. Names that end in `_total` are counters, all
/// others gauges.
pub type Emit<'a> = dyn FnMut(&str, &[(&str, &str)], f64) + 'a;

/// A snapshot of a queue, made by [`Queue::stats`](crate::Queue::stats).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct QueueStats {
    /// The four lanes, the most urgent first.
    pub lanes: Vec<LaneStats>,
    /// Dead letters kept.
    pub dead_letters: usize,
    /// Dead letters dropped because newer ones needed the room.
    pub dead_letters_dropped_total: u64,
    /// Idempotency keys remembered, counting those that expired since the last keyed enqueue.
    pub idempotency_keys: usize,
    /// Keys forgotten before their time because newer ones needed the room.
    pub idempotency_keys_evicted_total: u64,
    /// Times a worker's service failed or panicked in `poll_ready`; no job was taken for it.
    pub service_errors_total: u64,
    /// Whether the queue takes no more jobs.
    pub closed: bool,
}

/// A snapshot of one lane. A figure about an attempt belongs to the lane of the job, whichever
/// lane's worker ran it.
///
/// At every moment:
/// - jobs: `enqueued + replayed = depth + delayed + running + succeeded + discarded + dead`
/// - attempts: `started = succeeded + failed + timed_out + snoozed + discarded + cancelled + running`
/// - failures: `failed + timed_out = retried + dead`
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LaneStats {
    /// Which lane.
    pub lane: Lane,
    /// Jobs ready to be run.
    pub depth: usize,
    /// Jobs that become ready later: delayed, retried or snoozed.
    pub delayed: usize,
    /// Jobs being run.
    pub running: usize,
    /// Dedicated workers by configuration.
    pub workers: usize,
    /// Dedicated workers that are alive, busy or not: those of every run that has not stopped.
    pub workers_alive: usize,
    /// Jobs the lane may hold: ready, delayed and running together.
    pub capacity: usize,
    /// Jobs accepted.
    pub enqueued_total: u64,
    /// Jobs not accepted because an earlier one had the same kind and key.
    pub duplicates_total: u64,
    /// Jobs turned away because the lane was full.
    pub rejected_total: u64,
    /// Dead letters made ready again.
    pub replayed_total: u64,
    /// Attempts begun.
    pub started_total: u64,
    /// Attempts begun by a worker of another lane.
    pub borrowed_total: u64,
    /// Attempts that ended `Done`.
    pub succeeded_total: u64,
    /// Attempts that ended in an error, a panic, `Retry` or `Dead`.
    pub failed_total: u64,
    /// Attempts cancelled because they took too long.
    pub timed_out_total: u64,
    /// Attempts that ended `Snooze`; they did not count.
    pub snoozed_total: u64,
    /// Attempts cut off by a stop; they did not count and the job is still here.
    pub cancelled_total: u64,
    /// Failed attempts after which the job was put back.
    pub retried_total: u64,
    /// Jobs that ended `Discard`.
    pub discarded_total: u64,
    /// Jobs that became dead letters.
    pub dead_total: u64,
    /// How long the oldest ready job has been ready, in seconds; 0 when there is none.
    pub oldest_age_seconds: f64,
    /// Time between ready and started, summed over attempts begun, in seconds.
    pub wait_seconds_total: f64,
    /// Time attempts took, summed over those ended and not cut off by a stop, in seconds.
    pub run_seconds_total: f64,
    /// Mean time between ready and started, in milliseconds; 0 before the first attempt.
    pub wait_mean_ms: f64,
    /// Mean time an attempt took, in milliseconds; 0 before the first has ended.
    pub run_mean_ms: f64,
}

impl LaneStats {
    fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            lane,
            depth,
            delayed,
            running,
            workers,
            workers_alive,
            capacity,
            enqueued_total,
            duplicates_total,
            rejected_total,
            replayed_total,
            started_total,
            borrowed_total,
            succeeded_total,
            failed_total,
            timed_out_total,
            snoozed_total,
            cancelled_total,
            retried_total,
            discarded_total,
            dead_total,
            oldest_age_seconds,
            wait_seconds_total,
            run_seconds_total,
            wait_mean_ms,
            run_mean_ms,
        } = self;
        let labels = [("lane", lane.as_str())];
        let mut emit = |name: &str, value: f64| emit(name, &labels, value);
        emit("depth", *depth as f64);
        emit("delayed", *delayed as f64);
        emit("running", *running as f64);
        emit("workers", *workers as f64);
        emit("workers_alive", *workers_alive as f64);
        emit("capacity", *capacity as f64);
        emit("enqueued_total", *enqueued_total as f64);
        emit("duplicates_total", *duplicates_total as f64);
        emit("rejected_total", *rejected_total as f64);
        emit("replayed_total", *replayed_total as f64);
        emit("started_total", *started_total as f64);
        emit("borrowed_total", *borrowed_total as f64);
        emit("succeeded_total", *succeeded_total as f64);
        emit("failed_total", *failed_total as f64);
        emit("timed_out_total", *timed_out_total as f64);
        emit("snoozed_total", *snoozed_total as f64);
        emit("cancelled_total", *cancelled_total as f64);
        emit("retried_total", *retried_total as f64);
        emit("discarded_total", *discarded_total as f64);
        emit("dead_total", *dead_total as f64);
        emit("oldest_age_seconds", *oldest_age_seconds);
        emit("wait_seconds_total", *wait_seconds_total);
        emit("run_seconds_total", *run_seconds_total);
        emit("wait_mean_ms", *wait_mean_ms);
        emit("run_mean_ms", *run_mean_ms);
    }
}

impl QueueStats {
    /// Hands every figure to `emit`, those of a lane with the label `lane`.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            lanes,
            dead_letters,
            dead_letters_dropped_total,
            idempotency_keys,
            idempotency_keys_evicted_total,
            service_errors_total,
            closed,
        } = self;
        for lane in lanes {
            lane.visit(emit);
        }
        emit("dead_letters", &[], *dead_letters as f64);
        emit("dead_letters_dropped_total", &[], *dead_letters_dropped_total as f64);
        emit("idempotency_keys", &[], *idempotency_keys as f64);
        emit("idempotency_keys_evicted_total", &[], *idempotency_keys_evicted_total as f64);
        emit("service_errors_total", &[], *service_errors_total as f64);
        emit("closed", &[], f64::from(u8::from(*closed)));
    }
}
