//! Which circuit a request has to pass: the one there is, or the one of its key.

use super::reject::sealed::Sealed;
use super::{Breaker, Open, Permit};

/// What lets requests in. Sealed: there are [`Breaker`] and [`Keyed`](crate::Keyed).
pub trait Guard<Req>: Sealed {
    /// The rejection any request would meet now.
    fn rejects(&self) -> Option<Open>;

    /// Counts a request that is refused because [`rejects`](Self::rejects) has said so before.
    fn refuse(&self) -> Open;

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

    fn refuse(&self) -> Open {
        self.refuse()
    }

    #[inline]
    fn admit_at_once(&self) -> Option<Permit> {
        self.admit_at_once()
    }

    fn admit_slowly(&self, _request: &Req) -> Result<Permit, Open> {
        self.admit_slowly()
    }
}
