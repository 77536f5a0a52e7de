//! What one caller's reads must be able to see: its own writes, or data that is recent enough.
//!
//! A [`Session`] goes with every read. Pinned to the primary it sees everything; with a [`Token`] it
//! sees at least its own writes, on any replica that has come so far; with
//! [`max_lag`](Session::max_lag) it sees nothing older than that. Otherwise it sees whatever
//! a replica has.
//!
//! Tokens and bounds need a monitor, which tells the set how far each replica has come
//! ([`Replicas::observe`](crate::Replicas::observe)). Without one nobody can vouch for a replica, so
//! the primary reads.

#[cfg(feature = "axum")]
mod carrier;
#[cfg(feature = "axum")]
mod config;
mod fault;
#[cfg(feature = "axum")]
mod handle;
#[cfg(feature = "token")]
mod keys;
#[cfg(feature = "axum")]
pub mod layer;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "axum")]
mod stats;
mod token;
mod wait;
mod write;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::Freshness;

#[cfg(feature = "axum")]
pub use self::config::SessionConfig;
pub use self::fault::Fault;
#[cfg(feature = "axum")]
pub use self::handle::{NoSessionLayer, Served, SessionHandle};
#[cfg(feature = "token")]
pub use self::keys::{Keys, TOKEN_TEXT_LEN, TokenError};
#[cfg(feature = "axum")]
pub use self::layer::{SessionFuture, SessionLayer, SessionService};
#[cfg(feature = "axum")]
pub use self::stats::SessionStats;
pub use self::token::{TOKEN_LIFE, Token};
pub(crate) use self::wait::{Kicks, Waits};
pub use self::write::WriteError;

/// What one caller's reads must be able to see.
///
/// The default sees whatever a replica has, which may trail the primary.
///
/// ```
/// # use std::time::{Duration, SystemTime};
/// # use escala_replicas::{Session, Token};
/// // In a handler: this caller has just written.
/// let mut session = Session::new();
/// # let token = Token::new(7, 1, 0x16B_3748, SystemTime::now());
/// session.wrote(token);
/// // Its own writes, and of others nothing older than a second.
/// let session = session.max_lag(Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    pinned: bool,
    mark: Option<Mark>,
    max_lag: Option<Duration>,
}

/// The session's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    token: Token,
    /// When the last of them was done, as far as this machine's clock can tell.
    since: Instant,
    /// From when on they are taken to be everywhere.
    until: Instant,
}

/// A life beyond this is a slip of the unit, and could overflow the clock.
pub(crate) const LONGEST_LIFE: Duration = Duration::from_secs(60 * 60);

/// How wrong a measured lag may be; a wait that only this could make worthwhile is still made.
const LAG_ERROR: Duration = Duration::from_millis(250);

impl Session {
    /// A session whose reads any replica may serve.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A session whose reads go to the primary and nowhere else. They fail with the primary;
    /// a replica could answer, but might answer wrongly.
    #[must_use]
    pub fn pinned_to_primary() -> Self {
        Self { pinned: true, ..Self::default() }
    }

    /// Whether reads of this session go to the primary only.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Reads see nothing that was out of date for longer than this: a replica of which it is not
    /// known that it shows all that was written until so long ago is passed over. An idle one is
    /// known by the last looks at the primary and at itself, so a bound shorter than the monitor's
    /// two intervals together means a wait for the next looks, or the primary.
    #[must_use]
    pub fn max_lag(mut self, max_lag: Duration) -> Self {
        self.max_lag = Some(max_lag);
        self
    }

    /// The session wrote: from now on its reads see it, until the token has lived
    /// [`TOKEN_LIFE`]. Earlier writes stay in force ([`Token::merge`]).
    pub fn wrote(&mut self, token: Token) {
        self.wrote_for(token, TOKEN_LIFE, SystemTime::now(), Instant::now());
    }

