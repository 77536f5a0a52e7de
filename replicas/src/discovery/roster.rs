//! What an answer changes: a pure state machine.

use std::collections::BTreeMap;

/// Who was found, and how often each was missed since.
#[derive(Debug)]
pub(super) struct Roster<A> {
    known: BTreeMap<String, Entry<A>>,
}

#[derive(Debug)]
struct Entry<A> {
    address: A,
    missed: u32,
}

/// What to do about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    Add(String),
    /// The name stands for something else now: the old node goes as the new one comes.
    Replace(String),
    Remove(String),
}

impl<A: Clone + Eq> Roster<A> {
    pub(super) fn new() -> Self {
        Self { known: BTreeMap::new() }
    }

    /// What an answer asks for. Nothing is known to be done before [`Self::done`] says so.
    pub(super) fn compare(
        &mut self,
        found: &BTreeMap<String, A>,
        missing_answers: u32,
    ) -> Vec<Task> {
        let mut tasks = Vec::new();
        for (name, entry) in &mut self.known {
            if found.contains_key(name) {
                entry.missed = 0;
                continue;
            }
            entry.missed = entry.missed.saturating_add(1);
            if entry.missed >= missing_answers {
                tasks.push(Task::Remove(name.clone()));
            }
        }
        // Who goes makes room first.
        for (name, address) in found {
            match self.known.get(name) {
                None => tasks.push(Task::Add(name.clone())),
                Some(entry) if entry.address != *address => {
                    tasks.push(Task::Replace(name.clone()));
                }
                Some(_) => {}
            }
        }
        tasks
    }

    /// The set has done it.
    pub(super) fn done(&mut self, task: &Task, found: &BTreeMap<String, A>) {
        match task {
            Task::Add(name) | Task::Replace(name) => {
                if let Some(address) = found.get(name) {
                    let entry = Entry { address: address.clone(), missed: 0 };
                    self.known.insert(name.clone(), entry);
                }
            }
            Task::Remove(name) => drop(self.known.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests;
