//! The record of one cache in the shared store that puts loads and removals in order, whatever
//! the clocks of the machines say.
//!
//! Each frame bears the record's clock as it stood before its load began. A removal by tag, by
//! pattern or of everything first moves that clock, so that a frame tells by itself whether its
//! load began before or after. A store that loses the record has lost everything: the next record
//! has another incarnation, and no frame of an earlier one is believed.

use xxhash_rust::xxh3::xxh3_64;

use crate::frame::Meta;

/// The record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) incarnation: u64,
    pub(crate) clock: u64,
    /// Frames loaded before this moment were all removed.
    floor: u64,
    /// The last removal by pattern: what was loaded before may not be written any more.
    swept: u64,
}

/// What was last done to a tag, in a record of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    incarnation: u64,
    removed: u64,
    expired: u64,
}

/// Whether a frame may still be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    Current,
    /// May be served only if the source fails.
    Expired,
    Removed,
}

impl Control {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self { incarnation, clock: 1, floor: 0, swept: 0 }
    }

    /// One moment later.
    pub(crate) fn ticked(self) -> Self {
        Self { clock: self.clock.saturating_add(1), ..self }
    }

    /// One moment later, and all before it removed.
    pub(crate) fn cleared(self) -> Self {
        let next = self.ticked();
        Self { floor: next.clock, swept: next.clock, ..next }
    }

    /// One moment later, and a pattern being removed.
    pub(crate) fn swept(self) -> Self {
        let next = self.ticked();
        Self { swept: next.clock, ..next }
    }

    /// Whether what was loaded under `loaded` may still be written.
    pub(crate) fn admits(self, loaded: Self) -> bool {
        loaded.incarnation == self.incarnation && loaded.clock >= self.swept
    }

    /// Whether tags may have been removed since the frame's load began.
    pub(crate) fn moved_since(self, meta: &Meta) -> bool {
        self.clock > meta.clock
    }

    /// Whether a frame may be served, as far as this record tells.
    pub(crate) fn trust(self, meta: &Meta) -> Trust {
        // A clock ahead of the record's is from a record that was lost.
        let known = meta.incarnation == self.incarnation && meta.clock <= self.clock;
        if known && meta.clock >= self.floor { Trust::Current } else { Trust::Removed }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        numbers([self.incarnation, self.clock, self.floor, self.swept])
    }

    /// Total: bytes that are no record are `None`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [incarnation, clock, floor, swept] = read(bytes)?;
        Some(Self { incarnation, clock, floor, swept })
    }
}

impl Marker {
    /// This marker after a removal (or expiry) at the control record's present moment.
    pub(crate) fn moved(self, control: Control, removal: bool) -> Self {
        let Control { incarnation, clock, .. } = control;
        let kept = if self.incarnation == incarnation { self } else { Self::default() };
        let removed = if removal { kept.removed.max(clock) } else { kept.removed };
        let expired = if removal { kept.expired } else { kept.expired.max(clock) };
        Self { incarnation, removed, expired }
    }

    /// Whether a frame with this tag may be served.
    pub(crate) fn trust(self, meta: &Meta) -> Trust {
        if self.incarnation != meta.incarnation {
            return Trust::Current;
        }
        if self.removed > meta.clock {
            return Trust::Removed;
        }
        if self.expired > meta.clock { Trust::Expired } else { Trust::Current }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        numbers([self.incarnation, self.removed, self.expired])
    }

    /// What cannot be read stands for a removal of all that is there by now.
    pub(crate) fn decode(bytes: &[u8], control: Control) -> Self {
        let Control { incarnation, clock, .. } = control;
        match read(bytes) {
            Some([incarnation, removed, expired]) => Self { incarnation, removed, expired },
            None => Self { incarnation, removed: clock, expired: 0 },
        }
    }
}

/// Stands first in both records, so that a later form is not misread.
const FORM: u8 = 1;

