//! One load for all, and what happens when its callers, its value or its code go wrong.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escala_cache::LoadError;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use crate::support::{Source, builder, memory};

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test]
async fn ten_thousand_callers_of_a_cold_key_cause_one_load() {
    let cache = memory("quotes");
    let source = Source::gated(7);
    let mut callers = JoinSet::new();
    for _ in 0..10_000 {
        let (cache, source) = (cache.clone(), source.clone());
        callers.spawn(async move { source.read(&cache, "BTC").await });
    }
    source.begun().await;
    source.let_through(1);
    while let Some(value) = callers.join_next().await {
        assert_eq!(value.unwrap(), 7);
    }
    assert_eq!(source.loads(), 1);
    let stats = cache.stats();
    // A caller who comes after the landing finds the value instead of joining.
    assert!(stats.coalesced < 10_000);
    assert_eq!(stats.memory.hits + stats.memory.misses, 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_race_for_cold_keys_load_each_once() {
    let cache = memory("quotes");
    for round in 0..200 {
        let source = Source::new(round);
        let mut callers = JoinSet::new();
        for _ in 0..16 {
            let (cache, source) = (cache.clone(), source.clone());
            callers.spawn(async move { source.read(&cache, &round.to_string()).await });
        }
        while let Some(value) = callers.join_next().await {
            assert_eq!(value.unwrap(), round);
        }
        assert_eq!(source.loads(), 1, "round {round}");
    }
}

#[tokio::test]
async fn a_removal_during_a_load_wins() {
    let cache = memory("quotes");
    let source = Source::gated(1);
    let first = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.read(&cache, "BTC").await }
    });
    source.begun().await;
    source.set(2);
    assert!(cache.remove("BTC").await.is_complete());

    // A caller after the removal does not join the old load.
    let second = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.read(&cache, "BTC").await }
    });
    source.begun().await;
    source.let_through(2);
    assert_eq!(first.await.unwrap(), 1, "who asked before gets what was there");
    assert_eq!(second.await.unwrap(), 2);
    assert_eq!(cache.get("BTC").await, Some(2));
    assert_eq!(source.loads(), 2);
    assert_eq!(cache.stats().discarded, 1);
}

#[tokio::test]
async fn every_kind_of_removal_keeps_an_older_load_out() {
    for kind in ["remove", "remove_matching", "clear"] {
        let cache = memory("quotes");
        let source = Source::gated(1);
        let load = tokio::spawn({
            let (cache, source) = (cache.clone(), source.clone());
            async move { source.read(&cache, "BTC").await }
        });
        source.begun().await;
        let removal = match kind {
            "remove" => cache.remove("BTC").await,
            "remove_matching" => cache.remove_matching("B*").await,
            _ => cache.clear().await,
        };
        assert!(removal.is_complete());
        source.let_through(1);
        assert_eq!(load.await.unwrap(), 1);
        assert_eq!(cache.get("BTC").await, None, "{kind}");
    }
}

#[tokio::test]
async fn an_insertion_during_a_load_wins() {
    let cache = memory("quotes");
    let source = Source::gated(1);
    let load = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.read(&cache, "BTC").await }
    });
    source.begun().await;
    cache.insert("BTC".to_owned(), 2).await;
    source.let_through(1);
    assert_eq!(load.await.unwrap(), 1);
    assert_eq!(cache.get("BTC").await, Some(2));
}

#[tokio::test]
async fn a_removal_of_one_key_leaves_the_loads_of_others() {
    let cache = memory("quotes");
    let source = Source::gated(1);
    let load = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.read(&cache, "BTC").await }
    });
    source.begun().await;
    cache.remove("ETH").await;
    source.let_through(1);
    load.await.unwrap();
    assert_eq!(cache.get("BTC").await, Some(1));
}

#[tokio::test]
async fn a_leader_that_goes_away_harms_none_of_fifty_followers() {
    let cache = memory("quotes");
    let source = Source::gated(7);
    let leader = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.read(&cache, "BTC").await }
    });
    source.begun().await;
    let mut followers = JoinSet::new();
    for _ in 0..50 {
        let (cache, source) = (cache.clone(), source.clone());
        followers.spawn(async move { source.read(&cache, "BTC").await });
    }
    settle().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    source.let_through(1);
    while let Some(value) = followers.join_next().await {
        assert_eq!(value.unwrap(), 7);
    }
    assert_eq!(source.loads(), 1);
    assert_eq!(cache.stats().coalesced, 50);
}

