//! How long a value lives, in which layer.

use std::convert::Infallible;
use std::time::Duration;

use escala_cache::{Cache, Entry, Memory};
use tokio::time::advance;

use crate::support::{FakeStore, Source, builder};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_value_lives_for_the_shortest_of_its_lifetimes() {
    let cache = builder("quotes")
        .ttl(5 * SECOND)
        .memory(Memory::entries(10).ttl(8 * SECOND))
        .build()
        .unwrap();
    cache.insert("default".to_owned(), 1).await;
    cache.insert_with("short".to_owned(), Entry::new(2).ttl(2 * SECOND)).await;
    cache.insert_with("long".to_owned(), Entry::new(3).ttl(60 * SECOND)).await;

    let alive = async || {
        let mut alive = Vec::new();
        for key in ["default", "short", "long"] {
            alive.extend(cache.get(key).await);
        }
        alive
    };
    advance(2 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(alive().await, [1, 2, 3]);
    advance(Duration::from_millis(1)).await;
    assert_eq!(alive().await, [1, 3]);
    advance(3 * SECOND).await;
    assert_eq!(alive().await, [3]);
    advance(3 * SECOND).await;
    assert!(alive().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_documented_defaults_hold() {
    let cache = builder("quotes").build().unwrap();
    cache.insert("a".to_owned(), 1).await;
    cache.insert_with("b".to_owned(), Entry::new(2).ttl(3_600 * SECOND)).await;
    advance(300 * SECOND).await;
    assert_eq!((cache.get("a").await, cache.get("b").await), (None, Some(2)));
    advance(300 * SECOND).await;
    assert_eq!(cache.get("b").await, None);
    assert_eq!(cache.stats().memory.capacity, 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_loaded_value_lives_as_its_call_says() {
    let cache = builder("quotes").build().unwrap();
    let source = Source::new(7);
    for expected_loads in [1, 1, 2] {
        let load = source.clone();
        let value = cache.get_or_load_with("BTC", |_| load.entry(2 * SECOND)).await;
        assert_eq!(value.unwrap(), Some(7));
        assert_eq!(source.loads(), expected_loads);
        advance(SECOND).await;
    }
}

#[tokio::test]
async fn a_lifetime_of_zero_is_not_stored() {
    let cache = builder("quotes").build().unwrap();
    let source = Source::new(7);
    let load = source.clone();
    cache.get_or_load_with("BTC", |_| load.entry(Duration::ZERO)).await.unwrap();
    assert_eq!(cache.get("BTC").await, None);
    assert_eq!(cache.stats().discarded, 0);

    cache.insert("BTC".to_owned(), 1).await;
    cache.insert_with("BTC".to_owned(), Entry::new(2).ttl(Duration::ZERO)).await;
    assert_eq!(cache.get("BTC").await, None);
}

#[tokio::test]
async fn the_longest_lifetime_does_not_overflow() {
    let cache = Cache::<u64, u64>::builder("quotes")
        .ttl(Duration::MAX)
        .memory(Memory::entries(10).ttl(Duration::MAX))
        .shared_ttl(Duration::MAX)
        .shared(FakeStore::default())
        .build()
        .unwrap();
    cache.insert(1, 1).await;
    assert_eq!(cache.get(&1).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn jitter_only_ever_shortens() {
    let cache = Cache::<u64, u64>::builder("quotes").ttl(100 * SECOND).jitter(0.1).build().unwrap();
    for key in 0..200 {
        cache.insert(key, key).await;
    }
    let alive = async || {
        let mut alive = 0;
        for key in 0..200 {
            alive += usize::from(cache.get(&key).await.is_some());
        }
        alive
    };
    advance(90 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(alive().await, 200);
    advance(5 * SECOND).await;
    assert!((1..200).contains(&alive().await), "some, not all, at once");
    advance(5 * SECOND + Duration::from_millis(1)).await;
    assert_eq!(alive().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_promoted_value_lives_only_for_the_rest_of_its_life() {
    let store = FakeStore::default();
    let here = builder("quotes").shared_ttl(5 * SECOND).shared(store.clone()).build().unwrap();
    let there = builder("quotes").shared_ttl(5 * SECOND).shared(store.clone()).build().unwrap();
    let third = builder("quotes").shared(store.clone()).build().unwrap();
    here.insert("BTC".to_owned(), 7).await;
    assert_eq!(store.last_ttl(), 5 * SECOND);
    let before = store.gets();

    // Promoted by both ways of reading, for at most the five seconds its frame has left, not
    // for the ten minutes of memory.
    assert_eq!(there.get("BTC").await, Some(7));
    let load = async || -> Result<u64, Infallible> { panic!("it is in the shared layer") };
    assert_eq!(third.get_or_load("BTC", load).await.unwrap(), 7);
    assert_eq!(store.gets() - before, 2);
    assert_eq!(there.get("BTC").await, Some(7));
    assert_eq!(third.get("BTC").await, Some(7));
    assert_eq!(store.gets() - before, 2, "from memory");

    advance(5 * SECOND).await;
    there.get("BTC").await;
    third.get("BTC").await;
    assert_eq!(store.gets() - before, 4, "memory no longer answers");
    assert_eq!(here.get("BTC").await, Some(7), "where it was inserted it lives on");
}

#[tokio::test]
async fn an_entry_that_memory_has_no_room_for_is_evicted_and_counted() {
    let cache = builder("quotes").memory(Memory::entries(10)).build().unwrap();
    for key in 0..100 {
        cache.insert(key.to_string(), key).await;
    }
    let stats = cache.stats().memory;
    assert_eq!((stats.entries, stats.evictions), (10, 90));
}
