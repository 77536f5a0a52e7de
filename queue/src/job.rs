//! A job as the caller builds it and as the handler receives it, and what the handler answers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{DecodeError, EncodeError};
use crate::id::JobId;
use crate::lane::Lane;

/// A piece of work: a kind, a payload, and how it is to be run.
///
/// Cloning is cheap: the payload is shared. `Debug` shows neither payload nor idempotency key.
#[derive(Clone)]
#[non_exhaustive]
pub struct Job {
    /// Set by [`Job::new`]; stays the same through retries and replays.
    pub id: JobId,
    /// What the handler chooses its code by.
    pub kind: Cow<'static, str>,
    /// The lane it waits in, whose timeout applies, whichever worker runs it.
    pub lane: Lane,
    /// JSON made by [`Job::new`]; read it with [`Job::parse`].
    pub payload: Bytes,
    /// Which attempt this is, from 1; 0 until a worker has taken the job.
    pub attempt: u32,
    /// Attempts before the job is dead; `None` until it is enqueued means the queue's setting.
    pub max_attempts: Option<u32>,
    /// A second job of the same kind with the same key is not enqueued while the key lives.
    pub idempotency_key: Option<Arc<str>>,
    /// Whether it goes before the jobs of its lane that are not urgent.
    pub urgent: bool,
    /// How long after being enqueued it becomes ready; zero for at once.
    pub delay: Duration,
    /// Wall-clock time of [`enqueue`](crate::Queue::enqueue); until then, of [`Job::new`].
    pub enqueued_at: SystemTime,
}

impl Job {
    /// A job of this kind in the medium lane, its payload written as JSON.
    ///
    /// # Errors
    /// The payload has no JSON form, such as a map whose keys are not strings.
    pub fn new<T>(kind: impl Into<Cow<'static, str>>, payload: &T) -> Result<Self, EncodeError>
    where
        T: Serialize + ?Sized,
    {
        Ok(Self {
            id: JobId::generate(),
            kind: kind.into(),
            lane: Lane::default(),
            payload: serde_json::to_vec(payload).map_err(EncodeError)?.into(),
            attempt: 0,
            max_attempts: None,
            idempotency_key: None,
            urgent: false,
            delay: Duration::ZERO,
            enqueued_at: SystemTime::now(),
        })
    }

    /// Puts the job in this lane.
    #[must_use]
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// Makes a repeated enqueue of the same work harmless; the key counts within the job's kind.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers have a number or a text at hand")]
    pub fn idempotency_key<K: ToString>(mut self, key: K) -> Self {
        self.idempotency_key = Some(key.to_string().into());
        self
    }

    /// Sends the job to the front of its lane, behind the urgent ones already there.
    #[must_use]
    pub fn urgent(mut self) -> Self {
        self.urgent = true;
        self
    }

    /// Makes the job ready only after this long, at most a year. It takes its place at once.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Overrides the queue's number of attempts for this job; 0 is taken as 1.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.max(1));
        self
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// The payload is not what `T` expects. The error names the place, never the content.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        serde_json::from_slice(&self.payload).map_err(|error| DecodeError::new(&error))
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("lane", &self.lane)
            .field("payload_bytes", &self.payload.len())
            .field("attempt", &self.attempt)
            .field("max_attempts", &self.max_attempts)
            .field("keyed", &self.idempotency_key.is_some())
            .field("urgent", &self.urgent)
            .field("delay", &self.delay)
            .field("enqueued_at", &self.enqueued_at)
            .finish()
    }
}

/// What a handler says about the attempt it has just made.
///
/// An `Err`, a panic and a timeout are failed attempts, as is `Retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done; the job is forgotten.
    Done,
    /// The attempt failed: again after this long, or after the queue's backoff. After the last
    /// attempt the job is dead.
    Retry(Option<Duration>),
    /// Not now: again after this long, and this attempt does not count. Nothing bounds how often,
    /// so a handler that snoozes needs a reason to stop.
    Snooze(Duration),
    /// The work has become pointless; the job is forgotten and counted. The reason is logged.
    Discard(String),
    /// No further attempt can help: to the dead letters with this reason.
    Dead(String),
}

/// What became of an enqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The job's id, or that of the earlier job with the same key.
    pub id: JobId,
    /// Whether an earlier job holds the same kind and key, so that nothing was enqueued.
    pub duplicate: bool,
}
