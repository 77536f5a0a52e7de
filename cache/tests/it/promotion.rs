//! What of the shared layer comes into memory: everything while there is room, then what is asked
//! for more than once.

use std::convert::Infallible;

use escala_cache::{Cache, Engine, Memory};

use crate::support::{FakeStore, Source, builder};

const ROOM: u64 = 100;

fn engines() -> Vec<Engine> {
    vec![
        Engine::Moka,
        #[cfg(feature = "quick_cache")]
        Engine::QuickCache,
    ]
}

/// A process that has written these keys, each with its number, and one that has read none.
async fn processes(
    keys: std::ops::Range<u64>,
    memory: Memory,
) -> (FakeStore, Cache<String, u64>, Cache<String, u64>) {
    let store = FakeStore::default();
    let writer = builder("quotes").shared(store.clone()).build().unwrap();
    for key in keys {
        writer.insert(key.to_string(), key).await;
    }
    let reader = builder("quotes").shared(store.clone()).memory(memory).build().unwrap();
    (store, writer, reader)
}

/// Fills memory with values of its own, each of which is then read, so that they are worth their
/// room.
async fn fill(reader: &Cache<String, u64>, entries: u64) {
    // A few more, since quick_cache shares the room out among its shards.
    for number in 0..entries * 2 {
        reader.insert(format!("own {number}"), number).await;
    }
    // moka counts in batches; to ask for the figures settles its accounts.
    assert!(reader.stats().memory.entries >= entries / 2);
    for _ in 0..3 {
        for number in 0..entries * 2 {
            reader.lookup_memory(&format!("own {number}"));
        }
    }
    let _ = reader.stats();
}

fn lies_in_memory(reader: &Cache<String, u64>, key: &str) -> bool {
    reader.lookup_memory(key).is_some()
}

#[tokio::test]
async fn while_there_is_room_every_find_comes_in() {
    for engine in engines() {
        let (store, _, reader) = processes(0..50, Memory::entries(1_000).engine(engine)).await;
        for key in 0..50_u64 {
            assert_eq!(reader.get(&key.to_string()).await, Some(key));
        }
        let asked = store.gets();
        for key in 0..50_u64 {
            assert_eq!(reader.get(&key.to_string()).await, Some(key));
        }
        assert_eq!(store.gets(), asked, "{engine:?}: all of them lie in memory");
        assert_eq!(reader.stats().memory.declined, 0);
    }
}

#[tokio::test]
async fn a_full_memory_takes_in_what_is_asked_for_again() {
    for engine in engines() {
        let (_, _, reader) = processes(0..3, Memory::entries(ROOM).engine(engine)).await;
        fill(&reader, ROOM).await;
        let source = Source::new(99);
        assert_eq!(source.read(&reader, "0").await, 0);
        assert_eq!(reader.get("1").await, Some(1));
        assert_eq!(reader.lookup("2").await.map(|found| found.value), Some(2));
        assert_eq!(reader.stats().memory.declined, 3, "{engine:?}");
        for key in ["0", "1", "2"] {
            assert!(!lies_in_memory(&reader, key), "{engine:?}");
        }
        assert_eq!(source.read(&reader, "0").await, 0);
        assert_eq!(reader.get("1").await, Some(1));
        assert_eq!(reader.lookup("2").await.map(|found| found.value), Some(2));
        assert_eq!(reader.stats().memory.declined, 3, "{engine:?}: asked for twice");
        assert_eq!(source.loads(), 0, "Redis had them all the while");
    }
}

#[tokio::test]
async fn a_key_that_stays_in_demand_lies_in_memory_and_is_not_asked_for_any_more() {
    for engine in engines() {
        let (store, _, reader) = processes(0..1, Memory::entries(ROOM).engine(engine)).await;
        // Filled, and never read since: what the engine gives up first.
        for number in 0..ROOM * 2 {
            reader.insert(format!("own {number}"), number).await;
        }
        let _ = reader.stats();
        assert_eq!(reader.get("0").await, Some(0));
        assert_eq!(reader.get("0").await, Some(0));
        let _ = reader.stats();
        assert!(lies_in_memory(&reader, "0"), "{engine:?}: after the second find");
        let asked = store.gets();
        assert_eq!(reader.get("0").await, Some(0));
        assert_eq!(store.gets(), asked);
    }
}

