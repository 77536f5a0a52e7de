//! Which circuit a request has to pass: the one there is, or the one of its key.

use super::reject::sealed::Sealed;
use super::{Breaker, Judgement, Open, Permit};

/// What lets requests in. Sealed: there are [`Breaker`] and [`Keyed`](crate::Keyed).
pub trait Guard<Req>: Sealed {
    /// The rejection any request would meet now.
    fn rejects(&self) -> Option<Open>;

    /// Whether any request would be rejected now, after a look at the calls under way.
    fn rejects_after_a_look(&self) -> bool;

    /// Counts a request that is refused because one of the two has said so before.
    fn refuse(&self) -> Open;

    /// Counts a request that was never made, because the service failed to become ready.
    fn unready(&self, judgement: Judgement);

    /// The right to one call if every request has it, whose age has not started. Apart from
    /// [`admit_slowly`](Self::admit_slowly), because a permit that comes from one place only need
    /// not go through memory.
    fn admit_at_once(&self) -> Option<Permit>;

    /// The right to one call, after [`admit_at_once`](Self::admit_at_once) has given none.
    ///
    /// # Errors
    /// The circuit is open.
    fn admit_slowly(&self, request: &Req) -> Result<Permit, Open>;
}

impl Sealed for Breaker {}

impl<Req> Guard<Req> for Breaker {
    fn rejects(&self) -> Option<Open> {
        self.rejects()
    }

    fn rejects_after_a_look(&self) -> bool {
        self.refusal().is_some()
    }

    fn refuse(&self) -> Open {
        self.refuse()
    }

    fn unready(&self, judgement: Judgement) {
        self.unready(judgement);
    }

    #[inline]
    fn admit_at_once(&self) -> Option<Permit> {
        self.admit_at_once()
    }

    fn admit_slowly(&self, _request: &Req) -> Result<Permit, Open> {
        self.admit_slowly()
    }
}
