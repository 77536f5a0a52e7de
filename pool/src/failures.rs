//! Brings the failure of a connect to one caller who waits for a connection.
//!
//! bb8 connects in tasks of its own and wakes nobody when that fails, so a caller would sit out its
//! deadline without learning why. Here each failure wakes the caller who has waited longest.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::Cause;

/// Failures of connects, from the store to the callers.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures so far: a caller learns of one that came between its two steps.
    count: u64,
    last: Option<Cause>,
    next_id: u64,
    waiting: VecDeque<(u64, oneshot::Sender<Cause>)>,
}

impl Failures {
    /// Failures so far; to be read before the step that may cause one.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// Tells one waiting caller.
    pub(crate) fn deliver(&self, cause: &Cause) {
        let mut state = self.0.lock();
        state.count += 1;
        state.last = Some(cause.clone());
        while let Some((_, waiter)) = state.waiting.pop_front() {
            if waiter.send(cause.clone()).is_ok() {
                return;
            }
        }
    }

    /// Waits for the next failure, counted from `seen`.
    pub(crate) fn subscribe(&self, seen: u64) -> Subscription<'_> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.0.lock();
        let id = state.next_id;
        state.next_id += 1;
        match state.last.clone().filter(|_| state.count != seen) {
            // A receiver that is at hand cannot be gone.
            Some(cause) => drop(sender.send(cause)),
            None => state.waiting.push_back((id, sender)),
        }
        Subscription { failures: self, id, receiver }
    }
}

/// One caller's interest, withdrawn on drop so that the list stays as short as the queue.
#[derive(Debug)]
pub(crate) struct Subscription<'a> {
    failures: &'a Failures,
    id: u64,
    receiver: oneshot::Receiver<Cause>,
}

impl Subscription<'_> {
    /// The next failure. Pending for ever once it was taken.
    pub(crate) async fn next(&mut self) -> Cause {
        match (&mut self.receiver).await {
            Ok(cause) => cause,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.failures.0.lock().waiting.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(text: &str) -> Cause {
        std::sync::Arc::new(std::io::Error::other(text.to_owned()))
    }

    #[tokio::test]
    async fn each_failure_wakes_one_caller_in_order_and_skips_those_who_left() {
        let failures = Failures::default();
        let mut first = failures.subscribe(failures.count());
        let left = failures.subscribe(failures.count());
        let mut third = failures.subscribe(failures.count());
        drop(left);
        failures.deliver(&cause("one"));
        failures.deliver(&cause("two"));
        assert_eq!(first.next().await.to_string(), "one");
        assert_eq!(third.next().await.to_string(), "two");
        drop((first, third));
        assert!(failures.0.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_failure_before_the_subscription_is_not_missed() {
        let failures = Failures::default();
        failures.deliver(&cause("old"));
        let seen = failures.count();
        failures.deliver(&cause("new"));
        assert_eq!(failures.subscribe(seen).next().await.to_string(), "new");
    }
}
