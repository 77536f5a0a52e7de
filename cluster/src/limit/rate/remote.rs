//! What a store outside this process has to do for a limiter.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Decision, Quota};
use crate::clock::Moment;

/// Buckets that live elsewhere and are shared with other processes.
///
/// Neither call blocks, and neither takes longer than the store's own timeout to come to an end.
/// What happens to a request whose verdict is [`Failed`](Verdict::Failed) is the limiter's
/// business, like every count but the store's own.
pub(crate) trait RemoteStore: fmt::Debug + Send + Sync {
    /// Takes what is claimed from all of the buckets, or from none if a claim that is no shadow
    /// finds too little. One verdict for each claim, in their order.
    fn check(&self, claims: &[Claim]) -> Answer;

    /// Puts back what [`check`](Self::check) took, as far as time has not brought it back by
    /// itself. Nobody waits for it, and it may be lost.
    fn give_back(&self, claim: &Claim, spent: Spent);
}

/// Units that a request asks for from one bucket.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// The limiter's name and the parts of the key, spelled so that two different keys never read
    /// the same, without a secret in it and of bounded length: see
    /// [`KeyParts`](super::KeyParts). The store puts its own namespace in front.
    pub(crate) key: String,
    /// Units, at most the burst; none only looks.
    pub(crate) cost: u32,
    pub(crate) quota: Quota,
    /// Finding too little, it keeps no other claim from being met.
    pub(crate) shadow: bool,
    /// When it was made.
    pub(crate) at: Moment,
}

/// When and into what the units to be given back were taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Time since they were taken.
    pub(crate) ago: Duration,
    /// [`Decision::reset`] of that moment: once it has passed, time has brought them back.
    pub(crate) reset: Duration,
}

impl Spent {
    /// Nobody has kept it: all of it may be given back, as far as the key has used so much.
    pub(crate) const UNKNOWN: Self = Self { ago: Duration::ZERO, reset: Duration::MAX };
}

/// A request has a limit or two in a store.
pub(crate) type Verdicts = SmallVec<[Verdict; 2]>;

/// Verdicts, or the way to them.
pub(crate) enum Answer {
    /// Known here: from a local memory of what was denied, or an open breaker.
    Now(Verdicts),
    /// Asked for. Dropping it leaves open whether the units are taken.
    Later(Pin<Box<dyn Future<Output = Verdicts> + Send>>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(verdicts) => f.debug_tuple("Now").field(verdicts).finish(),
            Self::Later(_) => f.debug_tuple("Later").finish_non_exhaustive(),
        }
    }
}

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The store has decided. Allowed, the units are taken if no claim beside it was refused.
    Decided(Decision),
    /// Nobody has asked, because a claim beside it is known to be refused.
    Moot,
    /// It could not be asked, or did not answer in time.
    Failed,
}

impl Verdict {
    /// Whether it keeps other claims from being met, unless it is a shadow's.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Decided(decision) if !decision.is_allowed())
    }
}
