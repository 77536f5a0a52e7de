//! When an entry is fresh, worth refreshing, stale or gone: decisions without a clock of their own.

use std::time::Duration;

use crate::clock::Tick;

/// When a hit starts a load in the background, before its entry expires.
///
/// Without it, all callers of a popular key wait for the load at the moment it expires.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum EarlyRefresh {
    /// Never.
    Off,
    /// By chance, ever more likely towards the end and with the time the last load took (XFetch:
    /// Vattani, Chierichetti, Lowenstein, VLDB 2015). `beta` of 1 is optimal for one caller; a
    /// larger one refreshes earlier. From 0.01 to 100.
    XFetch {
        /// Weight of the load time.
        beta: f64,
    },
    /// By every hit after this share of the lifetime, from 0.1 to 1.
    After {
        /// Share of the lifetime.
        share: f64,
    },
}

/// The moments of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moments {
    pub(crate) fresh_until: Tick,
    /// From here on a refresh may be due before the entry expires.
    pub(crate) quiet_until: Tick,
    /// Until here it is served while one load renews it.
    pub(crate) revalidate_until: Tick,
    /// Until here it may stand in for a load that fails or is slow.
    pub(crate) stale_until: Tick,
}

/// How an entry may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Serve,
    /// Serve it, and whether a refresh is due is to be decided.
    ServeAndConsider,
    /// Serve it, and load.
    ServeAndLoad,
    /// Load; it may stand in.
    StandIn,
    Nothing,
}

/// How long the copy of one entry lives, and how a hit may renew it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) fresh: Duration,
    pub(crate) revalidate: Duration,
    pub(crate) stale: Duration,
    /// How long its load took.
    pub(crate) load: Duration,
}

/// Past this many load times before the end, XFetch refreshes less than once in ten million hits.
const XFETCH_REACH: f64 = 16.0;

impl EarlyRefresh {
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Self::Off => true,
            Self::XFetch { beta } => (0.01..=100.0).contains(beta),
            Self::After { share } => (0.1..=1.0).contains(share),
        }
    }

    /// How long before the end of a life of `fresh` a refresh may come.
    fn reach(&self, fresh: Duration, load: Duration) -> Duration {
        match self {
            Self::Off => Duration::ZERO,
            // Never in the first half: a load that takes as long as the value lives would
            // otherwise refresh without end.
            Self::XFetch { beta } => scaled(load, beta * XFETCH_REACH).min(fresh / 2),
            Self::After { share } => scaled(fresh, 1.0 - share),
        }
    }

    /// Whether a hit `left` before the end is to refresh. `chance` is uniform from 0 to 1.
    pub(crate) fn is_due(&self, left: Duration, load: Duration, chance: f64) -> bool {
        match self {
            Self::Off => false,
            // ln(0) is minus infinity: due, whatever is left.
            Self::XFetch { beta } => -load.as_secs_f64() * beta * chance.ln() >= left.as_secs_f64(),
            Self::After { .. } => true,
        }
    }
}

impl Moments {
    pub(crate) fn new(now: Tick, life: Life, early: EarlyRefresh) -> Self {
        let fresh_until = now.after(life.fresh);
        let moments = Self {
            fresh_until,
            quiet_until: fresh_until.before(early.reach(life.fresh, life.load)),
            revalidate_until: fresh_until.after(life.revalidate),
            stale_until: fresh_until.after(life.stale.max(life.revalidate)),
        };
        if life.fresh.is_zero() { moments.expired(now) } else { moments }
    }

    pub(crate) fn usage(&self, now: Tick) -> Use {
        if now < self.quiet_until {
            Use::Serve
        } else if now < self.fresh_until {
            Use::ServeAndConsider
        } else if now < self.revalidate_until {
            Use::ServeAndLoad
        } else if now < self.stale_until {
            Use::StandIn
        } else {
            Use::Nothing
        }
    }

    /// Not fresh to anybody any more; its stale time begins `now`, if it had not begun. What ends
    /// with its freshness ends before any moment: to another thread it may be earlier than `now`.
    pub(crate) fn expired(self, now: Tick) -> Self {
        let earlier = self.fresh_until.since(now);
        let moved = |until: Tick| match until > self.fresh_until {
            true => until.before(earlier),
            false => Tick::PAST,
        };
        Self {
            fresh_until: Tick::PAST,
            quiet_until: Tick::PAST,
            revalidate_until: moved(self.revalidate_until),
            stale_until: moved(self.stale_until),
        }
    }

    /// After a failed load: served as it is for `throttle`, within its stale time.
    pub(crate) fn throttled(self, now: Tick, throttle: Duration) -> Self {
        let until = now.after(throttle).min(self.stale_until);
        Self { fresh_until: until, quiet_until: until, revalidate_until: until, ..self }
    }
}

