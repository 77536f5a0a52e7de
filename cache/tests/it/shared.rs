//! The shared layer over a store that fails, lies and reorders.

use std::sync::Arc;
use std::time::Duration;

use escala_cache::{Cache, Entry, Removal};
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

use crate::support::{FakeStore, Source, builder};

fn cache(store: &FakeStore) -> Cache<String, u64> {
    builder("quotes").shared(store.clone()).build().unwrap()
}

async fn written(store: &FakeStore, sets: u64) {
    while store.sets() < sets {
        yield_now().await;
    }
}

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_value_loaded_here_is_found_there() {
    let store = FakeStore::default();
    let source = Source::new(7);
    assert_eq!(source.read(&cache(&store), "BTC").await, 7);
    written(&store, 1).await;
    assert_eq!(store.keys(), ["2:quotes:k:BTC"]);
    assert_eq!(source.read(&cache(&store), "BTC").await, 7);
    assert_eq!(source.loads(), 1);
}

#[tokio::test]
async fn a_store_that_fails_costs_nobody_anything() {
    let store = FakeStore::default();
    store.fail(true);
    let cache = cache(&store);
    let source = Source::new(7);
    assert_eq!(source.read(&cache, "BTC").await, 7);
    assert_eq!(cache.get("ETH").await, None);
    cache.insert("ETH".to_owned(), 8).await;
    assert_eq!(cache.get("ETH").await, Some(8));
    assert!(matches!(cache.remove("ETH").await, Removal::MemoryOnly(_)));
    assert!(!cache.remove_matching("*").await.is_complete());
    assert!(!cache.clear().await.is_complete());
    assert_eq!(cache.get("BTC").await, None, "memory was cleared all the same");
    assert!(cache.stats().shared.unwrap().faults >= 6);
}

#[tokio::test]
async fn whatever_bytes_stand_there_are_a_miss() {
    let alterations: [fn(&mut Vec<u8>); 6] = [
        Vec::clear,
        |bytes| bytes.truncate(20),
        |bytes| bytes[0] ^= 1,
        |bytes| bytes[4] += 1,
        |bytes| *bytes.last_mut().unwrap() ^= 0x80,
        |bytes| *bytes = b"{\"price\": 7}".repeat(100),
    ];
    for (index, alter) in alterations.into_iter().enumerate() {
        let store = FakeStore::default();
        cache(&store).insert("BTC".to_owned(), 7).await;
        store.alter(alter);
        let reader = cache(&store);
        assert_eq!(reader.get("BTC").await, None, "alteration {index}");
        assert_eq!(Source::new(8).read(&reader, "BTC").await, 8);
        assert_eq!(reader.stats().shared.unwrap().rejected, 2, "alteration {index}");
        // The load has put a good frame in its place.
        written(&store, 2).await;
        assert_eq!(cache(&store).get("BTC").await, Some(8));
    }
}

#[tokio::test]
async fn a_value_of_another_type_or_schema_version_is_a_miss() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Other(u64);
    let store = FakeStore::default();
    cache(&store).insert("BTC".to_owned(), 7).await;
    let other = Cache::<String, Other>::builder("quotes").shared(store.clone()).build().unwrap();
    assert!(other.get("BTC").await.is_none());
    let newer = builder("quotes").schema_version(1).shared(store.clone()).build().unwrap();
    assert!(newer.get("BTC").await.is_none());
    assert_eq!(cache(&store).get("BTC").await, Some(7));
}

#[tokio::test]
async fn a_value_too_long_stays_in_memory_and_leaves_nothing_older_behind() {
    let store = FakeStore::default();
    let texts = Cache::<String, String>::builder("texts")
        .max_value_bytes(100)
        .shared(store.clone())
        .build()
        .unwrap();
    texts.insert("a".to_owned(), "short".to_owned()).await;
    assert_eq!(store.keys().len(), 1);
    texts.insert("a".to_owned(), "long".repeat(100)).await;
    assert!(store.keys().is_empty());
    assert_eq!(texts.get("a").await, Some("long".repeat(100)));
    assert_eq!(texts.stats().shared.unwrap().oversized, 1);
}

