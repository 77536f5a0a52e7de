//! Two processes, played by two caches of one name on one store: what one removes, the other hears
//! of, or finds out that it has not.

use std::time::Duration;

use escala_cache::{Cache, Coherence, Entry, Memory, Signal, Tidings, WhileDeaf};
use tokio::time::{sleep, timeout};

use crate::support::{FakeStore, Source, builder};

const HEARTBEAT: Duration = Duration::from_secs(1);

/// After this, a process knows of everything that the store can tell.
const BOUND: Duration = Duration::from_millis(1_200);

fn process(store: &FakeStore, coherence: Coherence) -> Cache<String, u64> {
    builder("quotes")
        .memory(Memory::entries(100))
        .shared(store.clone())
        .coherence(coherence)
        .build()
        .unwrap()
}

fn messages() -> Coherence {
    Coherence::default().heartbeat(HEARTBEAT)
}

/// Two processes that have both read `BTC` = 1 into their memory.
async fn pair(store: &FakeStore, coherence: Coherence) -> (Cache<String, u64>, Cache<String, u64>) {
    let (here, there) = (process(store, coherence), process(store, coherence));
    here.insert_with("BTC".to_owned(), Entry::new(1).tag("t")).await;
    assert_eq!(there.get("BTC").await, Some(1));
    sleep(Duration::from_millis(10)).await;
    // Read again: what was read before the first beat is confirmed once.
    assert_eq!(there.get("BTC").await, Some(1));
    (here, there)
}

