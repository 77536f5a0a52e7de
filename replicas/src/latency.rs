//! How long a node takes to answer, as a peak-sensitive average that forgets: pure, and one word, so
//! that it is read and written without a lock.

use std::time::Duration;

/// After so long without an answer, an estimate counts for 1/e of what it was. 10 s, as in Finagle
/// and linkerd.
const DECAY: Duration = Duration::from_secs(10);

/// The least that a failure is taken for, as in linkerd: a node that fails fast must not look fast.
pub(crate) const PENALTY: Duration = Duration::from_secs(5);

/// The longest a node may ask to be left alone, as in linkerd.
const LONGEST: Duration = Duration::from_secs(300);

/// Latencies that differ by less are alike: an idle node would get nothing for being a little slower.
const ALIKE: f32 = 1.1;

/// An average of answer times, and when it was true.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Zero: nothing is known.
    nanos: f32,
    /// Milliseconds since the set was built. They wrap after 49 days: an estimate that was not renewed
    /// for 25 is taken for a fresh one for as long.
    at: u32,
}

impl Estimate {
    /// What is known of a node that has not answered yet.
    pub(crate) const NONE: u64 = 0;

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { nanos: f32::from_bits((bits >> 32) as u32), at: bits as u32 }
    }

    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.nanos.to_bits()) << 32 | u64::from(self.at)
    }

    #[inline]
    pub(crate) fn is_known(self) -> bool {
        self.nanos > 0.0
    }

    /// In nanoseconds; it fades, so that a node which was slow once is tried again.
    #[inline]
    pub(crate) fn at(self, now: u32) -> f32 {
        self.nanos * Self::kept(self.at, now)
    }

    /// With one more answer. One that took longer counts as it is (hence peak), one that took less
    /// counts the more, the longer ago the estimate was made.
    pub(crate) fn with(self, took: Duration, now: u32) -> Self {
        let took = took.min(LONGEST).as_nanos() as f32;
        // An answer in no time at all is an answer.
        let took = took.max(1.0);
        let nanos = if took >= self.nanos {
            took
        } else {
            took + (self.nanos - took) * Self::kept(self.at, now)
        };
        Self { nanos, at: now }
    }

    #[inline]
    fn kept(then: u32, now: u32) -> f32 {
        // Another thread's reading of the clock may be a little older.
        let elapsed = now.wrapping_sub(then).cast_signed().max(0);
        // What a busy node has at all times would be a matter of half a percent, and an `exp` on every
        // pick.
        if elapsed < 50 { 1.0 } else { (-(elapsed as f32) / DECAY.as_millis() as f32).exp() }
    }
}

/// Which of two nodes will answer sooner, each given with its estimate, what it has in flight and its
/// weight: by `latency * (1 + in_flight / weight)`, with the weights in proportion to their mean. So
/// heavy nodes may have longer queues, but of two idle nodes the heavy one is not quicker.
///
/// A node of which nothing is known is taken to be as quick as the other, so that it is neither always
/// nor never chosen.
#[inline]
pub(crate) fn is_first_quicker(
    (first, first_in_flight, first_weight): (Estimate, u64, u32),
    (second, second_in_flight, second_weight): (Estimate, u64, u32),
    now: u32,
) -> bool {
    let (a, b) = (first.at(now), second.at(now));
    let known = first.is_known() && second.is_known();
    let (a, b) = if known && (a > b * ALIKE || b > a * ALIKE) { (a, b) } else { (1.0, 1.0) };
    let (first_weight, second_weight) = (first_weight as f32, second_weight as f32);
    let mean = (first_weight + second_weight) / 2.0;
    // Both sides multiplied by both weights.
    a * second_weight * (first_weight + first_in_flight as f32 * mean)
        <= b * first_weight * (second_weight + second_in_flight as f32 * mean)
}

#[cfg(test)]
mod tests;
