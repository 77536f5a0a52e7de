//! The jobs themselves: pure, with time as an argument, called under the queue's lock.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::keys::Keys;
use super::letters::{DeadLetter, Letters};
use super::memory::MemoryEngine;
use crate::id::JobId;
use crate::job::{Job, Receipt};
use crate::lane::{Lane, PerLane};
use crate::retry::{LONGEST_DELAY, Verdict};
use crate::stats::LaneStats;

/// Four lanes of jobs, the keys they came with and the ones that died.
///
/// Every job is in exactly one place: ready, delayed, with a worker (as an [`Entry`] that comes
/// back by [`settle`](Self::settle) or [`release`](Self::release)), dead, or forgotten.
pub(crate) struct Store {
    lanes: PerLane<LaneStore>,
    keys: Keys,
    letters: Letters,
    /// Given to each job that becomes ready or delayed: the order among equals.
    sequence: u64,
}

/// A job together with its place in line.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) job: Job,
    ready_at: Instant,
    sequence: u64,
}

#[derive(Debug, Default)]
struct LaneStore {
    urgent: VecDeque<Entry>,
    ready: VecDeque<Entry>,
    delayed: BinaryHeap<Delayed>,
    running: usize,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    enqueued: u64,
    duplicates: u64,
    rejected: u64,
    replayed: u64,
    started: u64,
    borrowed: u64,
    succeeded: u64,
    failed: u64,
    timed_out: u64,
    snoozed: u64,
    discarded: u64,
    cancelled: u64,
    retried: u64,
    dead: u64,
    waited: Duration,
    ran: Duration,
}

impl Store {
    pub(crate) fn new(engine: &MemoryEngine) -> Self {
        Self {
            lanes: PerLane::default(),
            keys: Keys::new(engine.key_lifetime, engine.key_capacity),
            letters: Letters::new(engine.dead_letters),
            sequence: 0,
        }
    }

    /// The earlier job that makes this one superfluous, which is then counted as a duplicate.
    pub(crate) fn duplicate(&mut self, job: &Job, now: Instant) -> Option<Receipt> {
        let id = self.keys.holder(job, now)?;
        self.lanes[job.lane].counters.duplicates += 1;
        Some(Receipt { id, duplicate: true })
    }

    /// Takes a job that is no duplicate.
    pub(crate) fn push(&mut self, mut job: Job, now: Instant) -> Receipt {
        self.keys.remember(&job, now);
        self.lanes[job.lane].counters.enqueued += 1;
        job.attempt = 0;
        let (id, delay) = (job.id, job.delay);
        self.line_up(job, delay, now);
        Receipt { id, duplicate: false }
    }

    /// Counts a job that was turned away because its lane was full.
    pub(crate) fn rejected(&mut self, lane: Lane) {
        self.lanes[lane].counters.rejected += 1;
    }

    /// Hands out the first ready job of a lane and counts the attempt, before it is made.
    pub(crate) fn claim(&mut self, lane: Lane, borrowed: bool, now: Instant) -> Option<Entry> {
        let lane = &mut self.lanes[lane];
        let mut entry = lane.urgent.pop_front().or_else(|| lane.ready.pop_front())?;
        entry.job.attempt = entry.job.attempt.saturating_add(1);
        lane.running += 1;
        lane.counters.started += 1;
        lane.counters.borrowed += u64::from(borrowed);
        let waited = now.saturating_duration_since(entry.ready_at);
        lane.counters.waited = lane.counters.waited.saturating_add(waited);
        Some(entry)
    }

    /// Ends an attempt that ran for this long. Whether the job has left its lane.
    pub(crate) fn settle(
        &mut self,
        entry: Entry,
        verdict: Verdict,
        ran: Duration,
        now: Instant,
    ) -> bool {
        let mut job = entry.job;
        let lane = &mut self.lanes[job.lane];
        lane.running -= 1;
        let counters = &mut lane.counters;
        counters.ran = counters.ran.saturating_add(ran);
        match verdict {
            Verdict::Finish => counters.succeeded += 1,
            Verdict::Discard { .. } => counters.discarded += 1,
            Verdict::Snooze { delay } => {
                counters.snoozed += 1;
                job.attempt -= 1;
                self.line_up(job, delay, now);
                return false;
            }
            Verdict::Retry { delay, timed_out, .. } => {
                counters.attempt_failed(timed_out);
                counters.retried += 1;
                self.line_up(job, delay, now);
                return false;
            }
            Verdict::Bury { reason, timed_out } => {
                counters.attempt_failed(timed_out);
                counters.dead += 1;
                self.letters.push(job, reason);
            }
        }
        true
    }

    /// Takes back a job whose attempt was cut off by a stop: to its old place, uncounted.
    pub(crate) fn release(&mut self, mut entry: Entry) {
        entry.job.attempt -= 1;
        let lane = &mut self.lanes[entry.job.lane];
        lane.running -= 1;
        lane.counters.cancelled += 1;
        let ring = lane.ring(entry.job.urgent);
        // Only jobs that were released before it can stand in front of it: a short walk.
        let place = ring.iter().take_while(|other| other.sequence < entry.sequence).count();
        ring.insert(place, entry);
    }

