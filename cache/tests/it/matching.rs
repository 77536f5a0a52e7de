//! Removal by pattern, and keys that must not meet.

use escala_cache::{Cache, CacheKey, Pattern};

use crate::support::{FakeStore, builder, memory};

async fn filled(cache: &Cache<String, u64>, keys: &[&str]) {
    for (value, key) in keys.iter().enumerate() {
        cache.insert((*key).to_owned(), value as u64).await;
    }
}

async fn present(cache: &Cache<String, u64>, keys: &[&str]) -> Vec<String> {
    let mut present = Vec::new();
    for key in keys {
        if cache.get(*key).await.is_some() {
            present.push((*key).to_owned());
        }
    }
    present
}

const KEYS: [&str; 8] = [
    "user:4:a",
    "user:42:a",
    "user:42:b",
    "user:*:a",
    "user:[4]:a",
    "user:?:a",
    r"user:\:a",
    "ü:1",
];

#[tokio::test]
async fn a_pattern_removes_what_matches_and_nothing_else() {
    let cache = memory("users");
    filled(&cache, &KEYS).await;
    assert!(cache.remove_matching("user:42:*").await.is_complete());
    assert_eq!(
        present(&cache, &KEYS).await,
        ["user:4:a", "user:*:a", "user:[4]:a", "user:?:a", r"user:\:a", "ü:1"]
    );
}

#[tokio::test]
async fn an_escaped_user_id_removes_only_its_own_keys() {
    for (id, gone) in [("*", 3), ("[4]", 4), ("?", 5), (r"\", 6)] {
        let cache = memory("users");
        filled(&cache, &KEYS).await;
        cache.remove_matching(&format!("user:{}:*", Pattern::escape(id))).await;
        let mut rest = KEYS.to_vec();
        rest.remove(gone);
        assert_eq!(present(&cache, &KEYS).await, rest, "{id}");
    }
}

#[tokio::test]
async fn a_pattern_clears_the_shared_layer_as_it_does_memory() {
    let store = FakeStore::default();
    let cache = builder("users").shared(store.clone()).build().unwrap();
    filled(&cache, &KEYS).await;
    cache.remove_matching("user:42:?").await;
    assert_eq!(store.keys().len(), KEYS.len() - 2);
    assert_eq!(present(&cache, &KEYS).await.len(), KEYS.len() - 2);
    assert!(cache.clear().await.is_complete());
    assert!(present(&cache, &KEYS).await.is_empty());
    let other = builder("users").shared(store.clone()).build().unwrap();
    assert!(present(&other, &KEYS).await.is_empty());
}

#[tokio::test]
async fn caches_on_one_store_neither_read_nor_clear_each_other() {
    let store = FakeStore::default();
    let names = ["a", "a:b", "a%3Ab", "*", "[a]"];
    let caches: Vec<_> =
        names.iter().map(|name| builder(name).shared(store.clone()).build().unwrap()).collect();
    for (value, cache) in (0_u64..).zip(&caches) {
        cache.insert("b:c".to_owned(), value).await;
        cache.insert("c".to_owned(), value).await;
    }
    assert_eq!(store.keys().len(), 2 * names.len());
    caches[3].clear().await;
    caches[0].remove_matching("b:*").await;
    assert_eq!(store.keys().len(), 2 * names.len() - 1);
    for (value, cache) in (0_u64..).zip(&caches) {
        let expected = (value != 3).then_some(value);
        assert_eq!(cache.get("c").await, expected);
    }
}

#[tokio::test]
async fn tenants_in_tuple_keys_never_collide() {
    let store = FakeStore::default();
    let build =
        || Cache::<(String, String), u64>::builder("items").shared(store.clone()).build().unwrap();
    let key = |tenant: &str, item: &str| (tenant.to_owned(), item.to_owned());
    let cache = build();
    let keys = [key("a:b", "c"), key("a", "b:c"), key("a%3Ab", "c"), key("ä", "*"), key("*", "ä")];
    for (value, key) in (0_u64..).zip(&keys) {
        cache.insert(key.clone(), value).await;
    }
    // Another process sees them by their text alone.
    let other = build();
    for (value, key) in (0_u64..).zip(&keys) {
        assert_eq!(other.get(key).await, Some(value), "{}", key.text());
    }
    // One tenant's purge, its name escaped, leaves the others alone.
    let tenant = (String::from("*"), String::new()).text();
    cache.remove_matching(&format!("{}*", Pattern::escape(&tenant))).await;
    let fresh = build();
    for (value, key) in (0_u64..).zip(&keys) {
        assert_eq!(fresh.get(key).await, (value != 4).then_some(value));
    }
}

#[tokio::test]
async fn integer_keys_match_by_their_digits() {
    let cache = Cache::<i64, u64>::builder("numbers").build().unwrap();
    for key in [-12, 12, 120] {
        cache.insert(key, 0).await;
    }
    cache.remove_matching("12*").await;
    assert_eq!(cache.get(&-12).await, Some(0));
    assert_eq!((cache.get(&12).await, cache.get(&120).await), (None, None));
}
