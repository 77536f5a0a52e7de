//! Two tenants on one Redis, whatever their names hold: neither reads or removes what is the
//! other's.

use escala_cache::{Cache, Pattern, RedisStore};
use testkit::Redis;

use super::{healthy, patient};

/// Names that would meet if separators, glob characters or bytes were taken for what they are not.
const TENANTS: [&str; 20] = [
    "a", "a:", ":a", "a:b", "a%3Ab", "a%", "*", "a*", "?", "[a]", "[^a]", "[a-z]", "\\", "\\*", "",
    "ä", "a\u{308}", "日本", "a\r\n", "a\0",
];

const ITEMS: [&str; 3] = ["b", "b:c", "*"];

type Key = (String, String);

fn key(tenant: &str, item: &str) -> Key {
    (tenant.to_owned(), item.to_owned())
}

/// A cache that has nothing in memory: it reads what stands in Redis.
fn process(store: &RedisStore) -> Cache<Key, String> {
    Cache::builder("tenants").shared(store.clone()).build().unwrap()
}

/// Every item of every tenant says whose it is, and bears its tenant as a tag.
async fn filled(store: &RedisStore) -> Cache<Key, String> {
    let cache = process(store);
    assert!(cache.clear().await.is_complete());
    for tenant in TENANTS {
        for item in ITEMS {
            let entry = escala_cache::Entry::new(format!("{tenant} {item}")).tag(tenant);
            cache.insert_with(key(tenant, item), entry).await;
        }
    }
    cache
}

/// Whose items are all there; who has lost some has lost all.
async fn owners(cache: &Cache<Key, String>) -> Vec<&'static str> {
    let mut owners = Vec::new();
    for tenant in TENANTS {
        let mut found = 0;
        for item in ITEMS {
            let read = cache.get(&key(tenant, item)).await;
            assert!(
                read.as_ref().is_none_or(|read| *read == format!("{tenant} {item}")),
                "{read:?}"
            );
            found += usize::from(read.is_some());
        }
        assert!([0, ITEMS.len()].contains(&found), "{tenant:?} has {found}");
        if found > 0 {
            owners.push(tenant);
        }
    }
    owners
}

async fn is_alone(store: &RedisStore, cache: &Cache<Key, String>, tenant: &str) {
    let others: Vec<_> = TENANTS.into_iter().filter(|other| *other != tenant).collect();
    assert_eq!(owners(cache).await, others, "removed {tenant:?}");
    assert_eq!(owners(&process(store)).await, others, "removed {tenant:?} from Redis");
}

#[tokio::test]
async fn a_tenant_reads_what_is_its_own() {
    let (_redis, store) = healthy().await;
    let cache = filled(&store).await;
    assert_eq!(owners(&cache).await, TENANTS);
    assert_eq!(owners(&process(&store)).await, TENANTS);
}

#[tokio::test]
async fn a_tenant_that_is_removed_goes_alone() {
    let (_redis, store) = healthy().await;
    for tenant in TENANTS {
        let cache = filled(&store).await;
        assert!(cache.remove_tenant(tenant).await.is_complete());
        is_alone(&store, &cache, tenant).await;
    }
}

#[tokio::test]
async fn a_tag_named_after_a_tenant_removes_its_entries_alone() {
    let (_redis, store) = healthy().await;
    for tenant in TENANTS {
        let cache = filled(&store).await;
        assert!(cache.remove_tag(tenant).await.is_complete());
        is_alone(&store, &cache, tenant).await;
    }
}

#[tokio::test]
async fn a_pattern_with_an_escaped_name_removes_its_keys_alone() {
    let redis = Redis::start().await.unwrap();
    let store = RedisStore::connect(patient(redis.url())).await.unwrap();
    for tenant in TENANTS {
        let cache: Cache<String, String> =
            Cache::builder("plain").shared(store.clone()).build().unwrap();
        for other in TENANTS {
            cache.insert(format!("user/{other}/1"), other.to_owned()).await;
        }
        let pattern = format!("user/{}/*", Pattern::escape(tenant));
        assert!(cache.remove_matching(&pattern).await.is_complete());
        let third: Cache<String, String> =
            Cache::builder("plain").shared(store.clone()).build().unwrap();
        for other in TENANTS {
            let expected = (other != tenant).then(|| other.to_owned());
            let key = format!("user/{other}/1");
            assert_eq!(cache.get(key.as_str()).await, expected, "removed {tenant:?}");
            assert_eq!(third.get(key.as_str()).await, expected, "removed {tenant:?}");
        }
    }
}

/// Applications on one Redis, told apart by their namespace, or by the name of their cache.
#[tokio::test]
async fn applications_and_caches_with_such_names_do_not_meet_either() {
    let redis = Redis::start().await.unwrap();
    let names = || TENANTS.into_iter().filter(|name| !name.is_empty());
    let mut caches = Vec::new();
    for namespace in names() {
        let config = patient(redis.url()).namespace(namespace);
        let store = RedisStore::connect(config).await.unwrap();
        for name in ["a", "a:k", "*"] {
            let cache: Cache<String, String> =
                Cache::builder(name).shared(store.clone()).build().unwrap();
            cache.insert("k:x".to_owned(), format!("{namespace} {name}")).await;
            caches.push((cache, store.clone(), namespace, name));
        }
    }
    for (number, (cache, store, namespace, name)) in caches.iter().enumerate() {
        let reader: Cache<String, String> =
            Cache::builder(*name).shared(store.clone()).build().unwrap();
        let own = format!("{namespace} {name}");
        assert_eq!(reader.get("k:x").await, Some(own), "whatever the ones before removed");
        let removal = match number % 2 {
            0 => cache.remove_matching("*").await,
            _ => cache.clear().await,
        };
        assert!(removal.is_complete());
        assert_eq!(reader.get("k:y").await, None);
    }
}