#[tokio::test(start_paused = true)]
async fn six_hundred_impatient_callers_of_a_hung_source_cause_one_load() {
    let cache = memory("quotes");
    let loads = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..600_u64 {
        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
        callers.spawn(async move {
            let load = async move || {
                loads.fetch_add(1, Ordering::SeqCst);
                pending::<Result<u64, Infallible>>().await
            };
            let patience = Duration::from_millis(10 + caller % 50);
            timeout(patience, cache.get_or_load("BTC", load)).await
        });
    }
    while let Some(outcome) = callers.join_next().await {
        assert!(outcome.expect("no caller panics").is_err(), "every caller gives up");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(cache.stats().loads_in_flight, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hung_source_does_not_hold_a_key_for_ever() {
    let cache = builder("quotes").load_timeout(Duration::from_secs(3)).build().unwrap();
    let hung = cache.get_or_load("BTC", pending::<Result<u64, Infallible>>).await;
    assert!(hung.unwrap_err().is_timeout());
    assert_eq!(Source::new(7).read(&cache, "BTC").await, 7);
    assert_eq!(cache.stats().load_timeouts, 1);
}

#[tokio::test]
async fn callers_with_different_error_types_share_a_load_that_succeeds() {
    let cache = memory("quotes");
    let source = Source::gated(7);
    let (one, other) = (source.clone(), source.clone());
    let first = cache.get_or_load("BTC", || one.load());
    let second = cache.get_or_load("BTC", async move || other.load().await.map_err(|_| "text"));
    let open = async {
        source.begun().await;
        source.let_through(2);
    };
    let (first, second, ()) = tokio::join!(first, second, open);
    assert_eq!((first.unwrap(), second.unwrap()), (7, 7));
    assert_eq!(source.loads(), 1);
}

#[tokio::test]
async fn callers_with_another_error_type_learn_that_the_load_failed() {
    let cache = memory("quotes");
    let first = cache.get_or_load("BTC", async || {
        settle().await;
        Err::<u64, _>(std::fmt::Error)
    });
    let second = cache.get_or_load("BTC", async || Err::<u64, _>("never called".to_owned()));
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap_err().source_error(), Some(&std::fmt::Error));
    let LoadError::Foreign { type_name } = second.unwrap_err() else { panic!("not foreign") };
    assert_eq!(type_name, "core::fmt::Error");
    assert_eq!(cache.stats().loads, 1);
}

#[tokio::test]
async fn a_failing_source_is_asked_once_for_all_waiting_callers() {
    let cache = memory("quotes");
    let loads = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
        callers.spawn(async move {
            let load = async move || {
                loads.fetch_add(1, Ordering::SeqCst);
                settle().await;
                Err::<u64, _>("the source is down")
            };
            cache.get_or_load("BTC", load).await.unwrap_err()
        });
    }
    let mut errors = Vec::new();
    while let Some(error) = callers.join_next().await {
        let LoadError::Source(error) = error.unwrap() else { panic!("not of the source") };
        errors.push(error);
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert!(errors.iter().all(|error| Arc::ptr_eq(error, &errors[0])), "one error for all");

    // It is not remembered.
    assert_eq!(Source::new(7).read(&cache, "BTC").await, 7);
    assert_eq!(cache.stats().load_errors, 1);
}

#[tokio::test]
async fn a_load_that_panics_is_an_error_for_every_caller_and_the_key_stays_usable() {
    let cache = memory("quotes");
    let load = async || -> Result<u64, Infallible> {
        settle().await;
        panic!("boom")
    };
    let (first, second) =
        tokio::join!(cache.get_or_load("BTC", load), cache.get_or_load("BTC", load));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(error.is_panic());
        assert_eq!(error.to_string(), "the load panicked: boom");
    }
    assert_eq!(Source::new(7).read(&cache, "BTC").await, 7);
    let stats = cache.stats();
    assert_eq!((stats.load_panics, stats.loads_in_flight), (1, 0));
}

#[tokio::test]
async fn a_panic_of_the_closure_itself_is_caught_too() {
    let cache = memory("quotes");
    let load = || -> std::future::Ready<Result<u64, Infallible>> { panic!("early") };
    assert!(cache.get_or_load("BTC", load).await.unwrap_err().is_panic());
}

#[tokio::test]
async fn a_runtime_that_ends_during_a_load_leaves_an_error_not_a_hang() {
    let cache = memory("quotes");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let source = Source::gated(1);
    let waiting = cache.get_or_load("BTC", {
        let source = source.clone();
        || source.load()
    });
    let mut waiting = Box::pin(waiting);
    {
        // The first poll spawns the load on the other runtime.
        let _inside = runtime.enter();
        assert!(futures_poll(&mut waiting).is_none());
    }
    source.begun().await;
    runtime.shutdown_background();
    assert!(matches!(waiting.await, Err(LoadError::Aborted)));
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_aborted, stats.loads_in_flight), (1, 1, 0));
}

fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
