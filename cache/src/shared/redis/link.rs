//! The connection for everything but messages: always there, or being made anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError, ServerErrorKind};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::backoff::Backoff;
use super::connector::Connector;
use super::hub::Hub;

/// One connection, pipelined, for all callers.
pub(super) struct Link {
    state: watch::Sender<State>,
    /// The last session whose end the server, or the way to it, has shown.
    ended: AtomicU64,
    /// Wakes the task that keeps it.
    wake: Arc<Notify>,
}

#[derive(Clone)]
enum State {
    /// The first attempt to open it, or the first since it was lost: worth waiting for.
    Opening,
    Open {
        session: u64,
        connection: MultiplexedConnection,
    },
    /// An attempt has failed; the next will be made by itself.
    Away(RedisError),
}

impl Link {
    pub(super) fn new(hub: &Hub) -> Self {
        let wake = Arc::clone(&hub.tracking_changed);
        Self { state: watch::Sender::new(State::Opening), ended: AtomicU64::new(0), wake }
    }

    /// Waits for the first attempt.
    pub(super) async fn opened(&self) -> Result<(), RedisError> {
        self.connection().await.map(drop)
    }

    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let (session, mut connection) = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        if let Err(error) = &answer
            // A server that writes no more is one that another has replaced.
            && (error.is_unrecoverable_error()
                || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly))
        {
            self.lose(session);
        }
        answer
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        let now = self.state.borrow().clone();
        let now = match now {
            State::Opening => {
                let mut states = self.state.subscribe();
                let opened = states.wait_for(|state| !matches!(state, State::Opening)).await;
                // It cannot be closed: we hold the sender.
                opened.map_or(State::Opening, |state| state.clone())
            }
            known => known,
        };
        match now {
            State::Open { session, connection } => Ok((session, connection)),
            State::Away(error) => Err(error),
            State::Opening => Err(closed()),
        }
    }

    /// Gives this session up, if it is still in use.
    fn lose(&self, session: u64) {
        let lost = self.state.send_if_modified(|state| {
            let current = matches!(state, State::Open { session: now, .. } if *now == session);
            if current {
                *state = State::Opening;
            }
            current
        });
        if lost {
            self.wake.notify_one();
        }
    }

    fn is_open(&self, session: u64) -> bool {
        // It may have ended before it was shown to callers.
        let ended = self.ended.load(Ordering::Acquire) >= session;
        !ended
            && matches!(&*self.state.borrow(), State::Open { session: now, .. } if *now == session)
    }
}

/// Opens the link and keeps it, for good; whoever spawned this aborts it.
pub(super) async fn keep(
    link: Arc<Link>,
    hub: Arc<Hub>,
    mut connector: Connector,
    keepalive: Duration,
) {
    let mut backoff = Backoff::default();
    for session in 1.. {
        sleep(backoff.delay(fastrand::f64())).await;
        backoff.failed();
        hub.begin_link(session);
        let opened = open(&link, &hub, &mut connector, session).await;
        let mut keeper = match opened {
            Ok(connection) => {
                let (link, hub) = (&*link, &hub);
                Keeper { link, hub, connection, session, tracked: Vec::new() }
            }
            Err(error) => {
                link.state.send_replace(State::Away(error));
                continue;
            }
        };
        keeper.attend(&connector, keepalive, &mut backoff).await;
        link.lose(session);
        hub.begin_link(session);
    }
}

async fn open(
    link: &Arc<Link>,
    hub: &Arc<Hub>,
    connector: &mut Connector,
    session: u64,
) -> Result<MultiplexedConnection, RedisError> {
    // Weak, since the link holds the connection, whose task holds this.
    let (link, hub) = (Arc::downgrade(link), Arc::downgrade(hub));
    let pushes = move |push: PushInfo| {
        let (Some(link), Some(hub)) = (link.upgrade(), hub.upgrade()) else { return Err(()) };
        match push.kind {
            PushKind::Invalidate => hub.invalidated(session, &push),
            PushKind::Disconnection => {
                hub.begin_link(session);
                link.ended.fetch_max(session, Ordering::AcqRel);
                link.lose(session);
            }
            _ => {}
        }
        Ok(())
    };
    connector.open(pushes).await
}

struct Keeper<'a> {
    link: &'a Link,
    hub: &'a Arc<Hub>,
    connection: MultiplexedConnection,
    session: u64,
    /// The prefixes that the server has been asked to track.
    tracked: Vec<String>,
}

impl Keeper<'_> {
    /// Shows the connection to callers and looks after it until it is lost.
    async fn attend(&mut self, connector: &Connector, keepalive: Duration, backoff: &mut Backoff) {
        let limit = connector.limit();
        // Before any caller writes by it, so that no own write is taken for another's.
        if !matches!(timeout(limit, self.track()).await, Ok(Ok(()))) {
            return;
        }
        let (session, connection) = (self.session, self.connection.clone());
        self.link.state.send_replace(State::Open { session, connection });
        let mut next = Instant::now() + keepalive;
        while self.link.is_open(session) {
            if timeout_at(next, self.link.wake.notified()).await.is_ok() {
                if !matches!(timeout(limit, self.track()).await, Ok(Ok(()))) {
                    return;
                }
                continue;
            }
            next = Instant::now() + keepalive;
            if !connector.sign_of_life().shown_by(&mut self.connection, limit).await {
                return;
            }
            // One that breaks before the first sign of life counts as a failed attempt.
            backoff.reset();
        }
    }

    /// Has the server track what subscribers want by now. One that refuses is no reason to give
    /// the connection up; those subscriptions just do not stand.
    async fn track(&mut self) -> Result<(), RedisError> {
        match self.try_track().await {
            Err(error) if !error.is_unrecoverable_error() => Ok(()),
            tracked => tracked,
        }
    }

    async fn try_track(&mut self) -> Result<(), RedisError> {
        let wanted = self.hub.prefixes();
        // Those nobody wants any more are kept, unless one begins with, or is the beginning of,
        // a new one: Redis refuses prefixes that overlap.
        let mut new: Vec<&String> = Vec::new();
        let mut overlap = false;
        for prefix in &wanted {
            if !self.tracked.iter().any(|old| prefix.starts_with(old.as_str())) {
                overlap |= self.tracked.iter().any(|old| old.starts_with(prefix.as_str()));
                new.push(prefix);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        if overlap {
            // What happens in between is missed, and said to be.
            self.hub.begin_link(self.session);
            let mut off = ::redis::cmd("CLIENT");
            off.arg("TRACKING").arg("OFF").exec_async(&mut self.connection).await?;
            self.tracked.clear();
            new = wanted.iter().collect();
        }
        let mut on = ::redis::cmd("CLIENT");
        on.arg("TRACKING").arg("ON").arg("BCAST").arg("NOLOOP");
        for prefix in &new {
            on.arg("PREFIX").arg(*prefix);
        }
        on.exec_async(&mut self.connection).await?;
        self.tracked.extend(new.into_iter().cloned());
        self.hub.tracks(self.session, self.tracked.clone());
        Ok(())
    }
}

fn closed() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::NotConnected).into()
}
