//! Tags: one removal for many entries, whatever is under way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::task::{Context, Waker};

use escala_cache::{Cache, CacheKey, Entry, Previous};
use tokio::task::yield_now;

use crate::support::{FakeStore, Source, builder, memory};

fn tagged(value: u64, tags: &[&str]) -> Entry<u64> {
    Entry::new(value).tags(tags.iter().copied())
}

async fn filled(cache: &Cache<String, u64>) {
    cache.insert_with("a".to_owned(), tagged(1, &["x"])).await;
    cache.insert_with("b".to_owned(), tagged(2, &["x", "y"])).await;
    cache.insert_with("c".to_owned(), tagged(3, &["y"])).await;
    cache.insert("d".to_owned(), 4).await;
}

async fn all(cache: &Cache<String, u64>) -> [Option<u64>; 4] {
    [cache.get("a").await, cache.get("b").await, cache.get("c").await, cache.get("d").await]
}

/// A tagged load of what a source holds.
async fn read(cache: &Cache<String, u64>, source: &Source, key: &str, tag: &'static str) -> u64 {
    let source = source.clone();
    let load =
        async move |_: Previous<u64>| source.load().await.map(|value| Entry::new(value).tag(tag));
    cache.get_or_load_with(key, load).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_tag_removes_what_bears_it_and_nothing_else() {
    let cache = memory("items");
    filled(&cache).await;
    assert!(cache.remove_tag("x").await.is_complete());
    assert_eq!(all(&cache).await, [None, None, Some(3), Some(4)]);
    assert!(cache.remove_tag("unknown").await.is_complete());
    assert_eq!(all(&cache).await, [None, None, Some(3), Some(4)]);
    filled(&cache).await;
    assert_eq!(all(&cache).await, [Some(1), Some(2), Some(3), Some(4)], "new ones live");
}

#[tokio::test]
async fn a_tag_removes_in_the_shared_layer_and_there_for_processes_to_come() {
    let store = FakeStore::default();
    let build = || builder("items").shared(store.clone()).build().unwrap();
    let cache = build();
    filled(&cache).await;
    assert!(cache.remove_tag("x").await.is_complete());
    assert_eq!(all(&build()).await, [None, None, Some(3), Some(4)]);
    cache.insert_with("a".to_owned(), tagged(5, &["x"])).await;
    assert_eq!(build().get("a").await, Some(5));
    assert!(cache.clear().await.is_complete());
    assert_eq!(all(&build()).await, [None; 4]);
}

#[tokio::test]
async fn a_load_begun_before_its_tag_was_removed_is_not_stored() {
    for shared in [false, true] {
        let store = FakeStore::default();
        let cache = match shared {
            true => builder("items").shared(store.clone()).build().unwrap(),
            false => memory("items"),
        };
        let source = Source::gated(1);
        let load = tokio::spawn({
            let (cache, source) = (cache.clone(), source.clone());
            async move { read(&cache, &source, "a", "x").await }
        });
        source.begun().await;
        assert!(cache.remove_tag("x").await.is_complete());
        source.let_through(1);
        assert_eq!(load.await.unwrap(), 1, "who asked before gets what was there");
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(cache.get("a").await, None);
        let other = builder("items").shared(store.clone()).build().unwrap();
        assert_eq!(other.get("a").await, None);
    }
}

#[tokio::test]
async fn who_joins_a_load_after_its_tag_was_removed_is_not_given_its_value() {
    let cache = memory("items");
    let source = Source::gated(1);
    let spawn = || {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { read(&cache, &source, "a", "x").await })
    };
    let before = spawn();
    source.begun().await;
    source.set(2);
    assert!(cache.remove_tag("x").await.is_complete());
    let after = spawn();
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(source.loads(), 1, "it joined");
    source.let_through(2);
    assert_eq!(before.await.unwrap(), 1);
    assert_eq!(after.await.unwrap(), 2);
    assert_eq!(cache.get("a").await, Some(2));
}

