//! Writes that are made again, where it is certain that they had no effect.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Fault, Session};
use crate::shared::Need;
use crate::{Pick, Replicas, RouteError};

/// The first pause before another attempt; each is twice as long as the one before. A refused write
/// is known within a round trip, so a shorter one would only repeat the refusal.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest: a promotion under load should cost no more than this on top of itself.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Why [`Replicas::write_with`] has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError<E> {
    /// There was no primary to write to, all the time; the operation never ran.
    #[error("no node may take the write")]
    NoNode(#[source] RouteError),
    /// The operation's own error: at once if the write may have had an effect, or would fail
    /// anywhere; else the last one before the time was up.
    #[error("the operation failed")]
    Operation(#[source] E),
}

impl<E> WriteError<E> {
    /// Whether the operation never ran because there was no primary to run it on.
    #[must_use]
    pub fn is_no_node(&self) -> bool {
        matches!(self, Self::NoNode(_))
    }

    /// The operation's own error, if it ran.
    #[must_use]
    pub fn into_operation(self) -> Option<E> {
        match self {
            Self::NoNode(_) => None,
            Self::Operation(error) => Some(error),
        }
    }
}

impl<N> Replicas<N> {
    /// Runs a write on the primary; and again, on whichever node is the primary by then, as long as it
    /// is certain that it had no effect: only when `classify` says [`Fault::NotSent`] or
    /// [`Fault::NotPrimary`], and while no primary is known. For `within` after the call attempts
    /// begin, with pauses of 10 to 100 ms, shorter when a monitor has news; after a promotion
    /// that is until the new primary is found.
    ///
    /// Any other error is returned at once. A connection lost while a write ran says nothing of
    /// whether it was done ([`Fault::Node`]); so does one lost while a commit was under way.
    ///
    /// There is no time limit on an attempt: give each its own inside `operation`. Dropping the future
    /// counts the attempt under way as cancelled, and the write may have had its effect.
    ///
    /// # Errors
    /// [`WriteError::Operation`] with the last attempt's error, [`WriteError::NoNode`] if there was
    /// none.
    pub async fn write_with<T, E, C, R, O, F>(
        &self,
        within: Duration,
        classify: C,
        operation: O,
    ) -> Result<T, WriteError<E>>
    where
        N: Clone,
        C: Fn(&E) -> R,
        R: Into<Fault>,
        O: FnMut(N) -> F,
        F: Future<Output = Result<T, E>>,
    {
        self.write_seen(&Session::new(), within, classify, operation, |_| {}).await
    }

    /// As [`write_with`](Self::write_with), but not to a primary that the session knows to be one no
    /// more; `seen` is told of each pick.
    pub(crate) async fn write_seen<T, E, C, R, O, F>(
        &self,
        session: &Session,
        within: Duration,
        classify: C,
        mut operation: O,
        mut seen: impl FnMut(&Pick<N>),
    ) -> Result<T, WriteError<E>>
    where
        N: Clone,
        C: Fn(&E) -> R,
        R: Into<Fault>,
        O: FnMut(N) -> F,
        F: Future<Output = Result<T, E>>,
    {
        // Without an end, if that is too far away for the clock.
        let until = Instant::now().checked_add(within);
        let is_over = |now: Instant| until.is_some_and(|until| now > until);
        let mut pause = FIRST_PAUSE;
        let mut failed = None;
        let mut refused = RouteError::PrimaryUnknown;
        loop {
            match self.shared().wait(Need::Write(session), until).await {
                Ok(Some(pick)) if failed.is_none() || !is_over(Instant::now()) => {
                    seen(&pick);
                    let error = match operation(N::clone(&pick)).await {
                        Ok(value) => {
                            pick.succeeded();
                            return Ok(value);
                        }
                        Err(error) => error,
                    };
                    let fault = classify(&error).into();
                    pick.end(fault.outcome());
                    if !matches!(fault, Fault::NotSent | Fault::NotPrimary) {
                        return Err(WriteError::Operation(error));
                    }
                    failed = Some(error);
                }
                // There is one, too late.
                Ok(_) => {}
                Err(error) if error.is_retryable() => refused = error,
                Err(error) => return Err(WriteError::NoNode(self.shared().refuse(error))),
            }
            if is_over(Instant::now() + pause) {
                // The operation's error tells more than that there is no primary since.
                return Err(match failed {
                    Some(error) => WriteError::Operation(error),
                    None => WriteError::NoNode(self.shared().refuse(refused)),
                });
            }
            self.shared().news_within(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}

impl<N> crate::shared::Shared<N> {
    /// Asks all monitors to look at their nodes, and waits for what one of them finds out.
    async fn news_within(&self, pause: Duration) {
        let now = Instant::now();
        // Not for longer, and not for shorter either by more than half: an observation that changes
        // nothing must not make for an attempt.
        tokio::time::sleep_until(now + pause / 2).await;
        let observed = self.observed.notified();
        self.kick_all();
        let _woken_or_not = timeout_at(now + pause, observed).await;
    }
}
