//! The connection to Redis: made when somebody asks, shared by all who ask, made anew when it is
//! lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Commands that may wait to be written. The client's 50 make callers wait for room at a hundred
/// at once.
const PIPELINE: usize = 1024;

/// One pipelined connection for all callers.
///
/// `redis::aio::ConnectionManager` does not do: it keeps for good what is not an I/O error (a
/// password refused once), a server that has become a replica, and a way that swallows every byte.
pub(super) struct Link {
    client: Client,
    patience: Duration,
    state: watch::Sender<State>,
    pace: Mutex<Pace>,
    opened: AtomicU64,
}

#[derive(Clone)]
enum State {
    /// Nobody has asked yet, or the connection that answered has been lost.
    Idle,
    /// Being opened: worth waiting for.
    Opening,
    Open {
        session: u64,
        connection: MultiplexedConnection,
    },
    /// An attempt has failed; no other is made before then.
    Away {
        until: Instant,
        error: RedisError,
    },
}

/// What the present connection, and the attempts before it, were worth.
#[derive(Default)]
struct Pace {
    /// Attempts since a server last answered.
    attempts: u32,
    /// The first question in a row without an answer was given up then.
    silent_since: Option<Instant>,
}

impl Link {
    /// `patience`: longest wait for a connection, and longest silence before it is given up.
    pub(super) fn new(client: Client, patience: Duration) -> Self {
        Self {
            client,
            patience,
            state: watch::Sender::new(State::Idle),
            pace: Mutex::default(),
            opened: AtomicU64::new(0),
        }
    }

    /// Connections that have been opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Asks Redis. A connection that turns out to be lost is made anew once: what was written to
    /// it may have been done, so a question must bear to be asked twice. Others go through
    /// [`ask_once`](Self::ask_once).
    pub(super) async fn ask<T: FromRedisValue>(
        self: &Arc<Self>,
        question: &Cmd,
    ) -> Result<T, RedisError> {
        // One that never answered is not worth a second attempt.
        let proven = self.pace.lock().attempts == 0;
        match self.ask_once(question).await {
            Err(error) if error.is_unrecoverable_error() && proven => self.ask_once(question).await,
            answer => answer,
        }
    }

    /// Asks Redis, and leaves open whether it was done if the connection turns out to be lost.
    pub(super) async fn ask_once<T: FromRedisValue>(
        self: &Arc<Self>,
        question: &Cmd,
    ) -> Result<T, RedisError> {
        let (session, mut connection) = self.connection().await?;
        let answer = question.query_async(&mut connection).await;
        match &answer {
            // A server that writes no more is one that another has replaced.
            Err(error)
                if error.is_unrecoverable_error()
                    || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) =>
            {
                self.lose(session, error);
            }
            _ => self.answered(),
        }
        answer
    }

    async fn connection(self: &Arc<Self>) -> Result<(u64, MultiplexedConnection), RedisError> {
        let mut states = self.state.subscribe();
        loop {
            match &*states.borrow_and_update() {
                State::Open { session, connection } => return Ok((*session, connection.clone())),
                State::Away { until, error } if *until > Instant::now() => {
                    return Err(error.clone());
                }
                State::Opening | State::Idle | State::Away { .. } => {}
            }
            self.begin();
            // It cannot be closed: we hold the sender.
            states.changed().await.map_err(|_| closed())?;
        }
    }

    /// Starts an attempt in the background, unless one is under way: the caller may go first.
    fn begin(self: &Arc<Self>) {
        let due = |state: &mut State| {
            let due = match state {
                State::Idle => true,
                State::Away { until, .. } => *until <= Instant::now(),
                State::Opening | State::Open { .. } => false,
            };
            if due {
                *state = State::Opening;
            }
            due
        };
        if self.state.send_if_modified(due) {
            let attempt = Attempt { link: Arc::clone(self), done: false };
            tokio::spawn(attempt.run());
        }
    }

    /// Gives this session up, if it is still in use.
    fn lose(&self, session: u64, error: &RedisError) {
        let next = self.pace.lock().lost(error);
        self.state.send_if_modified(|state| {
            let current = matches!(state, State::Open { session: now, .. } if *now == session);
            if current {
                *state = next;
            }
            current
        });
    }

    fn answered(&self) {
        let mut pace = self.pace.lock();
        pace.attempts = 0;
        pace.silent_since = None;
    }

    /// A question was given up for want of an answer. The connection is given up too if none has
    /// come since the first such question, for a while.
    pub(super) fn unanswered(&self) {
        let session = match &*self.state.borrow() {
            State::Open { session, .. } => *session,
            _ => return,
        };
        let now = Instant::now();
        let since = *self.pace.lock().silent_since.get_or_insert(now);
        if now.duration_since(since) >= self.patience {
            self.lose(session, &timed_out());
        }
    }
}

impl Pace {
    const FIRST: Duration = Duration::from_millis(50);
    /// A server that is back should not wait longer for its clients.
    const LONGEST: Duration = Duration::from_secs(1);

    /// What follows a session that was lost: an attempt at once if it had answered.
    fn lost(&mut self, error: &RedisError) -> State {
        self.silent_since = None;
        match self.delay(fastrand::f64()) {
            Duration::ZERO => State::Idle,
            delay => State::Away { until: Instant::now() + delay, error: error.clone() },
        }
    }

    /// The wait before the next attempt: doubled with each, half of it at random, so that many
    /// processes do not come at once. `chance` is from 0 to 1.
    fn delay(&self, chance: f64) -> Duration {
        let Some(doublings) = self.attempts.checked_sub(1) else { return Duration::ZERO };
        let full = Self::FIRST.saturating_mul(1 << doublings.min(10)).min(Self::LONGEST);
        full.mul_f64(0.5 + chance / 2.0)
    }
}

/// An attempt to open the connection, which always leaves a state that others can go on from.
struct Attempt {
    link: Arc<Link>,
    done: bool,
}

impl Attempt {
    async fn run(mut self) {
        self.link.pace.lock().attempts += 1;
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.link.patience))
            // The one timeout is the caller's, around everything.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        let client = self.link.client.clone();
        let open = client.get_multiplexed_async_connection_with_config(&settings);
        let opened = tokio::time::timeout(self.link.patience, open).await;
        self.done = true;
        let state = match opened.unwrap_or_else(|_| Err(timed_out())) {
            Ok(connection) => {
                self.link.pace.lock().silent_since = None;
                let session = self.link.opened.fetch_add(1, Ordering::Relaxed) + 1;
                State::Open { session, connection }
            }
            Err(error) => self.link.pace.lock().lost(&error),
        };
        self.link.state.send_replace(state);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // The runtime that it ran on has ended; the next question may come from another one.
        if !self.done {
            self.link.state.send_replace(State::Idle);
        }
    }
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

fn closed() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::NotConnected).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_and_half_of_each_is_chance() {
        let mut pace = Pace::default();
        let mut waits = Vec::new();
        for _ in 0..7 {
            waits.push(pace.delay(1.0).as_millis());
            pace.attempts += 1;
        }
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1_000]);
        assert_eq!(pace.delay(0.0), Duration::from_millis(500));
        pace.attempts = u32::MAX;
        assert_eq!(pace.delay(1.0), Duration::from_secs(1));
    }
}
