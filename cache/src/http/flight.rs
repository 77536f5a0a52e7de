//! Who asks the origin for which key, and who waits for them.
//!
//! Unlike the flights of the core cache these carry no value: they tell the followers what has
//! become of the leader's request as soon as the head of the answer is there, and stay joinable
//! until the body is stored. A purge detaches them: who comes after it asks anew.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

/// Enough that two misses seldom meet at one lock, few enough that a purge visits them quickly.
const SHARDS: usize = 32;

/// The flights of one cache; `T` is what a landed one tells its followers.
pub(crate) struct Flights<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
    hasher: RandomState,
    under_way: AtomicUsize,
}

type Shard<T> = HashMap<String, Arc<watch::Sender<News<T>>>, RandomState>;

/// What is known of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News<T> {
    /// The origin has not answered.
    Waiting,
    /// This may be shared.
    Shared(T),
    /// There is nothing to share: the answer is not cacheable, or there is none.
    Alone,
}

/// What a request with a miss has to do.
pub(crate) enum Join<T, H> {
    /// Nothing: the answer was stored meanwhile.
    Hit(H),
    /// Wait for another's.
    Follow(Follow<T>),
    /// Ask the origin.
    Lead(Lead<T>),
}

impl<T: Clone> Flights<T> {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        let shard = |_| Mutex::new(Shard::with_hasher(hasher.clone()));
        Self { shards: std::array::from_fn(shard), hasher, under_way: AtomicUsize::new(0) }
    }

    /// Joins the flight for `key` or starts one: also in the place of one that has landed with what
    /// the caller cannot use, by `suits`. `recheck` looks into memory once more, where no flight can
    /// land unseen.
    pub(crate) fn join<H>(
        self: &Arc<Self>,
        key: &str,
        suits: impl FnOnce(&T) -> bool,
        recheck: impl FnOnce() -> Option<H>,
    ) -> Join<T, H> {
        let mut shard = self.shard(key).lock();
        if let Some(flight) = shard.get(key) {
            let follow = Follow(flight.subscribe());
            let fits = match &*follow.0.borrow() {
                News::Shared(news) => suits(news),
                News::Waiting | News::Alone => true,
            };
            if fits {
                return Join::Follow(follow);
            }
        }
        if let Some(hit) = recheck() {
            return Join::Hit(hit);
        }
        let flight = Arc::new(watch::Sender::new(News::Waiting));
        shard.insert(key.to_owned(), Arc::clone(&flight));
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Join::Lead(Lead { flights: Arc::clone(self), key: key.to_owned(), flight })
    }

    /// Takes the flights whose key is `affected` off the map: who comes from now on joins none
    /// of them.
    pub(crate) fn detach(&self, affected: impl Fn(&str) -> bool) {
        for shard in &self.shards {
            shard.lock().retain(|key, _| !affected(key));
        }
    }

    /// Flights whose duty has not ended, detached ones too.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    fn shard(&self, key: &str) -> &Mutex<Shard<T>> {
        // The top bits: the map inside the shard uses the low ones.
        &self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS]
    }
}

/// The duty to ask. Dropped before it has landed, the followers learn that they are alone.
pub(crate) struct Lead<T> {
    flights: Arc<Flights<T>>,
    key: String,
    flight: Arc<watch::Sender<News<T>>>,
}

impl<T> Lead<T> {
    /// Tells the followers. They can join until this lead is detached or dropped.
    pub(crate) fn share(&self, news: T) {
        self.flight.send_replace(News::Shared(news));
    }

    /// Counts as one who waits, until it is dropped.
    pub(crate) fn attend(&self) -> Attendant<T> {
        Attendant(self.flight.subscribe())
    }

    /// Waits until nobody has waited for this flight for `limit`.
    pub(crate) fn unattended(&self, limit: Duration) -> impl Future<Output = ()> + use<T> {
        let flight = Arc::clone(&self.flight);
        async move {
            loop {
                flight.closed().await;
                sleep(limit).await;
                if flight.is_closed() {
                    return;
                }
            }
        }
    }

    /// Takes the flight off the map, if it is still this one's.
    pub(crate) fn detach(&self) {
        let at = (self.flights.hasher.hash_one(&*self.key) >> 32) as usize % SHARDS;
        let mut shard = self.flights.shards[at].lock();
        if shard.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            shard.remove(&self.key);
        }
    }
}

