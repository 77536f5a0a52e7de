//! What is known of a connection without asking the server.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The transaction that a session is in, as the server says with each `ReadyForQuery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TransactionStatus {
    /// None.
    #[default]
    Idle,
    /// One that is open.
    Active,
    /// One that failed: everything but its end is refused.
    Failed,
}

/// One look at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// Requests that are sent and not answered.
    pub(crate) outstanding: u32,
    pub(crate) status: TransactionStatus,
    /// A COPY from the client has begun and is not over.
    pub(crate) copying: bool,
    /// The server waits for data of a COPY that the driver cannot send.
    pub(crate) stuck: bool,
    /// A COPY failed in a way that leaves open whether one more answer comes. The next answer to
    /// a query tells.
    pub(crate) doubtful: bool,
    /// Driver and server do not agree which answer belongs to which request.
    pub(crate) lost: bool,
    /// The stream is gone.
    pub(crate) closed: bool,
    /// As the server reported last; `None` before PostgreSQL 14.
    pub(crate) in_hot_standby: Option<bool>,
    /// As the server reported last; `None` before PostgreSQL 14.
    pub(crate) default_read_only: Option<bool>,
}

impl State {
    /// Whether the server works, or the connection waits for its client in a COPY.
    pub(crate) fn is_busy(&self) -> bool {
        self.outstanding > 0 || self.copying
    }

    /// One word, so that readers see all of it as it was at one moment.
    fn pack(self) -> u64 {
        let status = match self.status {
            TransactionStatus::Idle => 0,
            TransactionStatus::Active => 1,
            TransactionStatus::Failed => 2,
        };
        let flags = [self.copying, self.stuck, self.doubtful, self.lost, self.closed];
        let flags = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u64::from(*flag));
        let answers = ternary(self.in_hot_standby) << 2 | ternary(self.default_read_only);
        u64::from(self.outstanding) | status << 32 | flags << 34 | answers << 40
    }

    fn unpack(word: u64) -> Self {
        let flag = |bit: u32| word >> bit & 1 == 1;
        Self {
            outstanding: word as u32,
            status: match word >> 32 & 3 {
                0 => TransactionStatus::Idle,
                1 => TransactionStatus::Active,
                _ => TransactionStatus::Failed,
            },
            copying: flag(34),
            stuck: flag(35),
            doubtful: flag(36),
            lost: flag(37),
            closed: flag(38),
            in_hot_standby: answer(word >> 42),
            default_read_only: answer(word >> 40),
        }
    }
}

fn ternary(answer: Option<bool>) -> u64 {
    answer.map_or(0, |yes| 1 + u64::from(yes))
}

fn answer(bits: u64) -> Option<bool> {
    match bits & 3 {
        0 => None,
        bits => Some(bits == 2),
    }
}

/// The state of a connection, written by the tap around its stream and read by anybody, at any
/// time, without a round trip and without a lock.
///
/// It knows what passed the stream. A request that was handed to the driver and not written yet is
/// not among that: who drops the future of a call must remember it.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    state: AtomicU64,
    answered: AtomicU64,
    backend: OnceLock<i32>,
    /// Tasks in [`answered_all`](Self::answered_all), so that the tap wakes nobody for nothing.
    waiting: AtomicUsize,
    changed: Notify,
}

impl Wire {
    /// All that is known, as of one moment.
    pub(crate) fn state(&self) -> State {
        State::unpack(self.state.load(Ordering::SeqCst))
    }

    /// Whether a request is sent and not answered, or a COPY is not over.
    pub(crate) fn is_busy(&self) -> bool {
        self.state().is_busy()
    }

    /// The transaction as of the last answer.
    pub(crate) fn transaction(&self) -> TransactionStatus {
        self.state().status
    }

    /// Requests answered so far, the handshake included.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// The id of the process that serves the connection, as far as it can be believed: a pooler in
    /// between makes up its own.
    pub(crate) fn backend(&self) -> Option<i32> {
        self.backend.get().copied()
    }

    /// Returns when the server owes no answer, or the stream is gone. In a COPY that waits for
    /// its client the server owes none.
    pub(crate) async fn answered_all(&self) {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look, so that an answer in between is not missed.
            changed.as_mut().enable();
            let state = self.state();
            if state.outstanding == 0 || state.closed {
                return;
            }
            changed.await;
        }
    }

    /// Only the tap calls this, so nobody else stores in between.
    pub(super) fn publish(&self, state: State, answered: u64, backend: Option<i32>) {
        let word = state.pack();
        if word == self.state.load(Ordering::Relaxed)
            && answered == self.answered.load(Ordering::Relaxed)
        {
            return;
        }
        if let Some(backend) = backend {
            // Told once, before the first answer.
            let _ = self.backend.set(backend);
        }
        self.answered.store(answered, Ordering::SeqCst);
        self.store(word);
    }

    /// The stream is gone.
    pub(super) fn close(&self) {
        self.store(State { closed: true, ..self.state() }.pack());
    }

    fn store(&self, word: u64) {
        // Sequentially consistent, as is the count of those who wait: either they see this, or
        // they are seen here.
        self.state.store(word, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }
}

/// Counts one task that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_state_survives_its_word(
            outstanding in any::<u32>(),
            status in prop_oneof![
                Just(TransactionStatus::Idle),
                Just(TransactionStatus::Active),
                Just(TransactionStatus::Failed),
            ],
            (copying, stuck, doubtful, lost, closed) in any::<(bool, bool, bool, bool, bool)>(),
            (in_hot_standby, default_read_only) in any::<(Option<bool>, Option<bool>)>(),
        ) {
            let state = State {
                outstanding, status, copying, stuck, doubtful, lost, closed, in_hot_standby,
                default_read_only,
            };
            prop_assert_eq!(State::unpack(state.pack()), state);
        }
    }

    #[tokio::test]
    async fn who_waits_for_answers_is_woken_by_the_last_and_by_the_end() {
        let wire = Wire::default();
        let busy = State { outstanding: 2, ..State::default() };
        for last in [State::default(), State { closed: true, ..busy }] {
            wire.publish(busy, 0, None);
            let waited = wire.answered_all();
            let acted = async {
                wire.publish(State { outstanding: 1, ..busy }, 1, None);
                tokio::task::yield_now().await;
                assert_eq!(wire.waiting.load(Ordering::SeqCst), 1);
                wire.publish(last, 2, Some(7));
            };
            tokio::join!(waited, acted);
            assert_eq!((wire.waiting.load(Ordering::SeqCst), wire.answered()), (0, 2));
            assert_eq!(wire.backend(), Some(7));
        }
    }
}
