//! How many requests are timed: all while they are few, fewer the more there are. Pure, and one word.

/// Reading the clock twice costs as much as all the rest of a pick, and a few readings a millisecond
/// say as much as hundreds. So these are aimed at, of all nodes together.
const FEW: u16 = 2;
const MANY: u16 = 4;

/// At most one in 2^5 is left: when all at once there are few requests again, that is how long it takes
/// until this is noticed.
const RAREST: u16 = 5;

/// After so many milliseconds without a timed request there are few.
const LONG: u32 = 8;

/// One request in 2^`rarity` is timed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The millisecond in which one was timed last.
    at: u32,
    /// How many were, in that one.
    timed: u16,
    rarity: u16,
}

impl Pace {
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { at: (bits >> 32) as u32, timed: (bits >> 16) as u16, rarity: bits as u16 }
    }

    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.timed) << 16 | u64::from(self.rarity)
    }

    /// Whether to time the request with these random bits.
    #[inline]
    pub(crate) fn chooses(self, random: u32) -> bool {
        random & ((1 << (self.rarity & 31)) - 1) == 0
    }

    /// When one more has begun to be timed.
    pub(crate) fn after_one(self, now: u32) -> Self {
        let rarity = self.rarity;
        match now.wrapping_sub(self.at) {
            0 if self.timed >= MANY => Self { timed: 1, rarity: (rarity + 1).min(RAREST), ..self },
            0 => Self { timed: self.timed + 1, ..self },
            1 if self.timed >= FEW => Self { at: now, timed: 1, rarity },
            1..LONG => Self { at: now, timed: 1, rarity: rarity.saturating_sub(1) },
            _ => Self { at: now, timed: 1, rarity: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests at an even rate for so many milliseconds, and the share of the last half that was timed.
    fn timed(pace: &mut Pace, begun: u32, millis: u32, per_milli: u32) -> f64 {
        let mut chance = fastrand::Rng::with_seed(7);
        let mut timed = 0;
        for milli in 0..millis {
            for _ in 0..per_milli {
                if pace.chooses(chance.u32(..)) {
                    *pace = Pace::from_bits(pace.after_one(begun + milli).to_bits());
                    timed += u32::from(milli >= millis / 2);
                }
            }
        }
        f64::from(timed) / f64::from(millis / 2)
    }

    #[test]
    fn all_are_timed_while_they_are_few_and_some_while_they_are_many() {
        for (per_milli, least, most) in
            [(1, 1.0, 1.0), (2, 1.5, 2.0), (20, 1.5, 6.0), (100, 2.0, 7.0)]
        {
            let each_milli = timed(&mut Pace::default(), 0, 2_000, per_milli);
            assert!((least..=most).contains(&each_milli), "{each_milli} of {per_milli}");
        }
    }

    #[test]
    fn there_is_a_rarest_and_it_is_left_at_once_when_there_are_few_again() {
        let mut pace = Pace::default();
        let each_milli = timed(&mut pace, 0, 100, 10_000);
        assert!((250.0..400.0).contains(&each_milli), "one in 32, not {each_milli}");
        assert!(!pace.chooses(0b1_0000) && pace.chooses(0b10_0000));
        assert!(pace.after_one(1_000).chooses(u32::MAX), "all are timed after the next one");
    }

    #[test]
    fn a_clock_that_wraps_or_went_back_does_no_harm() {
        let late = Pace { at: u32::MAX, timed: 3, rarity: 4 };
        assert_eq!(late.after_one(0), Pace { at: 0, timed: 1, rarity: 4 });
        assert_eq!(late.after_one(u32::MAX - 1).rarity, 0);
    }
}
