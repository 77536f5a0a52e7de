//! The right to one call, whose end is counted exactly once, whatever that end is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::{Core, End};
use super::machine::Ticket;
use super::{Judgement, Outcome};

/// The right to one call; [`Breaker::admit`](crate::Breaker::admit) hands it out.
///
/// Say how the call ended with one of the methods. A permit that is dropped instead counts by how
/// it came to that: during a panic as a failure; given up at least
/// [`abandoned_after`](crate::BreakerConfig::abandoned_after) after it was handed out as a failure
/// too, so that a timeout around the call is noticed; earlier as nothing.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as a call given up"]
pub struct Permit {
    core: Arc<Core>,
    ticket: Ticket,
    /// When the call began, if the configuration needs to know and it has lasted a moment.
    since: Option<Instant>,
    ended: bool,
}

impl Permit {
    pub(super) fn new(core: Arc<Core>, ticket: Ticket) -> Self {
        Self { core, ticket, since: None, ended: false }
    }

    /// The backend did its work.
    pub fn succeeded(self) {
        self.end(End::Succeeded);
    }

    /// The backend is at fault.
    pub fn failed(self) {
        self.end(End::Failed);
    }

    /// The result says nothing about the backend.
    pub fn ignored(self) {
        self.end(End::Ignored);
    }

    /// As a classifier has judged it.
    pub fn judged(self, judgement: impl Into<Judgement>) {
        self.end(match judgement.into().outcome {
            Outcome::Success => End::Succeeded,
            Outcome::Failure | Outcome::Throttled => End::Failed,
            Outcome::Ignored => End::Ignored,
        });
    }

    /// Starts the call's age. Apart from `new`, because a call that ends before it first waits has
    /// no age and spares the clock read.
    pub(crate) fn start_age(&mut self) {
        let needed = self.core.config().abandoned_after.is_some_and(|age| !age.is_zero());
        if needed && self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    fn end(mut self, end: End) {
        self.ended = true;
        self.core.settle(self.ticket, end);
    }

    fn end_unsaid(&self) -> End {
        if std::thread::panicking() {
            return End::Panicked;
        }
        let age = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        match self.core.config().abandoned_after {
            Some(limit) if age >= limit => End::Abandoned,
            _ => End::Cancelled,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.core.settle(self.ticket, self.end_unsaid());
        }
    }
}
