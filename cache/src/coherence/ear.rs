//! Whether all messages have arrived, told by their numbers: pure.

use crate::shared::Pulse;

/// What was heard of one channel.
#[derive(Debug, Default)]
pub(super) struct Ear {
    /// Of the store, when it was last asked.
    incarnation: Option<u64>,
    /// The highest number heard, or known to have been given before there was anything to hear.
    last: Option<u64>,
    /// What came before the first answer was not heard: the store was asked in vain.
    late: bool,
    /// The number given last when it was asked for the time before.
    asked: u64,
    /// Messages that were given a number and not heard, since one was heard.
    unheard: u64,
}

/// What a comparison with the store's number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Every message has been heard.
    Whole,
    /// One may be on its way.
    Behind,
    /// One never came.
    Missed,
    /// The store counts anew although it remembers itself: it has lost what was written last,
    /// removals among it. Each beat says so until the store has another incarnation.
    Rewound,
}

impl Ear {
    /// Hears a message; true if one before it is missing, or the numbers began anew.
    pub(super) fn hear(&mut self, sequence: u64) -> bool {
        self.unheard = 0;
        let Some(last) = self.last else {
            // Before the first comparison nobody can tell what came before.
            return false;
        };
        if sequence == last.wrapping_add(1) {
            self.last = Some(sequence);
            return false;
        }
        if sequence > last {
            self.last = Some(sequence);
            return true;
        }
        // Twice, or late: late ones were reported when they were missing. Far behind, the store
        // has begun to count anew, as the next beat will find.
        last - sequence > LATE
    }

    /// Takes the number that the store gave last.
    pub(super) fn beat(&mut self, pulse: Pulse) -> Beat {
        let Pulse { sequence, incarnation } = pulse;
        let before = std::mem::replace(&mut self.asked, sequence);
        let known = self.incarnation.replace(incarnation);
        if known.is_some_and(|known| known != incarnation) {
            self.last = Some(sequence);
            return Beat::Missed;
        }
        let Some(last) = self.last else {
            self.last = Some(sequence);
            return if self.late { Beat::Missed } else { Beat::Whole };
        };
        if sequence == last {
            return Beat::Whole;
        }
        if sequence < last {
            return Beat::Rewound;
        }
        if before <= last || before > sequence {
            return Beat::Behind;
        }
        self.unheard += before - last;
        self.last = Some(before);
        Beat::Missed
    }

    /// The store could not say.
    pub(super) fn asked_in_vain(&mut self) {
        self.late |= self.last.is_none();
    }

    /// How many messages have not been heard yet.
    pub(super) fn behind(&self, sequence: u64) -> u64 {
        self.last.map_or(0, |last| sequence.saturating_sub(last))
    }

    /// Whether messages arrive at all.
    pub(super) fn is_plausible(&self) -> bool {
        self.unheard < DEAD
    }
}

/// A message may overtake this many.
const LATE: u64 = 1_024;

/// So many messages missed in a row, none heard between, are no accident.
const DEAD: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(sequence: u64) -> Pulse {
        Pulse { sequence, incarnation: 1 }
    }

    fn at(sequence: u64) -> Ear {
        let mut ear = Ear::default();
        assert_eq!(ear.beat(pulse(sequence)), Beat::Whole);
        ear
    }

    #[test]
    fn messages_in_order_are_whole() {
        let mut ear = at(7);
        assert!(!ear.hear(8) && !ear.hear(9));
        assert_eq!(ear.beat(pulse(9)), Beat::Whole);
    }

    #[test]
    fn a_missing_message_is_noticed_with_the_next_one() {
        let mut ear = at(7);
        assert!(ear.hear(9));
        assert!(!ear.hear(8), "late, and already reported");
        assert!(!ear.hear(9), "twice");
        assert_eq!(ear.beat(pulse(9)), Beat::Whole);
    }

    #[test]
    fn a_missing_last_message_is_noticed_by_the_second_beat() {
        let mut ear = at(7);
        assert_eq!(ear.beat(pulse(8)), Beat::Behind);
        assert_eq!(ear.behind(8), 1);
        assert_eq!(ear.beat(pulse(8)), Beat::Missed);
        assert_eq!(ear.beat(pulse(8)), Beat::Whole);
        let mut ear = at(7);
        assert_eq!(ear.beat(pulse(8)), Beat::Behind);
        assert!(!ear.hear(8));
        assert_eq!(ear.beat(pulse(9)), Beat::Behind, "another one, on its way");
    }

    #[test]
    fn a_store_that_counts_anew_has_lost_what_was_written_last() {
        let mut ear = at(5_000);
        assert!(ear.hear(1) && ear.hear(2));
        assert_eq!(ear.beat(pulse(3)), Beat::Rewound);
        assert_eq!(ear.beat(pulse(4)), Beat::Rewound, "as long as it takes itself for the old one");
        assert_eq!(ear.beat(Pulse { sequence: 4, incarnation: 2 }), Beat::Missed);
        assert_eq!(ear.beat(Pulse { sequence: 4, incarnation: 2 }), Beat::Whole);
    }

    #[test]
    fn a_store_that_has_lost_everything_is_known_by_its_incarnation_whatever_it_counts() {
        let mut ear = at(2);
        assert!(!ear.hear(1), "late, for all that the number tells");
        assert_eq!(ear.beat(Pulse { sequence: 2, incarnation: 9 }), Beat::Missed);
        assert_eq!(ear.beat(Pulse { sequence: 2, incarnation: 9 }), Beat::Whole);
    }

    #[test]
    fn what_came_before_the_first_answer_may_have_been_missed() {
        let mut ear = Ear::default();
        ear.asked_in_vain();
        assert_eq!(ear.beat(pulse(7)), Beat::Missed);
        ear.asked_in_vain();
        assert_eq!(ear.beat(pulse(7)), Beat::Whole);
    }

    #[test]
    fn numbers_without_messages_mean_a_dead_subscription() {
        let mut ear = at(0);
        for sequence in 1..=4 {
            ear.beat(pulse(sequence));
        }
        assert!(!ear.is_plausible());
        ear.hear(5);
        assert!(ear.is_plausible());
    }
}