impl<T> Drop for Lead<T> {
    fn drop(&mut self) {
        self.detach();
        self.flight.send_if_modified(|news| {
            let waiting = matches!(news, News::Waiting);
            if waiting {
                *news = News::Alone;
            }
            waiting
        });
        self.flights.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One who waits for a flight by other means.
pub(crate) struct Attendant<T>(
    #[expect(dead_code, reason = "its drop is what counts")] watch::Receiver<News<T>>,
);

/// Where a follower waits.
pub(crate) struct Follow<T>(watch::Receiver<News<T>>);

impl<T: Clone> Follow<T> {
    /// What the flight brought; `None` if there is nothing to share.
    pub(crate) async fn news(mut self) -> Option<T> {
        match self.0.wait_for(|news| !matches!(news, News::Waiting)).await.as_deref() {
            Ok(News::Shared(news)) => Some(news.clone()),
            Ok(News::Waiting | News::Alone) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::timeout;

    use super::*;

    fn flights() -> Arc<Flights<u32>> {
        Arc::new(Flights::new())
    }

    fn lead(flights: &Arc<Flights<u32>>) -> Lead<u32> {
        match flights.join("key", |_| true, || None::<()>) {
            Join::Lead(lead) => lead,
            _ => panic!("there is one"),
        }
    }

    fn follow(flights: &Arc<Flights<u32>>) -> Follow<u32> {
        match flights.join("key", |_| true, || None::<()>) {
            Join::Follow(follow) => follow,
            _ => panic!("there is a flight"),
        }
    }

    #[tokio::test]
    async fn followers_hear_what_the_leader_brought() {
        let flights = flights();
        let lead = lead(&flights);
        let early = follow(&flights);
        lead.share(7);
        let late = follow(&flights);
        drop(lead);
        assert_eq!(early.news().await, Some(7));
        assert_eq!(late.news().await, Some(7));
        assert!(matches!(flights.join("key", |_| true, || Some(8)), Join::Hit(8)));
        assert_eq!(flights.under_way(), 0);
    }

    #[tokio::test]
    async fn a_leader_that_goes_away_leaves_nobody_waiting() {
        let flights = flights();
        let gone = lead(&flights);
        let follow = follow(&flights);
        drop(gone);
        assert_eq!(follow.news().await, None);
        drop(lead(&flights));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_that_nobody_waits_for_is_over_after_a_while() {
        let flights = flights();
        let lead = lead(&flights);
        let limit = Duration::from_secs(30);
        let mut over = pin!(lead.unattended(limit));
        let attendant = lead.attend();
        assert!(timeout(limit * 2, over.as_mut()).await.is_err(), "its leader waits");
        let follow = follow(&flights);
        drop(attendant);
        assert!(timeout(limit * 2, over.as_mut()).await.is_err(), "a follower waits");
        drop(follow);
        assert!(timeout(limit / 2, over.as_mut()).await.is_err());
        assert!(timeout(limit, over.as_mut()).await.is_ok());
    }

    #[tokio::test]
    async fn who_cannot_use_what_has_landed_flies_next_and_others_follow() {
        let flights = flights();
        let old = lead(&flights);
        let early = follow(&flights);
        old.share(1);
        let Join::Lead(new) = flights.join("key", |news| *news > 1, || None::<()>) else {
            panic!("1 is not more than 1")
        };
        let late = match flights.join("key", |news| *news > 1, || None::<()>) {
            Join::Follow(follow) => follow,
            _ => panic!("the new one has not landed"),
        };
        drop(old);
        new.share(2);
        assert_eq!((early.news().await, late.news().await), (Some(1), Some(2)));
        drop(new);
        assert_eq!(flights.under_way(), 0);
        drop(lead(&flights));
    }

    #[tokio::test]
    async fn who_comes_after_a_purge_joins_nothing_from_before() {
        let flights = flights();
        let old = lead(&flights);
        let before = follow(&flights);
        flights.detach(|key| key == "key");
        let new = lead(&flights);
        old.share(1);
        drop(old);
        let after = follow(&flights);
        new.share(2);
        assert_eq!(before.news().await, Some(1));
        assert_eq!(after.news().await, Some(2));
    }
}
