//! Byte ranges (RFC 9110 section 14).

use std::ops::Range;

use super::fields::trim;

/// What a `Range` field asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// The field is ignored: another unit, not readable, or more than the server is willing to do.
    Whole,
    /// These bytes: at least one range, none empty, none overlapping another.
    Parts(Vec<Range<u64>>),
    /// Nothing that is there.
    Unsatisfiable,
}

/// Reads a `Range` field for a body of `len` bytes.
///
/// More than `max` ranges, or more than two that overlap, are taken for an attack and ignored
/// (section 14.2); where two overlap, all are sorted and joined, so that the parts together are
/// never longer than the body.
pub(crate) fn parse(value: &[u8], len: u64, max: usize) -> Ranges {
    let Some(specs) = byte_specs(value) else { return Ranges::Whole };
    let mut ranges = Vec::new();
    let mut count = 0;
    for spec in specs.split(|&byte| byte == b',').map(trim).filter(|spec| !spec.is_empty()) {
        count += 1;
        if count > max {
            return Ranges::Whole;
        }
        match Spec::read(spec) {
            None => return Ranges::Whole,
            // No `Content-Range` can express the last bytes of nothing.
            Some(Spec::Suffix(1..)) if len == 0 => return Ranges::Whole,
            Some(spec) => ranges.extend(spec.within(len)),
        }
    }
    if count == 0 {
        return Ranges::Whole;
    }
    if ranges.is_empty() {
        return Ranges::Unsatisfiable;
    }
    match joined(ranges) {
        Some(ranges) => Ranges::Parts(ranges),
        None => Ranges::Whole,
    }
}

/// What follows `bytes=`; units are case-insensitive.
fn byte_specs(value: &[u8]) -> Option<&[u8]> {
    let (unit, specs) = value.split_at_checked(6)?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(specs)
}

/// Joins overlapping ranges; leaves the order the client chose if there are none.
fn joined(ranges: Vec<Range<u64>>) -> Option<Vec<Range<u64>>> {
    let mut sorted = ranges.clone();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut out: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    let mut overlaps = 0;
    for range in sorted {
        match out.last_mut() {
            Some(last) if range.start < last.end => {
                overlaps += 1;
                last.end = last.end.max(range.end);
            }
            _ => out.push(range),
        }
    }
    match overlaps {
        0 => Some(ranges),
        1 | 2 => Some(out),
        _ => None,
    }
}

/// One member of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// From a first to a last position, both included.
    Bytes(u64, u64),
    /// So many last bytes.
    Suffix(u64),
}

impl Spec {
    fn read(spec: &[u8]) -> Option<Self> {
        let dash = spec.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (&spec[..dash], &spec[dash + 1..]);
        if first.is_empty() {
            return Some(Self::Suffix(position(last)?));
        }
        let first = position(first)?;
        let last = if last.is_empty() { u64::MAX } else { position(last)? };
        (first <= last).then_some(Self::Bytes(first, last))
    }

    /// The part of it that lies in a body of `len` bytes.
    fn within(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Bytes(first, last) => first..last.saturating_add(1).min(len),
            Self::Suffix(count) => len.saturating_sub(count)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits alone; a number that is too large is the largest.
fn position(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add =
        |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add))
}

#[cfg(test)]
mod tests;
