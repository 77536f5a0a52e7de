//! Where requests wait for a place on a node, in the order they came.

use tokio::time::Instant;

use crate::primitives::{AtomicUsize, Notify, Semaphore, SeqCst, fence, timeout_at};

/// Requests that wait for the same kind of place. Apart, so that one that waits for the primary is in
/// the way of none that any replica could serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For the primary.
    Primary,
    /// For any replica.
    Replica,
    /// For a later primary than the one that is known; not for all the same one.
    LaterPrimary,
    /// For some replicas only: that meet the session's needs, or have not failed the read yet. What one
    /// cannot use another one can.
    Particular,
}

impl Kind {
    /// As many as try when something is freed. Of those who want the same, the first one is enough;
    /// of those who do not, each could be in the way of all. Not all of them: it is what the end
    /// of a request costs while they wait.
    fn heads(self) -> usize {
        match self {
            Self::Primary | Self::Replica => 1,
            Self::LaterPrimary | Self::Particular => 16,
        }
    }
}

/// One queue for each kind.
#[derive(Debug)]
pub(crate) struct Gate {
    /// In all queues; the one thing that the end of a request looks at.
    waiting: AtomicUsize,
    queues: [Queue; 4],
}

/// Only the one at the head, or the few there, try again when something is freed; the others queue, in
/// order, for becoming the head. When a head leaves, with a place or without, the next one tries at
/// once.
#[derive(Debug)]
struct Queue {
    waiting: AtomicUsize,
    head: Semaphore,
    freed: Notify,
}

impl Default for Gate {
    fn default() -> Self {
        let queue = |kind: Kind| Queue {
            waiting: AtomicUsize::new(0),
            head: Semaphore::new(kind.heads()),
            freed: Notify::new(),
        };
        let queues =
            [Kind::Primary, Kind::Replica, Kind::LaterPrimary, Kind::Particular].map(queue);
        Self { waiting: AtomicUsize::new(0), queues }
    }
}

/// What came of a try to get a place.
pub(crate) enum Attempt<T> {
    Done(T),
    /// To be made again when something is freed, or at that time.
    Failed {
        again: Option<Instant>,
    },
}

/// A place in a queue, given up when dropped.
struct Ticket<'a> {
    gate: &'a Gate,
    queue: &'a Queue,
}

impl Gate {
    /// Something was freed, or may have been. After the change that frees it, which must be
    /// sequentially consistent: then either this sees the waiter, or the waiter sees the change.
    #[inline]
    pub(crate) fn freed(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        for queue in &self.queues {
            queue.freed.notify_waiters();
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Whether somebody waits whom a newcomer of this kind must not overtake. One that wants something
    /// particular may: nobody can tell whether those before it want the same.
    #[inline]
    pub(crate) fn has_queue(&self, kind: Kind) -> bool {
        kind != Kind::Particular && self.queues[kind as usize].waiting.load(SeqCst) > 0
    }

    /// Calls `attempt` when it is this one's turn and again whenever something is freed, or when it
    /// says, until it has a result. `None` at the deadline, or if as many wait as may.
    ///
    /// Dropping the future gives up the place; nothing that was freed is lost by it.
    pub(crate) async fn wait<T>(
        &self,
        kind: Kind,
        most: usize,
        deadline: Instant,
        mut attempt: impl FnMut() -> Attempt<T>,
    ) -> Option<T> {
        let queue = &self.queues[kind as usize];
        let _ticket = self.enter(queue, most)?;
        let turn = async {
            // Never closed. Without a permit there would be no order, which harms nobody.
            let _head = queue.head.acquire().await;
            loop {
                // Before the attempt: it hears of what is freed from now on, although it is not polled.
                let freed = queue.freed.notified();
                // Pairs with `freed`: the ticket is visible before the attempt looks.
                fence(SeqCst);
                match attempt() {
                    Attempt::Done(result) => return result,
                    Attempt::Failed { again: None } => freed.await,
                    Attempt::Failed { again: Some(at) } => {
                        let _freed_or_not = timeout_at(at, freed).await;
                    }
                }
            }
        };
        timeout_at(deadline, turn).await.ok()
    }

    fn enter<'a>(&'a self, queue: &'a Queue, most: usize) -> Option<Ticket<'a>> {
        let one_more = |waiting: usize| (waiting < most).then(|| waiting + 1);
        self.waiting.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        queue.waiting.fetch_add(1, SeqCst);
        Some(Ticket { gate: self, queue })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, SeqCst);
        self.gate.waiting.fetch_sub(1, SeqCst);
    }
}