#[tokio::test]
async fn a_removal_waits_for_the_older_write_so_that_it_cannot_land_last() {
    let store = FakeStore::default();
    let cache = cache(&store);
    let gate = store.gate_sets();
    assert_eq!(Source::new(1).read(&cache, "BTC").await, 1);
    // The load has filled memory and is about to write the store.
    gate.arrived().await;
    let removal = tokio::spawn({
        let cache = cache.clone();
        async move { cache.remove("BTC").await }
    });
    settle().await;
    assert!(!removal.is_finished(), "it waits for the write");
    assert_eq!(cache.get("BTC").await, None, "memory is clear at once, the store not trusted");
    gate.open();
    assert!(removal.await.unwrap().is_complete());
    assert!(store.keys().is_empty());
    assert_eq!(cache.get("BTC").await, None);
}

#[tokio::test]
async fn a_later_insertion_is_also_the_later_write() {
    let store = FakeStore::default();
    let cache = cache(&store);
    let gate = store.gate_sets();
    let insert = |value| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.insert("BTC".to_owned(), value).await })
    };
    let mut inserts = vec![insert(1)];
    gate.arrived().await;
    inserts.extend((2..=5).map(insert));
    settle().await;
    gate.open();
    for insert in inserts {
        insert.await.unwrap();
    }
    let last = cache.get("BTC").await;
    assert_eq!(last, Some(5));
    assert_eq!(self::cache(&store).get("BTC").await, last);
    assert_eq!(store.sets(), 2, "what was overtaken before its write is not written");
}

#[tokio::test]
async fn a_read_of_the_store_during_a_removal_fills_nothing() {
    let store = FakeStore::default();
    cache(&store).insert("BTC".to_owned(), 1).await;
    let cache = cache(&store);
    let gate = store.gate_gets();
    let reader = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get("BTC").await }
    });
    let source = Source::new(2);
    let loader = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.read(&cache, "BTC").await }
    });
    gate.arrived().await;
    gate.arrived().await;
    assert!(cache.remove("BTC").await.is_complete());
    gate.open();
    assert_eq!(reader.await.unwrap(), Some(1), "it began before the removal");
    assert_eq!(loader.await.unwrap(), 1, "it began before the removal");
    assert_eq!(cache.get("BTC").await, None);
    assert_eq!(cache.stats().discarded, 2);
    assert_eq!(source.read(&cache, "BTC").await, 2);
}

#[tokio::test]
async fn a_slow_read_of_the_store_does_not_replace_what_a_load_brought_meanwhile() {
    let store = FakeStore::default();
    cache(&store).insert("BTC".to_owned(), 1).await;
    let cache = cache(&store);
    let slow = store.gate_gets();
    let reader = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get("BTC").await }
    });
    slow.arrived().await;
    store.gate_gets().open();
    store.alter(Vec::clear);
    assert_eq!(Source::new(2).read(&cache, "BTC").await, 2);
    slow.open();
    assert_eq!(reader.await.unwrap(), Some(1));
    assert_eq!(cache.get("BTC").await, Some(2));
}

#[tokio::test]
async fn a_load_that_begins_during_a_removal_does_not_read_what_is_being_removed() {
    for by_pattern in [false, true] {
        let store = FakeStore::default();
        let cache = cache(&store);
        cache.insert("BTC".to_owned(), 1).await;
        let before = store.gets();
        let gate = store.gate_removes();
        let removal = tokio::spawn({
            let cache = cache.clone();
            async move {
                if by_pattern {
                    cache.remove_matching("B*").await
                } else {
                    cache.remove("BTC").await
                }
            }
        });
        gate.arrived().await;
        assert_eq!(cache.get("BTC").await, None);
        assert_eq!(Source::new(2).read(&cache, "BTC").await, 2);
        assert_eq!(store.gets(), before);
        gate.open();
        assert!(removal.await.unwrap().is_complete());
        assert_eq!(cache.get("BTC").await, Some(2));
    }
}