    /// Makes delayed jobs ready whose time has come, at most so many; how many there were.
    pub(crate) fn promote(&mut self, now: Instant, limit: usize) -> usize {
        let mut promoted = 0;
        for lane in Lane::ALL {
            while promoted < limit
                && self.lanes[lane].delayed.peek().is_some_and(|next| next.0.ready_at <= now)
                && let Some(Delayed(mut entry)) = self.lanes[lane].delayed.pop()
            {
                // A new number: it stands behind what became ready before it.
                entry.sequence = self.number();
                self.lanes[lane].ring(entry.job.urgent).push_back(entry);
                promoted += 1;
            }
        }
        promoted
    }

    /// When the first delayed job becomes ready.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let first = |lane| self.lanes[lane].delayed.peek().map(|next| next.0.ready_at);
        Lane::ALL.into_iter().filter_map(first).min()
    }

    /// How many jobs are ready in each lane.
    pub(crate) fn ready(&self) -> PerLane<usize> {
        PerLane::from_fn(|lane| self.lanes[lane].depth())
    }

    /// Whether nothing is ready, delayed or running.
    pub(crate) fn is_idle(&self) -> bool {
        Lane::ALL.into_iter().all(|lane| self.lanes[lane].held() == 0)
    }

    /// How many jobs are ready, delayed or running.
    pub(crate) fn held(&self) -> usize {
        Lane::ALL.into_iter().map(|lane| self.lanes[lane].held()).sum()
    }

    /// The lane of a dead letter.
    pub(crate) fn lane_of_letter(&self, id: JobId) -> Option<Lane> {
        self.letters.find(id).map(|letter| letter.job.lane)
    }

    /// Makes a dead letter a ready job with all its attempts before it.
    pub(crate) fn replay(&mut self, id: JobId, now: Instant) -> Option<Receipt> {
        let mut job = self.letters.take(id)?;
        self.lanes[job.lane].counters.replayed += 1;
        job.attempt = 0;
        self.line_up(job, Duration::ZERO, now);
        Some(Receipt { id, duplicate: false })
    }

    pub(crate) fn letters(&self) -> Vec<Arc<DeadLetter>> {
        self.letters.list()
    }

    pub(crate) fn letter_count(&self) -> (usize, u64) {
        (self.letters.len(), self.letters.dropped())
    }

    pub(crate) fn key_count(&self) -> (usize, u64) {
        (self.keys.len(), self.keys.evicted())
    }

    /// The figures of one lane, but for those about its settings and workers.
    pub(crate) fn lane_stats(&self, name: Lane, now: Instant) -> LaneStats {
        let lane = &self.lanes[name];
        let counters = &lane.counters;
        let fronts = [lane.urgent.front(), lane.ready.front()];
        let oldest = fronts.into_iter().flatten().map(|entry| entry.ready_at).min();
        let age = oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        LaneStats {
            lane: name,
            depth: lane.depth(),
            delayed: lane.delayed.len(),
            running: lane.running,
            workers: 0,
            workers_alive: 0,
            capacity: 0,
            enqueued_total: counters.enqueued,
            duplicates_total: counters.duplicates,
            rejected_total: counters.rejected,
            replayed_total: counters.replayed,
            started_total: counters.started,
            borrowed_total: counters.borrowed,
            succeeded_total: counters.succeeded,
            failed_total: counters.failed,
            timed_out_total: counters.timed_out,
            snoozed_total: counters.snoozed,
            cancelled_total: counters.cancelled,
            retried_total: counters.retried,
            discarded_total: counters.discarded,
            dead_total: counters.dead,
            oldest_age_seconds: age.as_secs_f64(),
            wait_seconds_total: counters.waited.as_secs_f64(),
            run_seconds_total: counters.ran.as_secs_f64(),
            wait_mean_ms: mean_ms(counters.waited, counters.started),
            run_mean_ms: mean_ms(counters.ran, counters.ended()),
        }
    }

    fn line_up(&mut self, job: Job, delay: Duration, now: Instant) {
        let sequence = self.number();
        let ready_at = now + delay.min(LONGEST_DELAY);
        let lane = &mut self.lanes[job.lane];
        let urgent = job.urgent;
        let entry = Entry { job, ready_at, sequence };
        if delay.is_zero() {
            lane.ring(urgent).push_back(entry);
        } else {
            lane.delayed.push(Delayed(entry));
        }
    }

    fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

impl LaneStore {
    fn ring(&mut self, urgent: bool) -> &mut VecDeque<Entry> {
        if urgent { &mut self.urgent } else { &mut self.ready }
    }

    fn depth(&self) -> usize {
        self.urgent.len() + self.ready.len()
    }

    fn held(&self) -> usize {
        self.depth() + self.delayed.len() + self.running
    }
}

impl Counters {
    /// Attempts that ran to an end of their own.
    fn ended(&self) -> u64 {
        self.succeeded + self.failed + self.timed_out + self.snoozed + self.discarded
    }

    fn attempt_failed(&mut self, timed_out: bool) {
        if timed_out {
            self.timed_out += 1;
        } else {
            self.failed += 1;
        }
    }
}

/// Orders the heap: the job due first is the greatest, and among equals the one that came first.
#[derive(Debug)]
struct Delayed(Entry);

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |delayed: &Self| (delayed.0.ready_at, delayed.0.sequence);
        key(other).cmp(&key(self))
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Delayed {}

fn mean_ms(total: Duration, count: u64) -> f64 {
    if count == 0 { 0.0 } else { total.as_secs_f64() * 1_000.0 / count as f64 }
}

#[cfg(test)]
mod tests;
