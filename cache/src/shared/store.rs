//! What a store must do to be a shared layer.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::error::StoreError;
use crate::glob::Pattern;

/// The future of one store operation.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store of bytes that several processes share.
///
/// The cache checks what it reads, so a store may lose, keep or garble anything. What it must do
/// is **answer within a bounded time**, failure included: a load waits for
/// [`get_many`](Self::get_many), a removal for each of its operations. The keys it is given tell
/// caches apart; what tells applications apart (a namespace) is the store's own.
pub trait SharedStore: Send + Sync + 'static {
    /// The bytes under each key, in the order of the keys, in one round trip.
    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Option<Vec<u8>>>>;

    /// Puts bytes under `key` for `ttl` (for good with `None`) if `when` holds at that moment,
    /// and says whether it did. Check and write are one step for every process.
    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl: Option<Duration>,
        when: When,
    ) -> StoreFuture<'a, bool>;

    /// Removes the keys that are there.
    fn remove<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()>;

    /// Removes every key that is `prefix`, taken literally, and then a text that matches.
    fn remove_matching<'a>(&'a self, prefix: &'a str, pattern: &'a Pattern) -> StoreFuture<'a, ()>;

    /// Sends `body` to every subscriber of `channel` and numbers it: one more than the number
    /// before it on this channel, whoever published that.
    fn publish<'a>(&'a self, channel: &'a str, body: Vec<u8>) -> StoreFuture<'a, u64>;

    /// The number of the last message on `channel`; zero before the first.
    fn sequence<'a>(&'a self, channel: &'a str) -> StoreFuture<'a, u64>;

    /// Subscribes to `channel`, for as long as the receiver lives. The subscription is made anew
    /// by itself whenever it is lost. With `tracked`, the receiver also learns of every change
    /// that others make to a key with that prefix, if the store can tell.
    ///
    /// The receiver is bounded. A store that finds it full says [`Signal::Down`] when there is
    /// room again, and never silently skips a message.
    fn subscribe(&self, channel: &str, tracked: Option<&str>) -> mpsc::Receiver<Signal>;
}

/// When a write takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// Whatever stands there.
    Always,
    /// Only if nothing stands there.
    Absent,
    /// Only if what stands there begins with these bytes.
    StartsWith(Vec<u8>),
}

/// What a subscriber learns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// The subscription stands. Messages from here on arrive, or [`Down`](Self::Down) does.
    Up,
    /// A message. May come twice, late, or out of order; the number tells.
    Message {
        /// Its number on the channel.
        sequence: u64,
        /// What was published.
        body: Vec<u8>,
    },
    /// Somebody else changed or removed the value under a tracked key, or its time was over.
    Changed {
        /// The key, as the cache named it.
        key: String,
    },
    /// Everything in the store was removed.
    Flushed,
    /// The subscription is lost: messages may have been missed. [`Up`](Self::Up) follows when
    /// it stands again.
    Down,
}