/// A duration times a factor that is not negative, at most ten years.
pub(crate) fn scaled(duration: Duration, factor: f64) -> Duration {
    let seconds = (duration.as_secs_f64() * factor).min(MAX_LIFE.as_secs_f64());
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

/// Ten years: past it, clocks overflow.
pub(crate) const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn life() -> Life {
        Life { fresh: 10 * SECOND, revalidate: 2 * SECOND, stale: 5 * SECOND, load: SECOND / 10 }
    }

    fn at(seconds: f64) -> Tick {
        Tick::PAST.after(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn an_entry_passes_through_its_uses_in_order() {
        let moments = Moments::new(at(0.0), life(), EarlyRefresh::XFetch { beta: 1.0 });
        let uses = [
            (0.0, Use::Serve),
            (8.3, Use::Serve),
            (8.5, Use::ServeAndConsider),
            (9.9, Use::ServeAndConsider),
            (10.0, Use::ServeAndLoad),
            (11.9, Use::ServeAndLoad),
            (12.0, Use::StandIn),
            (14.9, Use::StandIn),
            (15.0, Use::Nothing),
        ];
        for (seconds, usage) in uses {
            assert_eq!(moments.usage(at(seconds)), usage, "at {seconds} s");
        }
    }

    #[test]
    fn an_expiry_moves_the_stale_time_forward_and_never_lengthens_it() {
        let moments = Moments::new(at(0.0), life(), EarlyRefresh::Off).expired(at(4.0));
        // To a thread whose time is a moment behind, too.
        assert_eq!(moments.usage(at(3.9)), Use::ServeAndLoad);
        assert_eq!(moments.usage(at(6.5)), Use::StandIn);
        assert_eq!(moments.usage(at(9.0)), Use::Nothing);
        assert_eq!(moments.expired(at(8.0)), moments);
    }

    #[test]
    fn what_is_not_fresh_from_the_beginning_is_so_to_no_thread() {
        let stale = Life { fresh: Duration::ZERO, revalidate: Duration::ZERO, ..life() };
        let moments = Moments::new(at(4.0), stale, EarlyRefresh::Off);
        assert_eq!(moments.usage(at(3.9)), Use::StandIn);
        assert_eq!(moments.usage(at(9.0)), Use::Nothing);
        let nothing = Life { stale: Duration::ZERO, ..stale };
        let moments = Moments::new(at(4.0), nothing, EarlyRefresh::Off);
        assert_eq!(moments.usage(at(3.9)), Use::Nothing);
    }

    #[test]
    fn an_expiry_leaves_nothing_of_what_has_no_stale_time() {
        let brief = Life { revalidate: Duration::ZERO, stale: Duration::ZERO, ..life() };
        let moments = Moments::new(at(0.0), brief, EarlyRefresh::Off).expired(at(4.0));
        assert_eq!(moments.usage(at(3.9)), Use::Nothing);
    }

    #[test]
    fn a_throttled_entry_is_served_but_not_past_its_stale_time() {
        let moments = Moments::new(at(0.0), life(), EarlyRefresh::Off);
        let throttled = moments.throttled(at(12.0), SECOND);
        assert_eq!(throttled.usage(at(12.9)), Use::Serve);
        assert_eq!(throttled.usage(at(13.0)), Use::StandIn);
        assert_eq!(moments.throttled(at(14.5), SECOND).usage(at(15.0)), Use::Nothing);
    }

    #[test]
    fn xfetch_follows_its_law() {
        let xfetch = EarlyRefresh::XFetch { beta: 1.0 };
        // P(due with t left) = exp(-t / (load * beta)): at one load time, 0.3679.
        assert!(xfetch.is_due(SECOND, SECOND, 0.3678));
        assert!(!xfetch.is_due(SECOND, SECOND, 0.3680));
        assert!(EarlyRefresh::XFetch { beta: 2.0 }.is_due(2 * SECOND, SECOND, 0.3678));
        assert!(xfetch.is_due(Duration::from_secs(1_000), SECOND, 0.0));
        assert!(!xfetch.is_due(SECOND, Duration::ZERO, 0.5));
    }

    #[test]
    fn a_load_as_long_as_the_lifetime_is_not_refreshed_in_its_first_half() {
        let slow = Life { load: 60 * SECOND, ..life() };
        let moments = Moments::new(at(0.0), slow, EarlyRefresh::XFetch { beta: 100.0 });
        assert_eq!(moments.usage(at(4.9)), Use::Serve);
        assert_eq!(moments.usage(at(5.1)), Use::ServeAndConsider);
    }

    #[test]
    fn a_share_is_when_every_hit_refreshes() {
        let after = EarlyRefresh::After { share: 0.9 };
        let moments = Moments::new(at(0.0), life(), after);
        assert_eq!(moments.usage(at(8.9)), Use::Serve);
        assert_eq!(moments.usage(at(9.1)), Use::ServeAndConsider);
        assert!(after.is_due(SECOND, Duration::ZERO, 0.9));
    }

    #[test]
    fn lifetimes_without_end_do_not_overflow() {
        let endless = Life {
            fresh: Duration::MAX,
            revalidate: Duration::MAX,
            stale: Duration::MAX,
            load: Duration::MAX,
        };
        for early in [EarlyRefresh::XFetch { beta: 100.0 }, EarlyRefresh::After { share: 0.1 }] {
            let moments = Moments::new(at(1.0), endless, early);
            assert_eq!(moments.usage(at(2.0)), Use::Serve);
            let _ = moments.expired(at(3.0)).throttled(at(4.0), Duration::MAX);
        }
    }
}
