//! A backend in simulated time: so many calls at once, the others queue in the order they came.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::super::Gradient;
use crate::limit::concurrency::config::AdaptiveConfig;
use crate::limit::concurrency::samples::Samples;

const SECOND: u64 = 1_000_000_000;

/// How long the backend works on one call, in seconds, by a random number.
pub(super) type Work = fn(f64) -> f64;

/// A backend, its callers, and the limit between them.
pub(super) struct Simulation {
    pub(super) capacity: usize,
    pub(super) work: Work,
    /// Calls per second; they come at random times.
    pub(super) arrivals: f64,
    /// Share of calls that fail at once.
    pub(super) failures: f64,
    /// The limit after each window, with its time in seconds.
    pub(super) limits: Vec<(f64, u32)>,
    /// Of the calls that ended since the last look: seconds from admission to end.
    pub(super) latencies: Vec<f64>,
    pub(super) rejected: u64,
    limiter: Option<Limiter>,
    random: fastrand::Rng,
    now: u64,
    origin: Instant,
    next_arrival: u64,
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    queue: VecDeque<u64>,
    /// When each call under way began.
    calls: BTreeMap<u64, u64>,
    busy: usize,
    next_call: u64,
}

struct Limiter {
    gradient: Gradient,
    samples: Samples,
    min_samples: u64,
    limit: u32,
    closes_at: u64,
    counts_from: u64,
}

impl Simulation {
    pub(super) fn new(config: Option<AdaptiveConfig>, capacity: usize, work: Work) -> Self {
        let limiter = config.map(|config| Limiter {
            closes_at: config.window.as_nanos() as u64,
            limit: config.initial,
            min_samples: u64::from(config.min_samples),
            gradient: Gradient::new(config),
            samples: Samples::new(),
            counts_from: 0,
        });
        Self {
            capacity,
            work,
            arrivals: 0.0,
            failures: 0.0,
            limits: Vec::new(),
            latencies: Vec::new(),
            rejected: 0,
            limiter,
            random: fastrand::Rng::with_seed(7),
            now: 0,
            origin: Instant::now(),
            next_arrival: 0,
            ends: BinaryHeap::new(),
            queue: VecDeque::new(),
            calls: BTreeMap::new(),
            busy: 0,
            next_call: 0,
        }
    }

    /// So many times what the backend can do, for its present work and capacity.
    pub(super) fn offer(&mut self, load: f64) {
        let mean = (0..1_000).map(|i| (self.work)(f64::from(i) / 1_000.0)).sum::<f64>() / 1_000.0;
        self.arrivals = load * self.capacity as f64 / mean;
        self.next_arrival = self.now;
    }

    pub(super) fn limit(&self) -> u32 {
        self.limiter.as_ref().map_or(u32::MAX, |limiter| limiter.limit)
    }

    /// The middle and the longest of the latencies since the last look.
    pub(super) fn look(&mut self) -> (f64, f64) {
        self.latencies.sort_by(f64::total_cmp);
        let middle = self.latencies.get(self.latencies.len() / 2).copied().unwrap_or(0.0);
        let longest = self.latencies.last().copied().unwrap_or(0.0);
        self.latencies.clear();
        (middle, longest)
    }

    /// The mean of the limit over the last so many seconds.
    pub(super) fn mean_limit(&self, seconds: f64) -> f64 {
        let from = self.now as f64 / SECOND as f64 - seconds;
        let recent = self.limits.iter().filter(|(time, _)| *time >= from);
        let (sum, count) = recent
            .fold((0.0, 0.0), |(sum, count), (_, limit)| (sum + f64::from(*limit), count + 1.0));
        sum / f64::max(count, 1.0)
    }

    pub(super) fn run(&mut self, seconds: f64) {
        let until = self.now + (seconds * SECOND as f64) as u64;
        loop {
            let end = self.ends.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let next = end.min(self.next_arrival);
            if next > until {
                break;
            }
            self.now = next;
            if end <= self.next_arrival {
                let Reverse((_, call)) = self.ends.pop().expect("there is one");
                self.busy -= 1;
                self.start_queued();
                self.ended(call, true);
            } else {
                let pause = -(1.0 - self.random.f64()).ln() / self.arrivals;
                self.next_arrival += (pause * SECOND as f64) as u64 + 1;
                self.arrive();
            }
        }
        self.now = until;
    }

    fn arrive(&mut self) {
        let in_flight = self.calls.len() as u64;
        if in_flight >= u64::from(self.limit()) {
            self.rejected += 1;
            return;
        }
        let call = self.next_call;
        self.next_call += 1;
        self.calls.insert(call, self.now);
        if let Some(limiter) = &self.limiter {
            limiter.samples.saw(in_flight + 1);
        }
        if self.random.f64() < self.failures {
            self.ended(call, false);
            return;
        }
        self.queue.push_back(call);
        self.start_queued();
    }

    fn start_queued(&mut self) {
        while self.busy < self.capacity {
            let Some(call) = self.queue.pop_front() else { return };
            self.busy += 1;
            let seconds = (self.work)(self.random.f64());
            self.ends.push(Reverse((self.now + (seconds * SECOND as f64) as u64, call)));
        }
    }

    fn ended(&mut self, call: u64, well: bool) {
        let began = self.calls.remove(&call).expect("it was under way");
        let nanos = self.now - began;
        if well {
            self.latencies.push(nanos as f64 / SECOND as f64);
        }
        let Some(limiter) = &mut self.limiter else { return };
        if began < limiter.counts_from {
            return;
        }
        let count = if well {
            limiter.samples.record(Duration::from_nanos(nanos))
        } else {
            limiter.samples.record_drop()
        };
        if count < limiter.min_samples || self.now < limiter.closes_at {
            return;
        }
        let window = limiter.samples.take(self.calls.len() as u64);
        let now = self.origin + Duration::from_nanos(self.now);
        let plan = limiter.gradient.step(now, &window, self.random.f64());
        limiter.limit = plan.limit;
        limiter.closes_at = self.now + plan.window.as_nanos() as u64;
        if plan.counts_from.is_some() {
            limiter.counts_from = self.now;
        }
        self.limits.push((self.now as f64 / SECOND as f64, plan.limit));
    }
}