#[tokio::test]
async fn a_walk_through_the_shared_layer_leaves_what_is_in_use() {
    const WALK: u64 = 1_500;
    for engine in engines() {
        let (_, _, reader) = processes(0..WALK, Memory::entries(ROOM).engine(engine)).await;
        fill(&reader, ROOM).await;
        let own: Vec<String> = (0..ROOM * 2).map(|number| format!("own {number}")).collect();
        let in_use = || own.iter().filter(|key| reader.lookup_memory(*key).is_some()).count();
        let before = (in_use(), reader.stats().memory.evictions);
        for key in 0..WALK / 3 {
            assert_eq!(reader.get(&key.to_string()).await, Some(key));
        }
        let source = Source::new(u64::MAX);
        for key in WALK / 3..2 * WALK / 3 {
            assert_eq!(source.read(&reader, &key.to_string()).await, key);
        }
        let keys: Vec<String> = (2 * WALK / 3..WALK).map(|key| key.to_string()).collect();
        for keys in keys.chunks(50) {
            let load =
                async |_| Ok::<std::collections::HashMap<String, u64>, Infallible>([].into());
            assert_eq!(reader.get_or_load_many(keys, load).await.unwrap().len(), 50);
        }
        let memory = reader.stats().memory;
        // A key passes for another once in 16,000 times.
        assert!((WALK - 5..=WALK).contains(&memory.declined), "{engine:?}: {memory:?}");
        assert!(memory.evictions <= before.1 + 5, "{engine:?}: {memory:?}");
        assert!(in_use() + 5 >= before.0, "{engine:?}: {} of {}", in_use(), before.0);
        assert_eq!(source.loads(), 0);
    }
}

#[tokio::test]
async fn what_another_process_replaced_comes_into_its_old_place_at_once() {
    for engine in engines() {
        let (store, writer, reader) = processes(0..1, Memory::entries(ROOM).engine(engine)).await;
        assert_eq!(reader.get("0").await, Some(0));
        fill(&reader, ROOM).await;
        // Whatever became of it: here once more, and replaced there.
        reader.insert("0".to_owned(), 0).await;
        writer.insert("0".to_owned(), 1).await;
        while reader.get("0").await != Some(1) {
            tokio::task::yield_now().await;
        }
        let asked = store.gets();
        assert_eq!(reader.get("0").await, Some(1));
        assert_eq!(store.gets(), asked, "{engine:?}: found once, kept at once");
    }
}

#[tokio::test]
async fn a_find_that_does_not_come_in_is_not_read_after_its_removal() {
    for engine in engines() {
        let (store, _, reader) = processes(0..2, Memory::entries(ROOM).engine(engine)).await;
        fill(&reader, ROOM).await;
        let gate = store.gate_gets();
        let slow = tokio::spawn({
            let reader = reader.clone();
            async move { reader.get("0").await }
        });
        gate.arrived().await;
        let removal = tokio::spawn({
            let reader = reader.clone();
            async move { reader.remove("0").await.is_complete() }
        });
        gate.open();
        assert!(removal.await.unwrap());
        slow.await.unwrap();
        assert_eq!(reader.get("0").await, None, "{engine:?}");
        // Nor while the removal is on its way.
        let gate = store.gate_removes();
        let removal = tokio::spawn({
            let reader = reader.clone();
            async move { reader.remove("1").await.is_complete() }
        });
        gate.arrived().await;
        let asked = store.gets();
        assert_eq!(reader.get("1").await, None, "{engine:?}");
        assert_eq!(store.gets(), asked, "what stands there is not to be believed");
        gate.open();
        assert!(removal.await.unwrap());
    }
}

#[tokio::test]
async fn a_memory_bounded_in_bytes_is_full_by_weight() {
    let store = FakeStore::default();
    let writer = builder("quotes").shared(store.clone()).build().unwrap();
    writer.insert("0".to_owned(), 0).await;
    writer.insert("1".to_owned(), 1).await;
    // Each entry weighs 1,128.
    let reader = builder("quotes")
        .shared(store.clone())
        .memory(Memory::bytes(11_500))
        .weigher(|_, _| 1_000)
        .build()
        .unwrap();
    for number in 0..9_u64 {
        reader.insert(format!("own {number}"), number).await;
    }
    assert_eq!(reader.stats().memory.bytes, Some(9 * 1_128));
    assert_eq!(reader.get("0").await, Some(0));
    assert_eq!(reader.stats().memory.declined, 0, "there was room for one more");
    assert_eq!(reader.stats().memory.entries, 10);
    assert_eq!(reader.get("1").await, Some(1));
    assert_eq!(reader.stats().memory.declined, 1);
}
