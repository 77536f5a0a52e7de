//! Idempotency keys: remembered for a time and up to a number.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::id::JobId;
use crate::job::Job;

/// Every key lives equally long, so the order of insertion is the order of expiry, and the ring
/// and the map always hold the same keys.
pub(super) struct Keys {
    jobs: HashMap<Key, JobId>,
    oldest: VecDeque<(Instant, Key)>,
    lifetime: Duration,
    capacity: usize,
    evicted: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: Cow<'static, str>,
    key: Arc<str>,
}

impl Key {
    fn of(job: &Job) -> Option<Self> {
        let key = job.idempotency_key.clone()?;
        Some(Self { kind: job.kind.clone(), key })
    }
}

impl Keys {
    pub(super) fn new(lifetime: Duration, capacity: usize) -> Self {
        Self { jobs: HashMap::new(), oldest: VecDeque::new(), lifetime, capacity, evicted: 0 }
    }

    /// The job enqueued before with the same kind and key, if that is still remembered.
    pub(super) fn holder(&mut self, job: &Job, now: Instant) -> Option<JobId> {
        let key = Key::of(job)?;
        self.expire(now);
        self.jobs.get(&key).copied()
    }

    /// Remembers a job for which [`holder`](Self::holder) has just found nothing.
    pub(super) fn remember(&mut self, job: &Job, now: Instant) {
        let Some(key) = Key::of(job) else { return };
        if self.jobs.len() >= self.capacity {
            self.forget_oldest();
            self.evicted += 1;
        }
        if self.jobs.insert(key.clone(), job.id).is_none() {
            self.oldest.push_back((now, key));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn expire(&mut self, now: Instant) {
        while self
            .oldest
            .front()
            .is_some_and(|(since, _)| now.saturating_duration_since(*since) >= self.lifetime)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.oldest.pop_front() {
            self.jobs.remove(&key);
        }
    }
}
