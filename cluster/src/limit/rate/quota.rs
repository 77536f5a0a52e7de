//! How much one key may use, and how fast it gets it back.

use std::time::Duration;

use crate::ConfigError;

/// A key gets at most a million units a second: times are kept in whole nanoseconds, and above
/// that their rounding would take away more than a thousandth of the rate.
const FASTEST: Duration = Duration::from_micros(1);

/// A used-up burst is back within this time at the latest. A longer one is a slip of the unit.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A token bucket: `burst` units at once, and `count` units come back in each `period`.
///
/// Units come back one by one, `period / count` apart, never in a heap at the end of a window. Over
/// any stretch of time a key gets at most `burst` units plus the rate times that stretch. Where the
/// limit is in memory, a request is let through by a clock that may be late by a tick of the kernel
/// (1 to 10 ms), so add what comes back within a tick, at most a second burst: a burst that is back
/// within less can be had twice in a moment.
///
/// ```
/// use std::time::Duration;
/// use escala_cluster::Quota;
///
/// // 100 a minute, all of them at once if nothing was used for a minute.
/// let api = Quota::per_minute(100);
/// // 5 logins at once, then one every 20 seconds.
/// let login = Quota::per_minute(3).burst(5);
/// // 1000 in each quarter of an hour.
/// let export = Quota::per(1_000, Duration::from_secs(15 * 60));
/// # for quota in [api, login, export] { quota.validate()?; }
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Quota {
    /// Units a key can use at once after it has used none for a while, at least 1.
    pub burst: u32,
    /// Units that come back in each period, at least 1 and at most one a microsecond.
    pub count: u32,
    /// The period they come back in. A burst must be back within 366 days.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub period: Duration,
}

impl Quota {
    /// `count` units each second, and as many at once.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self::per(count, Duration::from_secs(1))
    }

    /// `count` units each minute, and as many at once.
    #[must_use]
    pub const fn per_minute(count: u32) -> Self {
        Self::per(count, Duration::from_secs(60))
    }

    /// `count` units each hour, and as many at once.
    #[must_use]
    pub const fn per_hour(count: u32) -> Self {
        Self::per(count, Duration::from_secs(60 * 60))
    }

    /// `count` units each `period`, and as many at once.
    #[must_use]
    pub const fn per(count: u32, period: Duration) -> Self {
        Self { burst: count, count, period }
    }

    /// Sets [`burst`](Self#structfield.burst).
    #[must_use]
    pub const fn burst(mut self, units: u32) -> Self {
        self.burst = units;
        self
    }

    /// Checks every field. What takes a quota does it too.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.burst == 0 {
            return Err(ConfigError::new("burst", &0, "be at least 1"));
        }
        if self.count == 0 {
            return Err(ConfigError::new("count", &0, "be at least 1"));
        }
        let period = || format!("{:?}", self.period);
        if self.period > LONGEST {
            return Err(ConfigError::new("period", &period(), "be at most 366 days"));
        }
        if self.period.as_nanos() < u128::from(self.count) * FASTEST.as_nanos() {
            let rule = "hold at most one unit of count a microsecond";
            return Err(ConfigError::new("period", &period(), rule));
        }
        if u128::from(self.burst) * u128::from(self.interval_nanos()) > LONGEST.as_nanos() {
            return Err(ConfigError::new("burst", &self.burst, "be back within 366 days"));
        }
        Ok(())
    }

    /// What each of so many processes may give if all of them together give this.
    #[cfg(feature = "redis")]
    pub(crate) fn shared_by(self, processes: u32) -> Self {
        let processes = processes.max(1);
        Self {
            burst: self.burst.div_ceil(processes),
            count: self.count,
            period: self.period.saturating_mul(processes),
        }
    }

    /// Time in which one unit comes back: rounded up, so that no rounding gives a unit too many.
    pub(crate) fn interval_nanos(&self) -> u64 {
        let nanos = self.period.as_nanos().div_ceil(u128::from(self.count.max(1)));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Time in which a whole burst comes back. Of a valid quota.
    pub(crate) fn burst_nanos(&self) -> u64 {
        self.interval_nanos().saturating_mul(u64::from(self.burst))
    }
}