#[tokio::test]
async fn a_removal_goes_on_when_its_caller_goes_away() {
    let store = FakeStore::default();
    let cache = cache(&store);
    cache.insert("BTC".to_owned(), 1).await;
    let before = store.gets();
    let gate = store.gate_removes();
    let removal = tokio::spawn({
        let cache = cache.clone();
        async move { cache.remove("BTC").await }
    });
    gate.arrived().await;
    removal.abort();
    assert!(removal.await.unwrap_err().is_cancelled());
    gate.open();
    while !store.keys().is_empty() {
        yield_now().await;
    }
    // Its hold on the key is gone too: the store is read again.
    settle().await;
    cache.get("BTC").await;
    assert_eq!(store.gets() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_removal_that_missed_the_store_its_old_frames_are_not_read() {
    let store = FakeStore::default();
    let cache = cache(&store);
    cache.insert("BTC".to_owned(), 1).await;
    store.fail(true);
    assert!(!cache.remove("BTC").await.is_complete());
    store.fail(false);
    assert_eq!(store.keys().len(), 1, "it stands there still");
    assert_eq!(cache.get("BTC").await, None);
    assert_eq!(cache.stats().shared.unwrap().distrusted, 1);

    // The removal is repeated until it has reached the store, which is believed again then.
    while cache.stats().shared.unwrap().pending > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(store.keys().is_empty());
    assert_eq!(cache.stats().shared.unwrap().replayed, 1);
    self::cache(&store).insert("BTC".to_owned(), 2).await;
    assert_eq!(cache.get("BTC").await, Some(2));
}

#[tokio::test]
async fn an_insertion_that_missed_the_store_does_not_bring_the_older_value_back() {
    let store = FakeStore::default();
    let cache = builder("quotes").shared(store.clone()).build().unwrap();
    cache.insert("BTC".to_owned(), 1).await;
    store.fail(true);
    cache.insert_with("BTC".to_owned(), Entry::new(2).ttl(Duration::from_millis(20))).await;
    store.fail(false);
    while cache.get("BTC").await == Some(2) {
        yield_now().await;
    }
    assert_eq!(cache.get("BTC").await, None, "and not 1");
}

/// No read returns a value older than the last removal that returned before the read began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_what_a_finished_removal_took_away() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    let cache = cache(&FakeStore::default());
    let (truth, floor) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn({
        let (cache, truth, floor) = (cache.clone(), Arc::clone(&truth), Arc::clone(&floor));
        async move {
            for version in 1..=600 {
                truth.store(version, SeqCst);
                let removal = match version % 3 {
                    0 => cache.remove_matching("B?C").await,
                    1 => cache.remove("BTC").await,
                    _ => cache.clear().await,
                };
                assert!(removal.is_complete());
                floor.store(version, SeqCst);
            }
        }
    });
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (cache, truth, floor) = (cache.clone(), Arc::clone(&truth), Arc::clone(&floor));
            tokio::spawn(async move {
                while floor.load(SeqCst) < 600 {
                    let oldest = floor.load(SeqCst);
                    let truth = Arc::clone(&truth);
                    let load = async move || {
                        let value = truth.load(SeqCst);
                        yield_now().await;
                        Ok::<_, std::convert::Infallible>(value)
                    };
                    let value = match reader {
                        0 => cache.get("BTC").await,
                        _ => Some(cache.get_or_load("BTC", load).await.unwrap()),
                    };
                    assert!(value.is_none_or(|value| value >= oldest), "{value:?} < {oldest}");
                    yield_now().await;
                }
            })
        })
        .collect();
    writer.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
}
