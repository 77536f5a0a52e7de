//! The figures add up, whatever happens to the callers.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use escala_cache::{Cache, CacheStats, Memory};

use crate::support::{FakeStore, Source, builder, memory};

fn add_up(stats: &CacheStats) {
    let ended = stats.load_successes
        + stats.load_errors
        + stats.load_panics
        + stats.load_timeouts
        + stats.load_aborted;
    assert_eq!(stats.loads, ended + stats.loads_in_flight);
}

#[tokio::test(start_paused = true)]
async fn every_load_ends_in_exactly_one_way() {
    let cache = builder("quotes").load_timeout(Duration::from_secs(1)).build().unwrap();
    Source::new(1).read(&cache, "success").await;
    let error = async || Err::<u64, _>("down");
    cache.get_or_load("error", error).await.unwrap_err();
    let panic = async || -> Result<u64, Infallible> { panic!("boom") };
    cache.get_or_load("panic", panic).await.unwrap_err();
    cache.get_or_load("timeout", pending::<Result<u64, Infallible>>).await.unwrap_err();

    let stats = cache.stats();
    add_up(&stats);
    assert_eq!(stats.loads, 4);
    assert_eq!(stats.loads_in_flight, 0);
    let ends = [stats.load_successes, stats.load_errors, stats.load_panics, stats.load_timeouts];
    assert_eq!(ends, [1; 4]);
    assert_eq!((stats.memory.hits, stats.memory.misses), (0, 4));
}

/// Drops a call after each number of polls, in every state of the load.
#[tokio::test]
async fn a_call_dropped_at_any_step_leaves_the_figures_true() {
    for polls in 0..4 {
        let cache = builder("quotes").shared(FakeStore::default()).build().unwrap();
        let source = Source::gated(7);
        {
            let load = source.clone();
            let mut call = pin!(cache.get_or_load("BTC", || load.load()));
            for _ in 0..polls {
                let mut context = Context::from_waker(Waker::noop());
                assert!(call.as_mut().poll(&mut context).is_pending());
                tokio::task::yield_now().await;
            }
        }
        add_up(&cache.stats());
        source.let_through(1);
        if polls == 0 {
            assert_eq!(source.loads(), 0, "a call that was never polled does nothing");
        } else {
            // The load ends without its caller and is there for the next.
            assert_eq!(source.read(&cache, "BTC").await, 7);
            assert_eq!(source.loads(), 1);
        }
        let stats = cache.stats();
        add_up(&stats);
        assert_eq!(stats.loads_in_flight, 0);
    }
}

#[tokio::test]
async fn hits_and_misses_are_counted_by_layer() {
    let store = FakeStore::default();
    let here = builder("quotes").shared(store.clone()).build().unwrap();
    let there = builder("quotes").shared(store.clone()).build().unwrap();
    let source = Source::new(7);
    source.read(&here, "BTC").await;
    source.read(&here, "BTC").await;
    // The shared write ends after the caller has its value.
    while store.sets() == 0 {
        tokio::task::yield_now().await;
    }
    source.read(&there, "BTC").await;
    assert_eq!(there.get("ETH").await, None);

    let (stats, shared) = (here.stats(), here.stats().shared.unwrap());
    assert_eq!((stats.memory.hits, stats.memory.misses), (1, 1));
    assert_eq!((shared.hits, shared.misses, shared.writes), (0, 1, 1));
    let (stats, shared) = (there.stats(), there.stats().shared.unwrap());
    assert_eq!((stats.memory.hits, stats.memory.misses, stats.loads), (0, 2, 0));
    assert_eq!((shared.hits, shared.misses, shared.writes), (1, 1, 0));
    assert_eq!(stats.memory.entries, 1);
}

#[tokio::test]
async fn visit_hands_out_every_figure_with_its_labels() {
    let cache = builder("quotes").shared(FakeStore::default()).build().unwrap();
    Source::new(7).read(&cache, "BTC").await;
    cache.get("BTC").await;
    let mut lines = Vec::new();
    cache.stats().visit(&mut |name, labels, value| {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        lines.push(format!("{name}{{{}}} {value}", labels.join(",")));
    });
    for line in [
        "cache_hits_total{cache=quotes,layer=memory} 1",
        "cache_misses_total{cache=quotes,layer=shared} 1",
        "cache_capacity{cache=quotes,layer=memory} 1000",
        "cache_declined_total{cache=quotes,layer=memory} 0",
        "cache_load_outcomes_total{cache=quotes,outcome=success} 1",
        "cache_loads_in_flight{cache=quotes} 0",
    ] {
        assert!(lines.iter().any(|own| own == line), "{line} is not in {lines:#?}");
    }
    let unique: std::collections::HashSet<_> = lines.iter().collect();
    assert_eq!(unique.len(), lines.len());
}

#[tokio::test]
async fn clones_share_entries_and_figures() {
    let cache = memory("quotes");
    cache.clone().insert("BTC".to_owned(), 7).await;
    assert_eq!(cache.get("BTC").await, Some(7));
    assert_eq!(cache.clone().stats(), cache.stats());
}

#[tokio::test]
async fn a_memory_of_bytes_holds_no_more_than_them() {
    let cache = Cache::<String, Vec<u8>>::builder("pages")
        .memory(Memory::bytes(100_000))
        .weigher(|key, value| key.len() + value.len())
        .build()
        .unwrap();
    for n in 0..100 {
        cache.insert(format!("{n}"), vec![0; 10_000]).await;
    }
    cache.insert("too long for all of it".to_owned(), vec![0; 200_000]).await;
    let memory = cache.stats().memory;
    let bytes = memory.bytes.expect("counted in bytes");
    assert!((10_000..=100_000).contains(&bytes), "{memory:?}");
    assert_eq!(memory.capacity, 100_000);
    assert_eq!(cache.get("too long for all of it").await, None);
}
