//! The six documented signals and one reading of each.

/// What the thresholds, the alerts and the score look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// CPU in percent of what this process may use: the container's quota or the allowed CPUs.
    Cpu,
    /// Memory in percent of the container's limit, or of the machine without one.
    Memory,
    /// Mean response time in milliseconds over the traffic window.
    ResponseTime,
    /// Requests that failed, in percent, over the traffic window.
    ErrorRate,
    /// Users served at once; requests under way unless overridden.
    ConcurrentUsers,
    /// Jobs waiting; unknown unless given.
    QueueSize,
}

impl Signal {
    /// All six, in the documented order.
    pub const ALL: [Self; 6] = [
        Self::Cpu,
        Self::Memory,
        Self::ResponseTime,
        Self::ErrorRate,
        Self::ConcurrentUsers,
        Self::QueueSize,
    ];

    /// The name in JSON, logs and labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::ResponseTime => "response_time",
            Self::ErrorRate => "error_rate",
            Self::ConcurrentUsers => "concurrent_users",
            Self::QueueSize => "queue_size",
        }
    }

    /// The name for people, in the middle of a sentence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::ResponseTime => "response time",
            Self::ErrorRate => "error rate",
            Self::ConcurrentUsers => "concurrent users",
            Self::QueueSize => "queue size",
        }
    }

    /// What stands after a value: `" %"`, `" ms"` or nothing.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Cpu | Self::Memory | Self::ErrorRate => " %",
            Self::ResponseTime => " ms",
            Self::ConcurrentUsers | Self::QueueSize => "",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// A value with its unit, to a tenth where that says something.
    pub(crate) fn show(self, value: f64) -> String {
        let digits = usize::from(value.fract() != 0.0);
        format!("{value:.digits$}{}", self.unit())
    }
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One value for each signal; absent where nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Readings([Option<f64>; 6]);

impl Readings {
    /// A value that is not finite is no value.
    pub(crate) fn set(&mut self, signal: Signal, value: Option<f64>) {
        self.0[signal.index()] = value.filter(|v| v.is_finite());
    }

    pub(crate) fn get(&self, signal: Signal) -> Option<f64> {
        self.0[signal.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_documented_order() {
        for (at, signal) in Signal::ALL.into_iter().enumerate() {
            assert_eq!(signal.index(), at);
        }
    }

    #[test]
    fn values_are_shown_with_their_unit() {
        assert_eq!(Signal::Cpu.show(93.25), "93.2 %");
        assert_eq!(Signal::ResponseTime.show(1_000.0), "1000 ms");
        assert_eq!(Signal::QueueSize.show(7.0), "7");
    }

    #[test]
    fn a_reading_that_is_not_finite_is_absent() {
        let mut readings = Readings::default();
        readings.set(Signal::Cpu, Some(f64::NAN));
        readings.set(Signal::Memory, Some(5.0));
        assert_eq!(readings.get(Signal::Cpu), None);
        assert_eq!(readings.get(Signal::Memory), Some(5.0));
    }
}
