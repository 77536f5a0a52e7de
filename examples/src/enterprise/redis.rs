//! Redis as the caches' second layer, behind the server's breaker.

use std::time::Duration;

use escala_cache::{
    ConnectError, Pattern, RedisConfig, RedisStats, RedisStore, SharedStore, Signal, StoreError,
    StoreFuture, When,
};
use escala_cluster::{Breaker, State};
use tokio::sync::mpsc;

/// The store, each of whose operations passes the breaker. Clones share both.
#[derive(Clone, Debug)]
pub struct Redis {
    store: RedisStore,
    breaker: Breaker,
}

impl Redis {
    /// Connects. The store's own breaker is put out of the way: two would only hide each other's
    /// failures.
    pub(super) async fn connect(url: &str, breaker: &Breaker) -> Result<Self, ConnectError> {
        let store = RedisStore::connect(RedisConfig::new(url).failures(u32::MAX)).await?;
        Ok(Self { store, breaker: breaker.clone() })
    }

    /// What the connection has done.
    #[must_use]
    pub fn stats(&self) -> RedisStats {
        self.store.stats()
    }

    /// Whether it is not asked at present. Once its time is over it may be well again: only a call
    /// can tell.
    #[must_use]
    pub fn is_left_alone(&self) -> bool {
        matches!(self.breaker.state(), State::Open | State::ForcedOpen)
    }

    fn guarded<'a, T: Send + 'a>(&'a self, operation: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            // Suspended, as the store says it itself: the caches know what to do without it.
            let permit = self.breaker.admit().map_err(|_| StoreError::Suspended)?;
            let result = operation.await;
            match &result {
                Ok(_) => permit.succeeded(),
                Err(_) => permit.failed(),
            }
            result
        })
    }
}

impl SharedStore for Redis {
    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Option<Vec<u8>>>> {
        self.guarded(self.store.get_many(keys))
    }

    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl: Option<Duration>,
        when: When,
    ) -> StoreFuture<'a, bool> {
        self.guarded(self.store.set(key, value, ttl, when))
    }

    fn remove<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        self.guarded(self.store.remove(keys))
    }

    fn remove_matching<'a>(&'a self, prefix: &'a str, pattern: &'a Pattern) -> StoreFuture<'a, ()> {
        self.guarded(self.store.remove_matching(prefix, pattern))
    }

    fn publish<'a>(&'a self, channel: &'a str, body: Vec<u8>) -> StoreFuture<'a, u64> {
        self.guarded(self.store.publish(channel, body))
    }

    fn sequence<'a>(&'a self, channel: &'a str) -> StoreFuture<'a, u64> {
        self.guarded(self.store.sequence(channel))
    }

    /// Past the breaker: a subscription is no operation, and is made anew by itself.
    fn subscribe(&self, channel: &str, tracked: Option<&str>) -> mpsc::Receiver<Signal> {
        self.store.subscribe(channel, tracked)
    }
}