    /// As [`wrote`](Self::wrote), with another life (an hour at most) and at a given time, which is
    /// the present by either clock. A token that has none of its life left changes nothing.
    pub fn wrote_for(&mut self, token: Token, life: Duration, wall: SystemTime, now: Instant) {
        let life = life.min(LONGEST_LIFE);
        let Some(left) = token.remaining(life, wall) else { return };
        let age = life.saturating_sub(left);
        let new = Mark {
            token,
            // The clock may have begun later than that.
            since: now.checked_sub(age).unwrap_or(now),
            until: now + left,
        };
        self.mark = Some(match self.live(now) {
            None => new,
            Some(old) => Mark {
                token: old.token.merge(token),
                since: old.since.max(new.since),
                until: old.until.max(new.until),
            },
        });
    }

    /// What stands for the session's writes, if there are some; it may have expired.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        self.mark.map(|mark| mark.token)
    }

    /// Whether it has a token that has not expired.
    pub(crate) fn awaits_writes(&self, now: Instant) -> bool {
        self.live(now).is_some()
    }

    /// Whether not any replica will do, so that each has to be asked by [`admits`](Self::admits). The
    /// clock is read only for those that have a token.
    pub(crate) fn has_needs(&self) -> bool {
        self.max_lag.is_some() || self.mark.is_some_and(|mark| mark.until > Instant::now())
    }

    /// Whether it bounds how old its data may be.
    pub(crate) fn has_bound(&self) -> bool {
        self.max_lag.is_some()
    }

    /// Whether a replica that was last seen like this may serve the session.
    pub(crate) fn admits(&self, seen: &Freshness, now: Instant) -> bool {
        self.live(now).is_none_or(|mark| mark.is_reached(seen))
            && self.max_lag.is_none_or(|max_lag| {
                // It may have stopped the moment after it was looked at, and more may have been
                // written since the primary was.
                let until = seen.complete_until;
                until.is_some_and(|until| now.saturating_duration_since(until) <= max_lag)
            })
    }

    /// Whether such a replica may come to serve the session within that time, as far as can be told
    /// from how far it was behind.
    pub(crate) fn may_come_to_admit(
        &self,
        seen: &Freshness,
        now: Instant,
        within: Duration,
    ) -> bool {
        let patience = within + LAG_ERROR;
        self.live(now).is_none_or(|mark| mark.may_be_reached(seen, now + patience))
            && self.max_lag.is_none_or(|max_lag| {
                seen.observed_at.is_some()
                    && seen.lag.is_some_and(|lag| lag <= max_lag.saturating_add(patience))
            })
    }

    /// Whether the session wrote to a primary of a later timeline than this one, which is the primary
    /// no more then: whoever watches it has yet to find out.
    pub(crate) fn outdates(&self, primary: &Freshness, now: Instant) -> bool {
        self.live(now).is_some_and(|mark| {
            let known = primary.observed_at.is_some() && primary.timeline != 0;
            let comparable = known && !mark.token.is_unplaced();
            comparable
                && primary.system == mark.token.system()
                && primary.timeline < mark.token.timeline()
        })
    }

    fn live(&self, now: Instant) -> Option<Mark> {
        self.mark.filter(|mark| mark.until > now)
    }
}

impl Mark {
    fn is_reached(&self, seen: &Freshness) -> bool {
        self.is_comparable(seen) && seen.position >= self.token.position()
    }

    /// A replica that is behind by some time shows at any moment what was written that long before.
    fn may_be_reached(&self, seen: &Freshness, by: Instant) -> bool {
        self.is_comparable(seen)
            && (self.is_reached(seen)
                || seen
                    .lag
                    .is_none_or(|lag| self.since.checked_add(lag).is_some_and(|shown| shown <= by)))
    }

    /// Whether the replica's position can say anything about the token's. Of another timeline it
    /// cannot: that one may have branched off before the write, or the replica has yet to follow.
    fn is_comparable(&self, seen: &Freshness) -> bool {
        seen.observed_at.is_some()
            && !self.token.is_unplaced()
            && seen.system == self.token.system()
            && seen.timeline == self.token.timeline()
    }
}
