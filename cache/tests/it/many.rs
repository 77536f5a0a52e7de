//! Many keys at once: one look at the shared layer, one load.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use escala_cache::{Cache, Entry};
use parking_lot::Mutex;

use crate::support::{FakeStore, Source, builder, memory};

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Remembers which keys it was asked for; knows every key but those that begin with `no`.
#[derive(Clone, Default)]
struct Database {
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Database {
    async fn many(self, missing: Vec<String>) -> Result<HashMap<String, u64>, Infallible> {
        let mut asked = missing.clone();
        asked.sort();
        self.asked.lock().push(asked);
        let known = missing.into_iter().filter(|key| !key.starts_with("no"));
        Ok(known.map(|key| (key.clone(), key.len() as u64)).collect())
    }

    async fn read(&self, cache: &Cache<String, u64>, names: &[&str]) -> HashMap<String, u64> {
        let database = self.clone();
        cache.get_or_load_many(&keys(names), |missing| database.many(missing)).await.unwrap()
    }

    fn asked(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.asked.lock())
    }
}

#[tokio::test]
async fn what_no_layer_has_is_loaded_together_and_once() {
    let store = FakeStore::default();
    let cache = builder("quotes").shared(store.clone()).build().unwrap();
    let database = Database::default();
    cache.insert("a".to_owned(), 100).await;
    let before = store.gets();
    let found = database.read(&cache, &["a", "bb", "ccc", "bb", "nothing"]).await;
    let expected = [("a", 100), ("bb", 2), ("ccc", 3)].map(|(key, value)| (key.to_owned(), value));
    assert_eq!(found, HashMap::from(expected));
    assert_eq!(database.asked(), [keys(&["bb", "ccc", "nothing"])]);
    assert_eq!(store.gets() - before, 1, "one round trip");
    // Absence is remembered too.
    database.read(&cache, &["a", "bb", "nothing"]).await;
    assert!(database.asked().is_empty());
    // Another process finds all of it in the shared layer.
    while store.sets() < 4 {
        tokio::task::yield_now().await;
    }
    let other = builder("quotes").shared(store.clone()).build().unwrap();
    let before = store.gets();
    assert_eq!(database.read(&other, &["a", "bb", "ccc", "nothing", "d"]).await.len(), 4);
    assert_eq!(database.asked(), [keys(&["d"])]);
    assert_eq!(store.gets() - before, 1, "what is loaded has just been looked for");
    // What was found lies in memory.
    database.read(&other, &["a", "bb", "ccc", "nothing", "d"]).await;
    assert_eq!(store.gets() - before, 1);
}

#[tokio::test]
async fn what_is_removed_while_it_is_found_does_not_come_into_memory() {
    let store = FakeStore::default();
    let writer = builder("quotes").shared(store.clone()).build().unwrap();
    writer.insert("a".to_owned(), 100).await;
    writer.insert("b".to_owned(), 100).await;
    let cache = builder("quotes").shared(store.clone()).build().unwrap();
    let database = Database::default();
    let gate = store.gate_gets();
    let finding = tokio::spawn({
        let (cache, database) = (cache.clone(), database.clone());
        async move { database.read(&cache, &["a", "b"]).await }
    });
    gate.arrived().await;
    let removing = store.gate_removes();
    let removal = tokio::spawn({
        let cache = cache.clone();
        async move { cache.remove("a").await.is_complete() }
    });
    removing.arrived().await;
    gate.open();
    assert_eq!(finding.await.unwrap()["b"], 100);
    removing.open();
    assert!(removal.await.unwrap());
    assert_eq!(cache.get("a").await, None);
    assert_eq!(database.read(&cache, &["a", "b"]).await["a"], 1, "loaded anew");
}

#[tokio::test]
async fn a_key_that_is_being_loaded_is_waited_for() {
    let cache = memory("quotes");
    let (source, database) = (Source::gated(7), Database::default());
    let single = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.read(&cache, "a").await }
    });
    source.begun().await;
    let many = tokio::spawn({
        let (cache, database) = (cache.clone(), database.clone());
        async move { database.read(&cache, &["a", "bb"]).await }
    });
    while database.asked.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!many.is_finished());
    source.let_through(1);
    assert_eq!(single.await.unwrap(), 7);
    assert_eq!(many.await.unwrap()["a"], 7);
    assert_eq!(database.asked(), [keys(&["bb"])]);
}

