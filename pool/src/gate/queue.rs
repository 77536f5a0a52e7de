//! Callers who wait, in the order they came.

use std::collections::VecDeque;

use super::primitives::oneshot;

/// Identifiers ascend in the order of the queue and are never used twice: from here on to the back,
/// and below to the front.
const FIRST: u64 = 1 << 63;

/// Callers in the order they came.
#[derive(Debug)]
pub(super) struct Queue<T> {
    next_back: u64,
    next_front: u64,
    waiting: VecDeque<(u64, oneshot::Sender<T>)>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { next_back: FIRST, next_front: FIRST - 1, waiting: VecDeque::new() }
    }

    pub(super) fn push(&mut self) -> (u64, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        let id = self.next_back;
        self.next_back += 1;
        self.waiting.push_back((id, sender));
        (id, receiver)
    }

    /// For who waited before, and waits again.
    pub(super) fn push_front(&mut self) -> (u64, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        let id = self.next_front;
        self.next_front -= 1;
        self.waiting.push_front((id, sender));
        (id, receiver)
    }

    pub(super) fn pop(&mut self) -> Option<oneshot::Sender<T>> {
        self.waiting.pop_front().map(|(_, sender)| sender)
    }

    pub(super) fn take(&mut self) -> Vec<oneshot::Sender<T>> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, sender)| sender).collect()
    }

    /// The identifiers ascend, so it is found by halving. What is returned is to be dropped outside
    /// the lock, since that wakes who has just left.
    pub(super) fn remove(&mut self, id: u64) -> Option<oneshot::Sender<T>> {
        let index = self.waiting.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.waiting.remove(index).map(|(_, sender)| sender)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