/// The form, the numbers, and a checksum over both: a flipped bit must not bring anything back.
fn numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    let mut out = vec![FORM];
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    let sum = xxh3_64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn read<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (bytes, sum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(bytes) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (&FORM, rest) = bytes.split_first()? else { return None };
    let (chunks, []) = rest.as_chunks::<8>() else { return None };
    <[[u8; 8]; N]>::try_from(chunks).ok().map(|chunks| chunks.map(u64::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(control: Control) -> Meta {
        let Control { incarnation, clock, .. } = control;
        Meta { incarnation, clock, ..Meta::default() }
    }

    #[test]
    fn both_records_survive_and_others_are_refused() {
        let control = Control::new(7).ticked().cleared().swept();
        assert_eq!(Control::decode(&control.encode()), Some(control));
        let marker = Marker::default().moved(control, true).moved(control.ticked(), false);
        assert_eq!(Marker::decode(&marker.encode(), control), marker);
        assert_eq!(Control::decode(&marker.encode()), None);
        assert_eq!(Control::decode(b""), None);
        let mut later = control.encode();
        later[0] = 2;
        assert_eq!(Control::decode(&later), None);
    }

    #[test]
    fn a_flipped_bit_is_noticed_and_brings_nothing_back() {
        let control = Control::new(7).ticked();
        for at in 0..control.encode().len() {
            let mut bytes = control.encode();
            bytes[at] ^= 0x10;
            assert_eq!(Control::decode(&bytes), None, "byte {at}");
        }
        let mut bytes = Marker::default().moved(control, true).encode();
        bytes[9] ^= 1;
        let marker = Marker::decode(&bytes, control.ticked());
        assert_eq!(marker.trust(&loaded(control)), Trust::Removed);
        assert_eq!(marker.trust(&loaded(control.ticked())), Trust::Current);
    }

    #[test]
    fn what_was_loaded_before_a_clear_is_not_served_and_what_came_after_is() {
        let before = Control::new(7);
        let after = before.cleared();
        assert_eq!(before.trust(&loaded(before)), Trust::Current);
        assert_eq!(after.trust(&loaded(before)), Trust::Removed);
        assert_eq!(after.trust(&loaded(after)), Trust::Current);
        assert!(!after.admits(before) && after.admits(after));
    }

    #[test]
    fn a_sweep_keeps_older_loads_from_being_written_and_nothing_from_being_read() {
        let before = Control::new(7);
        let after = before.swept();
        assert!(!after.admits(before) && after.admits(after));
        assert_eq!(after.trust(&loaded(before)), Trust::Current);
    }

    #[test]
    fn a_tag_removed_or_expired_after_the_load_began_counts() {
        let first = Control::new(7);
        let second = first.ticked();
        let third = second.ticked();
        let removed = Marker::default().moved(second, true);
        assert_eq!(removed.trust(&loaded(first)), Trust::Removed);
        assert_eq!(removed.trust(&loaded(second)), Trust::Current);
        let both = removed.moved(third, false);
        assert_eq!(both.trust(&loaded(first)), Trust::Removed);
        assert_eq!(both.trust(&loaded(second)), Trust::Expired);
        assert_eq!(both.trust(&loaded(third)), Trust::Current);
        assert!(third.moved_since(&loaded(second)) && !third.moved_since(&loaded(third)));
    }

    #[test]
    fn a_record_that_was_lost_takes_its_frames_with_it() {
        let old = Control::new(7).ticked().ticked();
        let new = Control::new(8);
        assert_eq!(new.trust(&loaded(old)), Trust::Removed);
        assert!(!new.admits(old));
        let rolled_back = Control::new(7);
        assert_eq!(rolled_back.trust(&loaded(old)), Trust::Removed);
        let marker = Marker::default().moved(old, true);
        assert_eq!(marker.moved(new, true).trust(&loaded(new)), Trust::Current);
    }
}