#[tokio::test]
async fn a_key_that_is_being_loaded_is_waited_for_whatever_else_is_looked_for() {
    let store = FakeStore::default();
    let cache = builder("quotes").shared(store.clone()).build().unwrap();
    let database = Database::default();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let begun = Arc::new(tokio::sync::Notify::new());
    let single = tokio::spawn({
        let (cache, begun) = (cache.clone(), Arc::clone(&begun));
        let load = async move |_| {
            begun.notify_one();
            gone.await.unwrap();
            Ok::<_, Infallible>(Entry::new(7).no_store())
        };
        async move { cache.get_or_load_with("a", load).await }
    });
    begun.notified().await;
    let gate = store.gate_gets();
    let many = tokio::spawn({
        let (cache, database) = (cache.clone(), database.clone());
        async move { database.read(&cache, &["a", "bb"]).await }
    });
    gate.arrived().await;
    // It lands, and leaves nothing behind, while the other key is still looked for.
    go.send(()).unwrap();
    assert_eq!(single.await.unwrap().unwrap(), Some(7));
    gate.open();
    assert_eq!(many.await.unwrap()["a"], 7);
    assert_eq!(database.asked(), [keys(&["bb"])]);
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_once_for_a_load() {
    let store = FakeStore::default();
    let cache = builder("quotes").shared(store.clone()).build().unwrap();
    let database = Database::default();
    store.fail(true);
    let before = store.gets();
    assert_eq!(database.read(&cache, &["a", "bb"]).await.len(), 2);
    assert_eq!(store.gets() - before, 1);
    assert_eq!(Source::new(7).read(&cache, "c").await, 7);
    assert_eq!(store.gets() - before, 2);
    assert_eq!(cache.stats().shared.unwrap().misses, 3);
}

#[tokio::test]
async fn a_batch_after_a_removal_does_not_wait_for_an_older_load() {
    let cache = memory("quotes");
    let (source, database) = (Source::gated(7), Database::default());
    let load = source.clone();
    let old = tokio::spawn({
        let cache = cache.clone();
        async move { load.read(&cache, "a").await }
    });
    source.begun().await;
    assert!(cache.remove_tag("whatever").await.is_complete());
    assert_eq!(database.read(&cache, &["a"]).await["a"], 1);
    source.let_through(1);
    assert_eq!(old.await.unwrap(), 7);
}

#[tokio::test]
async fn a_failure_reaches_every_caller_and_the_next_call_loads_again() {
    let cache = memory("quotes");
    let fail = async |_: Vec<String>| Err::<HashMap<String, u64>, _>("down");
    let error = cache.get_or_load_many(&keys(&["a", "b"]), fail).await.unwrap_err();
    assert_eq!(error.source_error(), Some(&"down"));
    let panic =
        async |_: Vec<String>| -> Result<HashMap<String, u64>, Infallible> { panic!("boom") };
    assert!(cache.get_or_load_many(&keys(&["a", "b"]), panic).await.unwrap_err().is_panic());
    assert_eq!(Database::default().read(&cache, &["a", "bb"]).await.len(), 2);
    assert_eq!(cache.stats().loads_in_flight, 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_values_for_the_next() {
    let cache = memory("quotes");
    let source = Source::gated(7);
    let load = source.clone();
    let caller = tokio::spawn({
        let cache = cache.clone();
        let load = async move |missing: Vec<String>| {
            let value = load.load().await?;
            Ok::<_, Infallible>(missing.into_iter().map(|key| (key, value)).collect())
        };
        async move { cache.get_or_load_many::<u64, _, _, _>(&keys(&["a", "b"]), load).await }
    });
    source.begun().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    source.let_through(1);
    assert_eq!(source.read(&cache, "a").await, 7);
    assert_eq!(cache.get("b").await, Some(7));
    assert_eq!(source.loads(), 1);
}

#[tokio::test]
async fn a_batch_may_bring_entries_that_say_more() {
    let cache = memory("quotes");
    let load = async |missing: Vec<String>| {
        let entry = |key: String| (key, Entry::new(1).tag("t"));
        Ok::<HashMap<String, Entry<u64>>, Infallible>(missing.into_iter().map(entry).collect())
    };
    assert_eq!(cache.get_or_load_many(&keys(&["a", "b"]), load).await.unwrap().len(), 2);
    let _ = cache.remove_tag("t").await;
    assert_eq!((cache.get("a").await, cache.get("b").await), (None, None));
}

#[tokio::test]
async fn no_keys_ask_nobody() {
    let database = Database::default();
    assert!(database.read(&memory("quotes"), &[]).await.is_empty());
    assert!(database.asked().is_empty());
}
