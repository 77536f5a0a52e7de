//! What a store outside this process has to do for a limiter.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use super::{Decision, Quota};

/// Buckets that live elsewhere and are shared with other processes.
///
/// `key` is the limiter's name and the parts of the key, spelled so that two different keys never
/// read the same, without a secret in it and of bounded length: see
/// [`KeyParts`](super::KeyParts). The store puts its own namespace in front.
///
/// Neither call blocks, and neither takes longer than the store's own timeout to come to an end.
/// What happens to a request whose verdict is [`Failed`](Verdict::Failed) is the limiter's
/// business, like every count but the store's own.
pub(crate) trait RemoteStore: fmt::Debug + Send + Sync {
    /// Takes `cost` units from the key's bucket if they are there. `cost` is at least 1 and at most
    /// the burst.
    fn check(&self, key: String, cost: u32, quota: Quota) -> Answer;

    /// Puts `cost` units back that [`check`](Self::check) took `ago`, as far as time has not
    /// brought them back by itself. Nobody waits for it, and it may be lost.
    fn give_back(&self, key: String, cost: u32, quota: Quota, charge: Spent);
}

/// When and into what the units to be given back were taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Time since they were taken.
    pub(crate) ago: Duration,
    /// [`Decision::reset`] of that moment: once it has passed, time has brought them back.
    pub(crate) reset: Duration,
}

/// A verdict, or the way to it.
pub(crate) enum Answer {
    /// Known here: from a local memory of what was denied, or an open breaker.
    Now(Verdict),
    /// Asked for. Dropping it leaves open whether the units are taken.
    Later(Pin<Box<dyn Future<Output = Verdict> + Send>>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(verdict) => f.debug_tuple("Now").field(verdict).finish(),
            Self::Later(_) => f.debug_tuple("Later").finish_non_exhaustive(),
        }
    }
}

/// What came of a question to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The store has decided.
    Decided(Decision),
    /// It could not be asked, or did not answer in time.
    Failed,
}
