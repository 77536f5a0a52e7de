//! Changes that could not reach the store, until they have.

use std::collections::HashSet;

use crate::change::Change;
use crate::glob::Pattern;

/// More than this many are one [`Change::Clear`]: bounded in memory and in the time of a replay.
const MAX: usize = 10_000;

/// More patterns than this are a clear as well, since each is a walk over the whole store.
const MAX_PATTERNS: usize = 16;

/// A set of changes: each once, however often it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    everything: bool,
    removed_keys: HashSet<String>,
    expired_keys: HashSet<String>,
    removed_tags: HashSet<u64>,
    expired_tags: HashSet<u64>,
    patterns: Vec<Pattern>,
}

impl Pending {
    pub(crate) fn add(&mut self, change: Change) {
        if self.everything {
            return;
        }
        match change {
            Change::RemoveKey(text) => drop(self.removed_keys.insert(text)),
            Change::ExpireKey(text) => drop(self.expired_keys.insert(text)),
            Change::RemoveTag(tag) => drop(self.removed_tags.insert(tag)),
            Change::ExpireTag(tag) => drop(self.expired_tags.insert(tag)),
            Change::RemoveMatching(pattern) if !self.patterns.contains(&pattern) => {
                self.patterns.push(pattern);
            }
            Change::RemoveMatching(_) => {}
            Change::Clear => self.everything = true,
        }
        if self.everything || self.len() > MAX || self.patterns.len() > MAX_PATTERNS {
            *self = Self { everything: true, ..Self::default() };
        }
    }

    /// Takes all of them out. Order does not matter: each only takes away.
    pub(crate) fn take(&mut self) -> Vec<Change> {
        let Self { everything, removed_keys, expired_keys, removed_tags, expired_tags, patterns } =
            std::mem::take(self);
        let mut changes: Vec<_> = everything.then_some(Change::Clear).into_iter().collect();
        changes.extend(removed_keys.into_iter().map(Change::RemoveKey));
        changes.extend(expired_keys.into_iter().map(Change::ExpireKey));
        changes.extend(removed_tags.into_iter().map(Change::RemoveTag));
        changes.extend(expired_tags.into_iter().map(Change::ExpireTag));
        changes.extend(patterns.into_iter().map(Change::RemoveMatching));
        changes
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.everything)
            + self.removed_keys.len()
            + self.expired_keys.len()
            + self.removed_tags.len()
            + self.expired_tags.len()
            + self.patterns.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_kept_once_and_taken_once() {
        let mut pending = Pending::default();
        assert!(pending.is_empty());
        let changes = [
            Change::RemoveKey("a".to_owned()),
            Change::ExpireKey("a".to_owned()),
            Change::RemoveTag(1),
            Change::ExpireTag(1),
            Change::RemoveMatching(Pattern::new("a*")),
        ];
        for change in changes.iter().chain(&changes) {
            pending.add(change.clone());
        }
        assert_eq!(pending.take(), changes);
        assert!(pending.is_empty());
    }

    #[test]
    fn too_many_become_one() {
        let mut pending = Pending::default();
        for key in 0..=MAX {
            pending.add(Change::RemoveKey(key.to_string()));
        }
        assert_eq!(pending.take(), [Change::Clear]);
        for pattern in 0..=MAX_PATTERNS {
            pending.add(Change::RemoveMatching(Pattern::new(&pattern.to_string())));
        }
        pending.add(Change::RemoveTag(1));
        assert_eq!(pending.take(), [Change::Clear]);
    }
}
