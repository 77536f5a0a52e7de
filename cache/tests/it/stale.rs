//! Values that outlive their freshness: to stand in for a load that fails or is slow, to be served
//! while they are renewed, or to be renewed before their time.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use escala_cache::{Cache, EarlyRefresh, Entry, Memory, Previous};
use tokio::time::{Instant, advance, sleep};

use crate::support::{FakeStore, Source, builder};

const SECOND: Duration = Duration::from_secs(1);

async fn failing() -> Result<u64, &'static str> {
    Err("down")
}

/// Ten seconds fresh, a minute stale.
fn graceful() -> Cache<String, u64> {
    builder("quotes")
        .ttl(10 * SECOND)
        .stale(60 * SECOND)
        .stale_throttle(5 * SECOND)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_old_value_stands_in_for_a_failed_load_and_spares_the_source_for_a_while() {
    let cache = graceful();
    cache.insert("BTC".to_owned(), 1).await;
    advance(11 * SECOND).await;
    assert_eq!(cache.get("BTC").await, None, "get does not serve what is old");
    assert_eq!(cache.get_or_load("BTC", failing).await.unwrap(), 1);
    // Throttled: the source is not asked, by anyone.
    let never = async || -> Result<u64, Infallible> { panic!("not within five seconds") };
    advance(4 * SECOND).await;
    assert_eq!(cache.get_or_load("BTC", never).await.unwrap(), 1);
    advance(SECOND).await;
    assert_eq!(Source::new(2).read(&cache, "BTC").await, 2);
    assert_eq!(cache.stats().stale_serves, 1);
    assert_eq!(cache.stats().load_errors, 1);
}

#[tokio::test(start_paused = true)]
async fn after_an_expiry_by_tag_the_source_is_spared_as_well_and_the_stale_time_does_not_shrink() {
    let cache = graceful();
    cache.insert_with("BTC".to_owned(), Entry::new(1).tag("tag")).await;
    advance(SECOND).await;
    assert!(cache.expire_tag("tag").await.is_complete());
    for _ in 0..11 {
        assert_eq!(cache.get_or_load("BTC", failing).await.unwrap(), 1);
        let never = async || -> Result<u64, Infallible> { panic!("not within five seconds") };
        advance(4 * SECOND).await;
        assert_eq!(cache.get_or_load("BTC", never).await.unwrap(), 1);
        advance(SECOND).await;
    }
    advance(6 * SECOND).await;
    cache.get_or_load("BTC", failing).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_was_expired_by_tag_is_called_stale_while_it_is_served() {
    let cache =
        builder("quotes").ttl(10 * SECOND).stale_while_revalidate(60 * SECOND).build().unwrap();
    cache.insert_with("BTC".to_owned(), Entry::new(1).tag("tag")).await;
    assert!(!cache.lookup("BTC").await.unwrap().stale);
    assert!(cache.expire_tag("tag").await.is_complete());
    assert!(cache.lookup("BTC").await.unwrap().stale);
}

#[tokio::test(start_paused = true)]
async fn past_its_stale_time_a_value_is_no_help() {
    let cache = graceful();
    cache.insert("BTC".to_owned(), 1).await;
    advance(70 * SECOND).await;
    cache.get_or_load("BTC", failing).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_never_stands_in_and_what_was_expired_does() {
    let cache = graceful();
    for key in ["removed", "expired"] {
        cache.insert(key.to_owned(), 1).await;
    }
    assert!(cache.remove("removed").await.is_complete());
    assert!(cache.expire("expired").await.is_complete());
    assert_eq!(cache.get("expired").await, None);
    assert!(cache.lookup("expired").await.unwrap().stale);
    cache.get_or_load("removed", failing).await.unwrap_err();
    assert_eq!(cache.get_or_load("expired", failing).await.unwrap(), 1);
}

/// Each thread's time stands still for some milliseconds, and then is behind the others'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_thread_expired_is_fresh_to_no_other() {
    let cache = graceful();
    let (asks, asked) = mpsc::channel::<&str>();
    let (answers, answered) = mpsc::channel();
    let reader = cache.clone();
    let reading = std::thread::spawn(move || {
        // Keeps its clock in use, so that it is read at the price of a hit.
        loop {
            let key = match asked.try_recv() {
                Ok(key) => key,
                Err(TryRecvError::Empty) => {
                    reader.lookup_memory("busy");
                    continue;
                }
                Err(TryRecvError::Disconnected) => return,
            };
            let stale = reader.lookup_memory(key).map(|found| found.stale);
            answers.send(stale).expect("somebody listens");
        }
    });
    // Time is only read that cheaply after a while.
    let end = Instant::now() + SECOND / 5;
    while Instant::now() < end {
        for key in ["busy", "by key"] {
            cache.insert(key.to_owned(), 1).await;
        }
        cache.insert_with("by tag".to_owned(), Entry::new(1).tag("tag")).await;
        cache.expire("by key").await;
        cache.expire_tag("tag").await;
        for key in ["by key", "by tag"] {
            asks.send(key).expect("it reads");
            assert_eq!(answered.recv().expect("it answers"), Some(true), "{key}");
        }
    }
    drop(asks);
    reading.join().expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn with_a_soft_timeout_the_old_value_comes_at_once_and_the_load_goes_on() {
    let cache = builder("quotes")
        .ttl(10 * SECOND)
        .stale(60 * SECOND)
        .soft_timeout(SECOND / 10)
        .build()
        .unwrap();
    cache.insert("BTC".to_owned(), 1).await;
    advance(11 * SECOND).await;
    let source = Source::gated(2);
    assert_eq!(source.read(&cache, "BTC").await, 1);
    assert_eq!(cache.stats().loads_in_flight, 1);
    source.let_through(1);
    sleep(SECOND / 100).await;
    assert_eq!(cache.get("BTC").await, Some(2), "completed in the background");
}

#[tokio::test(start_paused = true)]
async fn with_a_hard_timeout_a_caller_leaves_and_the_load_goes_on() {
    let cache = builder("quotes").hard_timeout(SECOND).build().unwrap();
    let source = Source::gated(2);
    let load = source.clone();
    let error = cache.get_or_load("BTC", || load.load()).await.unwrap_err();
    assert!(error.is_timeout() && error.is_retryable());
    assert_eq!(cache.stats().load_timeouts, 0, "the load itself has not timed out");
    source.let_through(1);
    sleep(SECOND / 100).await;
    assert_eq!(cache.get("BTC").await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn while_revalidating_everyone_is_served_and_one_load_runs() {
    let cache =
        builder("quotes").ttl(10 * SECOND).stale_while_revalidate(60 * SECOND).build().unwrap();
    cache.insert("BTC".to_owned(), 1).await;
    advance(11 * SECOND).await;
    let source = Source::gated(2);
    for _ in 0..100 {
        assert_eq!(source.read(&cache, "BTC").await, 1);
    }
    source.begun().await;
    source.let_through(1);
    sleep(SECOND / 100).await;
    assert_eq!(source.read(&cache, "BTC").await, 2);
    assert_eq!(source.loads(), 1);
    assert_eq!(cache.stats().refreshes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_value_is_renewed_before_it_expires() {
    let cache = builder("quotes")
        .ttl(10 * SECOND)
        .early_refresh(EarlyRefresh::After { share: 0.8 })
        .build()
        .unwrap();
    let source = Source::new(1);
    source.read(&cache, "BTC").await;
    source.set(2);
    advance(7 * SECOND).await;
    assert_eq!(source.read(&cache, "BTC").await, 1);
    assert_eq!(source.loads(), 1);
    advance(2 * SECOND).await;
    assert_eq!(source.read(&cache, "BTC").await, 1, "served at once, renewed behind");
    sleep(SECOND / 100).await;
    assert_eq!(source.loads(), 2);
    advance(5 * SECOND).await;
    assert_eq!(source.read(&cache, "BTC").await, 2, "nobody has waited");
    assert_eq!(source.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_leaves_the_value_as_it_is() {
    let cache = builder("quotes")
        .ttl(10 * SECOND)
        .early_refresh(EarlyRefresh::After { share: 0.5 })
        .build()
        .unwrap();
    cache.insert("BTC".to_owned(), 1).await;
    advance(6 * SECOND).await;
    assert_eq!(cache.get_or_load("BTC", failing).await.unwrap(), 1);
    sleep(SECOND / 100).await;
    assert_eq!(cache.get("BTC").await, Some(1));
    advance(4 * SECOND).await;
    assert_eq!(cache.get("BTC").await, None, "and does not lengthen its life");
    assert_eq!(cache.stats().stale_serves, 0);
}

/// The share of keys that XFetch renews in the last load time before their end: 1 - 1/e of those
/// that are read then.
#[tokio::test(start_paused = true)]
async fn xfetch_spreads_renewals_by_the_time_a_load_takes() {
    let cache = Cache::<u64, u64>::builder("quotes")
        .ttl(100 * SECOND)
        .jitter(0.0)
        .memory(Memory::entries(10_000))
        .build()
        .unwrap();
    let loads = Arc::new(AtomicU64::new(0));
    let read = async |key: u64| {
        let loads = Arc::clone(&loads);
        let load = async move || {
            loads.fetch_add(1, Ordering::SeqCst);
            sleep(SECOND).await;
            Ok::<_, Infallible>(key)
        };
        cache.get_or_load(&key, load).await.unwrap()
    };
    const KEYS: u64 = 2_000;
    let begun = tokio::time::Instant::now();
    let mut first = tokio::task::JoinSet::new();
    for key in 0..KEYS {
        let cache = cache.clone();
        let load = async move || {
            sleep(SECOND).await;
            Ok::<_, Infallible>(key)
        };
        first.spawn(async move { cache.get_or_load(&key, load).await.unwrap() });
    }
    while first.join_next().await.is_some() {}
    advance(begun + 100 * SECOND - tokio::time::Instant::now()).await;
    for key in 0..KEYS {
        assert_eq!(read(key).await, key);
    }
    sleep(2 * SECOND).await;
    let renewed = loads.load(Ordering::SeqCst);
    // exp(-1) of 2,000 is 736; five standard deviations are 108.
    assert!((628..=844).contains(&renewed), "{renewed}");
}

#[tokio::test(start_paused = true)]
async fn absence_is_remembered_for_its_own_time() {
    let cache = builder("users").absent_ttl(5 * SECOND).build().unwrap();
    let loads = Arc::new(AtomicU64::new(0));
    let read = async || {
        let loads = Arc::clone(&loads);
        let load = async move |_: Previous<u64>| {
            loads.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Entry::absent())
        };
        cache.get_or_load_with("nobody", load).await.unwrap()
    };
    assert_eq!((read().await, read().await), (None, None));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(cache.get("nobody").await, None);
    advance(5 * SECOND).await;
    read().await;
    assert_eq!(loads.load(Ordering::SeqCst), 2);
    // Who wants a value is not put off with what somebody else found absent.
    assert_eq!(Source::new(7).read(&cache, "nobody").await, 7);
    assert_eq!(cache.get("nobody").await, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_load_may_ask_its_source_for_changes_only() {
    let cache = builder("quotes").ttl(10 * SECOND).build().unwrap();
    let first = async |previous: Previous<u64>| {
        assert_eq!((previous.value, previous.validator), (None, None));
        Ok::<_, Infallible>(Entry::new(1).validator("v1").tag("t"))
    };
    assert_eq!(cache.get_or_load_with("BTC", first).await.unwrap(), Some(1));
    advance(11 * SECOND).await;
    let second = async |previous: Previous<u64>| {
        assert_eq!((previous.value, previous.validator.as_deref()), (Some(1), Some("v1")));
        Ok::<_, Infallible>(Entry::unchanged())
    };
    assert_eq!(cache.get_or_load_with("BTC", second).await.unwrap(), Some(1));
    advance(9 * SECOND).await;
    assert_eq!(cache.get("BTC").await, Some(1), "its life began anew");
    // The renewed entry keeps its tags.
    let _ = cache.remove_tag("t").await;
    assert_eq!(cache.get("BTC").await, None);
}

#[tokio::test]
async fn what_is_not_to_be_stored_reaches_its_callers_only() {
    let store = FakeStore::default();
    let cache = builder("quotes").shared(store.clone()).build().unwrap();
    let load = async |_: Previous<u64>| Ok::<_, Infallible>(Entry::new(1).no_store());
    assert_eq!(cache.get_or_load_with("BTC", load).await.unwrap(), Some(1));
    assert_eq!(cache.get("BTC").await, None);
    let memory_only =
        async |_: Previous<u64>| Ok::<_, Infallible>(Entry::new(2).shared_ttl(Duration::ZERO));
    assert_eq!(cache.get_or_load_with("BTC", memory_only).await.unwrap(), Some(2));
    assert_eq!(cache.get("BTC").await, Some(2));
    assert!(store.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_shared_layer_keeps_a_value_that_may_stand_in_for_a_fresh_process() {
    let store = FakeStore::default();
    let build = || {
        let builder = builder("quotes").ttl(10 * SECOND).stale(60 * SECOND);
        builder.shared(store.clone()).build().unwrap()
    };
    build().insert("BTC".to_owned(), 1).await;
    assert_eq!(store.last_ttl(), 70 * SECOND);
    // Frames bear the time of the system's clock, which does not stand still: it expires there.
    let expired = build();
    assert!(expired.expire("BTC").await.is_complete());
    let fresh = build();
    assert_eq!(fresh.get("BTC").await, None);
    assert_eq!(fresh.get_or_load("BTC", failing).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hung_renewal_is_ended_and_harms_nobody() {
    let cache = builder("quotes")
        .ttl(10 * SECOND)
        .stale(60 * SECOND)
        .soft_timeout(SECOND)
        .load_timeout(3 * SECOND)
        .build()
        .unwrap();
    cache.insert("BTC".to_owned(), 1).await;
    advance(11 * SECOND).await;
    for _ in 0..3 {
        let hung = cache.get_or_load("BTC", pending::<Result<u64, Infallible>>).await;
        assert_eq!(hung.unwrap(), 1);
    }
    sleep(3 * SECOND).await;
    let stats = cache.stats();
    assert_eq!((stats.load_timeouts, stats.loads_in_flight), (1, 0));
}
