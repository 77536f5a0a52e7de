//! The connection for messages: one for all subscriptions of a store.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{PushInfo, RedisError};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Inner;
use super::backoff::Backoff;
use super::connector::{Connector, SignOfLife};
use super::hub::Hub;

/// Keeps a connection for as long as anybody subscribes. It holds the store, whose writing
/// connection the tracking subscribers need.
pub(super) async fn run(inner: Arc<Inner>, mut connector: Connector) {
    let hub = &inner.hub;
    let mut backoff = Backoff::default();
    while !hub.retires() {
        sleep(backoff.delay(fastrand::f64())).await;
        let session = hub.begin_feed();
        let listener = Arc::downgrade(hub);
        let pushes =
            move |push: PushInfo| listener.upgrade().map(|hub| hub.fed(session, push)).ok_or(());
        backoff.failed();
        if let Ok(Ok(shares)) = timeout(connector.limit(), inner.server.shares()).await {
            connector.learn(shares);
        }
        if let Ok(connection) = connector.open(pushes).await {
            let feed = Feed {
                hub,
                session,
                connection,
                sign: connector.sign_of_life(),
                keepalive: inner.config.keepalive,
                limit: connector.limit(),
            };
            feed.attend(&mut backoff).await;
        }
        // Whatever has ended it, nobody may believe in it any more.
        hub.begin_feed();
    }
}

struct Feed<'a> {
    hub: &'a Arc<Hub>,
    session: u64,
    connection: MultiplexedConnection,
    sign: SignOfLife,
    keepalive: Duration,
    limit: Duration,
}

impl Feed<'_> {
    /// Subscribes to what is wanted, until the connection is lost or nobody wants anything.
    async fn attend(mut self, backoff: &mut Backoff) {
        let mut asked = HashSet::new();
        let mut next = Instant::now() + self.keepalive;
        while self.hub.is_fed_by(self.session) {
            let wanted = self.hub.wanted();
            if wanted.is_empty() {
                return;
            }
            let changed = timeout(self.limit, change(&mut self.connection, &asked, &wanted));
            if !matches!(changed.await, Ok(Ok(()))) {
                return;
            }
            asked = wanted;
            if timeout_at(next, self.hub.changed.notified()).await.is_ok() {
                continue;
            }
            next = Instant::now() + self.keepalive;
            if !self.sign.shown_by(&mut self.connection, self.limit).await {
                return;
            }
            // One that breaks before the first sign of life counts as a failed attempt.
            backoff.reset();
        }
    }
}

async fn change(
    connection: &mut MultiplexedConnection,
    asked: &HashSet<String>,
    wanted: &HashSet<String>,
) -> Result<(), RedisError> {
    let more: Vec<&String> = wanted.difference(asked).collect();
    if !more.is_empty() {
        connection.subscribe(more).await?;
    }
    let less: Vec<&String> = asked.difference(wanted).collect();
    if !less.is_empty() {
        connection.unsubscribe(less).await?;
    }
    Ok(())
}