/// Lets messages arrive.
async fn settle() {
    sleep(Duration::from_millis(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_of_any_kind_is_heard_of() {
    for kind in ["key", "tag", "matching", "clear", "insert", "expire", "expire_tag"] {
        let store = FakeStore::default();
        let (here, there) = pair(&store, messages()).await;
        match kind {
            "key" => drop(here.remove("BTC").await),
            "tag" => drop(here.remove_tag("t").await),
            "matching" => drop(here.remove_matching("B*").await),
            "clear" => drop(here.clear().await),
            "expire" => drop(here.expire("BTC").await),
            "expire_tag" => drop(here.expire_tag("t").await),
            _ => here.insert("BTC".to_owned(), 2).await,
        }
        settle().await;
        let expected = (kind == "insert").then_some(2);
        assert_eq!(there.get("BTC").await, expected, "{kind}");
        assert_eq!(there.stats().coherence.unwrap().gaps, 0, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn ones_own_messages_change_nothing() {
    let store = FakeStore::default();
    let (here, _there) = pair(&store, messages()).await;
    here.insert("BTC".to_owned(), 2).await;
    settle().await;
    let before = store.gets();
    assert_eq!(here.get("BTC").await, Some(2));
    assert_eq!(store.gets(), before, "from memory");
}

#[tokio::test(start_paused = true)]
async fn a_load_under_way_elsewhere_when_its_key_was_removed_is_not_stored() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    assert!(here.remove("BTC").await.is_complete());
    settle().await;
    let source = Source::gated(1);
    let load = tokio::spawn({
        let (there, source) = (there.clone(), source.clone());
        async move { source.read(&there, "BTC").await }
    });
    source.begun().await;
    source.set(2);
    assert!(here.remove("BTC").await.is_complete());
    source.let_through(1);
    assert_eq!(load.await.unwrap(), 1, "who asked before gets what was there");
    settle().await;
    assert_eq!(there.get("BTC").await, None);
    assert_eq!(here.get("BTC").await, None, "nor is it in the shared layer");
    assert!(there.stats().shared.unwrap().refused > 0);
}

#[tokio::test(start_paused = true)]
async fn a_pattern_removed_while_a_load_runs_elsewhere_keeps_its_value_out() {
    for clear in [false, true] {
        let store = FakeStore::default();
        let (here, there) = (process(&store, messages()), process(&store, messages()));
        let source = Source::gated(1);
        let load = tokio::spawn({
            let (there, source) = (there.clone(), source.clone());
            async move { source.read(&there, "BTC").await }
        });
        source.begun().await;
        store.lose_messages(true);
        let removal = if clear { here.clear().await } else { here.remove_matching("B*").await };
        assert!(removal.is_complete());
        source.let_through(1);
        assert_eq!(load.await.unwrap(), 1);
        settle().await;
        assert_eq!(here.get("BTC").await, None, "clear: {clear}");
        sleep(BOUND).await;
        assert_eq!(there.get("BTC").await, None, "clear: {clear}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_noticed_by_the_heartbeat() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    store.lose_messages(true);
    assert!(here.remove("BTC").await.is_complete());
    settle().await;
    assert_eq!(there.get("BTC").await, Some(1), "it cannot know yet");
    sleep(BOUND).await;
    assert_eq!(there.get("BTC").await, None);
    assert_eq!(there.stats().coherence.unwrap().gaps, 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_memory_is_confirmed_entry_by_entry_and_not_emptied() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    there.insert("ETH".to_owned(), 5).await;
    store.lose_messages(true);
    assert!(here.remove("BTC").await.is_complete());
    store.lose_messages(false);
    // The next message shows that one is missing.
    assert!(here.remove("other").await.is_complete());
    settle().await;
    assert_eq!(there.get("BTC").await, None);
    let before = store.gets();
    assert_eq!(there.get("ETH").await, Some(5));
    assert_eq!(store.gets() - before, 1, "confirmed by the shared layer");
    assert_eq!(there.get("ETH").await, Some(5));
    assert_eq!(store.gets() - before, 1, "once");
    let load = async || -> Result<u64, std::convert::Infallible> { panic!("nothing is loaded") };
    assert_eq!(there.get_or_load("ETH", load).await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_twice_late_or_garbled_do_no_harm() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    for _ in 0..2 {
        store.signal(&Signal::Message { sequence: 1, body: b"\0\0\0\0\0\0\0\0kBTC".to_vec() });
    }
    settle().await;
    assert_eq!(there.get("BTC").await, Some(1), "read again from the shared layer");
    store.signal(&Signal::Message { sequence: 3, body: b"garbage".to_vec() });
    settle().await;
    assert_eq!(there.stats().coherence.unwrap().unreadable, 1);
    assert_eq!(there.get("BTC").await, Some(1));
    assert!(here.remove("BTC").await.is_complete());
    settle().await;
    assert_eq!(there.get("BTC").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_flushed_resurrects_nothing() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    store.lose_messages(true);
    assert!(here.remove("BTC").await.is_complete());
    store.flush();
    sleep(BOUND).await;
    assert_eq!(there.get("BTC").await, None, "nobody can confirm it any more");
    assert_eq!(Source::new(2).read(&there, "BTC").await, 2);
    settle().await;
    assert_eq!(here.get("BTC").await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_outlives_a_flush_is_not_believed() {
    let store = FakeStore::default();
    let (here, there) = (process(&store, messages()), process(&store, messages()));
    let source = Source::gated(1);
    let load = tokio::spawn({
        let (there, source) = (there.clone(), source.clone());
        async move { source.read(&there, "BTC").await }
    });
    source.begun().await;
    store.lose_messages(true);
    // The tombstone of this removal is lost with everything else.
    assert!(here.remove("BTC").await.is_complete());
    store.flush();
    assert_eq!(here.get("BTC").await, None);
    source.let_through(1);
    load.await.unwrap();
    settle().await;
    assert_eq!(here.get("BTC").await, None, "it bears the number of a record that is gone");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_memory_serves_or_not_as_the_policy_says() {
    let patience = Duration::from_secs(5);
    let policies = [
        (WhileDeaf::Keep, Some(1), Some(1)),
        (WhileDeaf::Shorten(patience), Some(1), None),
        (WhileDeaf::Bypass, None, None),
    ];
    for (policy, soon, later) in policies {
        let store = FakeStore::default();
        let (_here, there) = pair(&store, messages().while_deaf(policy)).await;
        store.fail(true);
        store.signal(&Signal::Down);
        settle().await;
        assert_eq!(there.get("BTC").await, soon, "{policy:?}");
        sleep(patience).await;
        assert_eq!(there.get("BTC").await, later, "{policy:?}");
        store.fail(false);
        store.signal(&Signal::Up);
        settle().await;
        assert_eq!(there.get("BTC").await, Some(1), "{policy:?}: back, and nothing was missed");
        assert_eq!(there.stats().coherence.unwrap().gaps, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_while_the_store_was_away_is_found_out_when_it_is_back() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    store.lose_messages(true);
    store.signal(&Signal::Down);
    assert!(here.remove("BTC").await.is_complete());
    settle().await;
    store.lose_messages(false);
    store.signal(&Signal::Up);
    sleep(BOUND).await;
    assert_eq!(there.get("BTC").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_missed_the_store_reaches_other_processes_when_it_is_repeated() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    store.fail(true);
    assert!(!here.remove("BTC").await.is_complete());
    assert!(!here.remove_tag("t").await.is_complete());
    assert_eq!(here.get("BTC").await, None);
    assert_eq!(here.stats().shared.unwrap().pending, 2);
    assert_eq!(there.get("BTC").await, Some(1));
    store.fail(false);
    sleep(BOUND).await;
    assert_eq!(here.stats().shared.unwrap().pending, 0);
    assert_eq!(there.get("BTC").await, None);
    assert!(store.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_somebody_changed_by_hand_is_read_again() {
    let store = FakeStore::default();
    let (_here, there) = pair(&store, messages()).await;
    store.alter(Vec::clear);
    assert_eq!(there.get("BTC").await, Some(1));
    store.signal(&Signal::Changed { key: "2:quotes:k:BTC".to_owned() });
    settle().await;
    assert_eq!(there.get("BTC").await, None);
}

#[tokio::test(start_paused = true)]
async fn without_tidings_a_copy_in_memory_lives_until_it_expires() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, Coherence::by(Tidings::None)).await;
    assert!(here.remove("BTC").await.is_complete());
    sleep(BOUND).await;
    assert_eq!(there.get("BTC").await, Some(1));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(there.get("BTC").await, None, "the lifetime in the shared layer");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_dropped_stops_listening() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    drop((here, there));
    sleep(2 * HEARTBEAT).await;
    assert_eq!(store.subscribers(), 0);
}

#[tokio::test(start_paused = true)]
async fn among_processes_one_loads_and_the_others_wait_for_its_value() {
    let store = FakeStore::default();
    let processes: Vec<_> = (0..4)
        .map(|_| {
            let builder = builder("quotes").shared(store.clone());
            builder.load_lock(Duration::from_secs(10)).build().unwrap()
        })
        .collect();
    let source = Source::gated(7);
    let mut callers = tokio::task::JoinSet::new();
    for process in &processes {
        for _ in 0..50 {
            let (process, source) = (process.clone(), source.clone());
            callers.spawn(async move { source.read(&process, "BTC").await });
        }
    }
    source.begun().await;
    sleep(Duration::from_millis(200)).await;
    source.let_through(4);
    while let Some(value) = callers.join_next().await {
        assert_eq!(value.unwrap(), 7);
    }
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_with_the_right_to_load_holds_the_others_up_only_for_its_time() {
    let store = FakeStore::default();
    let build = || {
        let builder = builder("quotes").shared(store.clone());
        builder.load_lock(Duration::from_secs(10)).build().unwrap()
    };
    let (dying, other) = (build(), build());
    let hung = tokio::spawn(async move {
        dying.get_or_load("BTC", std::future::pending::<Result<u64, ()>>).await
    });
    sleep(Duration::from_millis(10)).await;
    hung.abort();
    let begun = tokio::time::Instant::now();
    assert_eq!(Source::new(7).read(&other, "BTC").await, 7);
    assert!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_only_loads_many_at_once_hears_of_removals_too() {
    let store = FakeStore::default();
    let (here, there) = (process(&store, messages()), process(&store, messages()));
    let load = |value: u64| {
        async move |keys: Vec<String>| {
            let values = keys.into_iter().map(|key| (key, value)).collect();
            Ok::<std::collections::HashMap<_, _>, std::convert::Infallible>(values)
        }
    };
    let keys = ["BTC".to_owned()];
    assert_eq!(there.get_or_load_many(&keys, load(1)).await.unwrap()["BTC"], 1);
    settle().await;
    assert!(here.remove("BTC").await.is_complete());
    sleep(BOUND).await;
    assert_eq!(there.get_or_load_many(&keys, load(2)).await.unwrap()["BTC"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_removal_between_the_first_read_and_the_first_beat_is_found_out() {
    let store = FakeStore::default();
    let (here, there) = (process(&store, messages()), process(&store, messages()));
    here.insert("BTC".to_owned(), 1).await;
    settle().await;
    store.fail(true);
    assert_eq!(there.get("BTC").await, None, "its first beat has failed");
    store.fail(false);
    assert_eq!(there.get("BTC").await, Some(1));
    store.lose_messages(true);
    assert!(here.remove("BTC").await.is_complete());
    sleep(BOUND).await;
    assert_eq!(there.get("BTC").await, None);
}

/// The old value must not be there even for the moment that its writer needs to find out.
#[tokio::test(start_paused = true)]
async fn a_pattern_removed_during_a_load_elsewhere_is_read_by_nobody_afterwards() {
    let store = FakeStore::default();
    let (here, there) = (process(&store, messages()), process(&store, messages()));
    let source = Source::gated(1);
    let load = tokio::spawn({
        let (there, source) = (there.clone(), source.clone());
        async move { source.read(&there, "BTC").await }
    });
    source.begun().await;
    store.lose_messages(true);
    assert!(here.remove_matching("B*").await.is_complete());
    store.unsteady(1, 100);
    source.let_through(1);
    assert_eq!(load.await.unwrap(), 1);
    for _ in 0..50 {
        assert_eq!(here.get("BTC").await, None);
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_inserted_is_not_confirmed_by_what_it_replaces() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    // Nothing has been written yet.
    let gate = store.gate_sets();
    let insertion = tokio::spawn({
        let there = there.clone();
        async move { there.insert("BTC".to_owned(), 2).await }
    });
    timeout(HEARTBEAT, gate.arrived()).await.unwrap();
    // A message is missing, so that memory must be confirmed.
    store.signal(&Signal::Flushed);
    settle().await;
    assert_ne!(there.get("BTC").await, Some(1));
    assert_eq!(Source::new(2).read(&there, "BTC").await, 2);
    gate.open();
    insertion.await.unwrap();
    assert_eq!(there.get("BTC").await, Some(2));
    sleep(BOUND).await;
    assert_eq!(here.get("BTC").await, Some(2));
}

/// As after a failover to a replica that lags behind.
#[tokio::test(start_paused = true)]
async fn a_store_that_has_lost_its_last_writes_resurrects_nothing() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    let earlier = store.snapshot();
    assert!(here.remove("BTC").await.is_complete());
    settle().await;
    store.restore(earlier);
    assert_eq!(store.keys(), ["2:quotes:k:BTC"], "what was removed is back");
    sleep(BOUND).await;
    for process in [&here, &there, &process(&store, messages())] {
        assert_eq!(process.get("BTC").await, None);
    }
    assert_eq!(Source::new(2).read(&here, "BTC").await, 2);
    settle().await;
    assert_eq!(there.get("BTC").await, Some(2), "what is written from then on is believed");
}

#[tokio::test(start_paused = true)]
async fn what_the_store_did_not_confirm_is_not_served_when_the_store_is_away_later() {
    let store = FakeStore::default();
    let (here, there) = pair(&store, messages()).await;
    store.lose_messages(true);
    assert!(here.remove("BTC").await.is_complete());
    sleep(BOUND).await;
    let down = async || Err::<u64, _>("the source is down");
    assert!(there.get_or_load("BTC", down).await.is_err());
    store.fail(true);
    assert_eq!(Source::new(2).read(&there, "BTC").await, 2);
}

/// A read that is under way keeps what is in memory when the store turns out to be away; who comes
/// later than a removal must not be given that.
#[tokio::test(start_paused = true)]
async fn what_was_kept_for_want_of_the_store_is_not_given_to_who_asks_after_its_removal() {
    for seed in 0..20 {
        let store = FakeStore::default();
        let (here, there) = pair(&store, messages().while_deaf(WhileDeaf::Keep)).await;
        store.lose_messages(true);
        assert!(here.remove("ETH").await.is_complete());
        // It was something that was missed: all in memory is to be confirmed.
        sleep(BOUND).await;
        // From here on each operation takes its time before it fails.
        store.unsteady(seed, 0);
        let reader = there.clone();
        let read = tokio::spawn(async move { Source::new(2).read(&reader, "BTC").await });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        store.fail(true);
        assert!(!there.remove_tag("t").await.is_complete());
        assert_eq!(Source::new(2).read(&there, "BTC").await, 2, "seed {seed}");
        read.await.unwrap();
    }
}
