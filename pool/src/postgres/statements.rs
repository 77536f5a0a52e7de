//! What is kept for the texts of statements: bounded, least recently used out first.

use std::collections::HashMap;

/// Values by the text of their statement. Finding the oldest walks the whole map, which happens only when a
/// statement is prepared into a full cache: two round trips cost a thousand times as much.
#[derive(Debug)]
pub(super) struct Cache<V> {
    capacity: usize,
    uses: u64,
    entries: HashMap<Box<str>, (u64, V)>,
}

impl<V: Clone> Cache<V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, uses: 0, entries: HashMap::new() }
    }

    pub(super) fn get(&mut self, sql: &str) -> Option<V> {
        self.uses += 1;
        let (used, value) = self.entries.get_mut(sql)?;
        *used = self.uses;
        Some(value.clone())
    }

    pub(super) fn insert(&mut self, sql: &str, value: V) {
        self.uses += 1;
        if self.entries.len() >= self.capacity && !self.entries.contains_key(sql) {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(sql, _)| sql.clone()) {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(sql.into(), (self.uses, value));
    }

    pub(super) fn remove(&mut self, sql: &str) {
        self.entries.remove(sql);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_statement_leaves_first() {
        let mut statements = Cache::new(2);
        statements.insert("a", 1);
        statements.insert("b", 2);
        assert_eq!(statements.get("a"), Some(1));
        statements.insert("c", 3);
        assert_eq!(statements.get("b"), None);
        assert_eq!((statements.get("a"), statements.get("c")), (Some(1), Some(3)));
    }

    #[test]
    fn a_statement_prepared_again_replaces_itself_only() {
        let mut statements = Cache::new(2);
        statements.insert("a", 1);
        statements.insert("b", 2);
        statements.insert("b", 3);
        assert_eq!((statements.get("a"), statements.get("b")), (Some(1), Some(3)));
        statements.remove("b");
        assert_eq!(statements.get("b"), None);
    }
}