#[tokio::test]
async fn an_expired_tag_leaves_what_may_stand_in() {
    let stale = std::time::Duration::from_secs(60);
    let cache = builder("items").stale(stale).build().unwrap();
    filled(&cache).await;
    assert!(cache.expire_tag("x").await.is_complete());
    assert_eq!(all(&cache).await, [None, None, Some(3), Some(4)]);
    let down = async || Err::<u64, _>("down");
    assert_eq!(cache.get_or_load("a", down).await.unwrap(), 1);
    assert!(cache.lookup("b").await.unwrap().stale);
    assert!(cache.remove_tag("y").await.is_complete());
    assert!(cache.lookup("b").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn many_removals_at_once_move_the_clock_together() {
    let store = FakeStore::default();
    let cache = builder("items").shared(store.clone()).build().unwrap();
    for tag in 0..200 {
        let entry = Entry::new(tag).tag(tag.to_string());
        cache.insert_with(tag.to_string(), entry).await;
    }
    // Each operation takes a while, so that they would come in each other's way.
    store.unsteady(7, 0);
    let mut removals = tokio::task::JoinSet::new();
    for tag in 0..200 {
        let cache = cache.clone();
        removals.spawn(async move { cache.remove_tag(&tag.to_string()).await });
    }
    while let Some(removal) = removals.join_next().await {
        assert!(removal.unwrap().is_complete());
    }
    let other = builder("items").shared(store.clone()).build().unwrap();
    for tag in 0..200 {
        assert_eq!(other.get(tag.to_string().as_str()).await, None);
    }
}

#[tokio::test]
async fn too_many_tags_are_not_stored_rather_than_out_of_reach() {
    let cache = memory("items");
    let tags: Vec<_> = (0..65).map(|tag| tag.to_string()).collect();
    cache.insert_with("a".to_owned(), Entry::new(1).tags(tags.clone())).await;
    assert_eq!(cache.get("a").await, None);
    cache.insert_with("a".to_owned(), Entry::new(1).tags(&tags[..64])).await;
    assert_eq!(cache.get("a").await, Some(1));
    let _ = cache.remove_tag("63").await;
    assert_eq!(cache.get("a").await, None);
}

#[tokio::test]
async fn a_fence_is_void_once_its_key_or_tag_is_removed() {
    let store = FakeStore::default();
    let cache = builder("items").shared(store.clone()).build().unwrap();
    let key = "a".to_owned();
    let fence = cache.fence(&key).await;
    assert!(cache.insert_fenced(fence, tagged(1, &["x"])));
    assert_eq!(cache.get("a").await, Some(1));

    let fence = cache.fence(&key).await;
    assert!(cache.remove("a").await.is_complete());
    assert!(!cache.insert_fenced(fence, tagged(2, &["x"])));
    assert_eq!(cache.get("a").await, None);

    let fence = cache.fence(&key).await;
    assert!(cache.remove_tag("x").await.is_complete());
    cache.insert_fenced(fence, tagged(3, &["x"]));
    assert_eq!(cache.get("a").await, None);
    for _ in 0..100 {
        yield_now().await;
    }
    let other = builder("items").shared(store.clone()).build().unwrap();
    assert_eq!(other.get("a").await, None);
    drop(cache.fence(&key).await);
    assert_eq!(Source::new(4).read(&cache, "a").await, 4);
}

#[tokio::test]
async fn tenants_are_removed_whole_and_alone() {
    let cache = Cache::<(String, u64), u64>::builder("items").build().unwrap();
    let tenants = ["a", "a:b", "*", "[a]", "ä"];
    for (value, tenant) in (0_u64..).zip(tenants) {
        for item in 0..3 {
            cache.insert((tenant.to_owned(), item), value).await;
        }
    }
    assert!(cache.remove_tenant("*").await.is_complete());
    assert!(cache.remove_tenant("a").await.is_complete());
    for (value, tenant) in (0_u64..).zip(tenants) {
        let expected = (!["a", "*"].contains(&tenant)).then_some(value);
        assert_eq!(cache.get(&(tenant.to_owned(), 1)).await, expected, "{tenant}");
    }
}

#[tokio::test]
async fn a_removal_by_tag_costs_the_same_for_one_entry_as_for_a_million() {
    let cache = memory("items");
    let load = async |_: Previous<u64>| Ok::<_, Infallible>(tagged(1, &["x"]));
    for key in 0..1_000 {
        cache.get_or_load_with(key.to_string().as_str(), load).await.unwrap();
    }
    let _ = cache.remove_tag("x").await;
    let stats = cache.stats();
    assert_eq!(stats.memory.entries, 1_000, "nothing is searched: each goes when it is read");
    assert_eq!(stats.remembered_removals, 1);
    for key in 0..1_000 {
        assert_eq!(cache.get(key.to_string().as_str()).await, None);
    }
}

/// What happens at a clone of a [`Hooked`] key, after so many others.
type Hook = (usize, Box<dyn FnOnce()>);

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// A key that lets a test act in the middle of what the cache does in one step.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Hooked(String);

impl Clone for Hooked {
    fn clone(&self) -> Self {
        let due = HOOK.take().and_then(|(others, act)| match others.checked_sub(1) {
            Some(left) => {
                HOOK.set(Some((left, act)));
                None
            }
            None => Some(act),
        });
        if let Some(act) = due {
            act();
        }
        Self(self.0.clone())
    }
}

impl CacheKey for Hooked {
    fn write_text(&self, out: &mut String) {
        self.0.write_text(out);
    }
}

/// How a key is read that lies in the shared layer, and not in memory.
#[derive(Debug, Clone, Copy)]
enum How {
    Get,
    Load,
    LoadMany,
}

async fn read_as(how: How, cache: &Cache<Hooked, u64>, key: &Hooked) {
    let entry = || tagged(2, &["x"]);
    match how {
        How::Get => drop(cache.get(key).await),
        How::Load => {
            let load = async move |_: Previous<u64>| Ok::<_, Infallible>(entry());
            cache.get_or_load_with(key, load).await.unwrap();
        }
        How::LoadMany => {
            let load = async move |keys: Vec<Hooked>| {
                let entries = keys.into_iter().map(|key| (key, entry()));
                Ok::<_, Infallible>(entries.collect::<HashMap<_, _>>())
            };
            cache.get_or_load_many(&[Hooked(key.0.clone())], load).await.unwrap();
        }
    }
}

/// The shared layer has yet to hear of it when the reader asks there.
#[tokio::test]
async fn a_tag_that_is_removed_at_any_moment_of_a_read_leaves_nothing_in_memory() {
    for how in [How::Get, How::Load, How::LoadMany] {
        let mut moment = 0;
        loop {
            let store = FakeStore::default();
            let build =
                || Cache::<Hooked, u64>::builder("items").jitter(0.0).shared(store.clone()).build();
            let key = Hooked("k".to_owned());
            let writer = build().unwrap();
            writer.insert_with(Hooked("k".to_owned()), tagged(1, &["x"])).await;
            let reader = build().unwrap();
            let removal = Rc::new(RefCell::new(None));
            let (begun, remover) = (Rc::clone(&removal), reader.clone());
            let begin = move || {
                let mut removing = Box::pin(async move { remover.remove_tag("x").await });
                // It has begun here, and goes on when it is polled again.
                let mut cx = Context::from_waker(Waker::noop());
                assert!(removing.as_mut().poll(&mut cx).is_pending());
                *begun.borrow_mut() = Some(removing);
            };
            HOOK.set(Some((moment, Box::new(begin))));
            read_as(how, &reader, &key).await;
            HOOK.set(None);
            let Some(removing) = removal.take() else { break };
            assert!(removing.await.is_complete());
            let found = reader.get(&key).await;
            assert_ne!(found, Some(1), "{how:?}, at clone {moment}");
            moment += 1;
        }
        assert!(moment > 1, "{how:?}: {moment} clones");
    }
}
