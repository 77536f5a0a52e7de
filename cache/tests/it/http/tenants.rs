//! Tenants neither read nor purge each other's entries.

use axum::Router;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer, PurgeConfig};

use super::support::{Origin, cache, get_with, request, respond, seconds, send};

const TOKEN: &str = "a-token-of-some-length";
const BEARER: (&str, &str) = ("authorization", "Bearer a-token-of-some-length");

/// Names that would meet if they were put together without care.
const NAMES: [&str; 8] = ["a", "a:b", "a%3Ab", "*", "a*", "-", "=a", "ü"];

fn stack() -> (HttpCache, Router) {
    let origin = Origin::new(|parts, _| {
        let tenant = parts.headers.get("x-tenant").map_or(String::new(), |v| text(v.as_bytes()));
        respond(&[("surrogate-key", "list *")], &tenant)
    });
    let cache = cache(HttpCacheConfig::default());
    let layer = HttpCacheLayer::new(cache.clone())
        .ttl(seconds(600))
        .tenant(|parts| Some(text(parts.headers.get("x-tenant")?.as_bytes())))
        .purge(PurgeConfig::new(TOKEN).unwrap());
    (cache, origin.behind(layer))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn fill(app: &Router) {
    for name in NAMES {
        get_with(app, "/list", &[("x-tenant", name)]).await;
    }
    get_with(app, "/list", &[]).await;
}

/// The tenants that still have their entry; `""` is nobody's.
async fn left(app: &Router) -> Vec<&'static str> {
    let mut left = Vec::new();
    for name in NAMES {
        let cached = [("x-tenant", name), ("cache-control", "only-if-cached")];
        let got = get_with(app, "/list", &cached).await;
        if got.status.is_success() {
            assert_eq!(got.body, name, "never another's");
            left.push(name);
        }
    }
    if get_with(app, "/list", &[("cache-control", "only-if-cached")]).await.status.is_success() {
        left.push("");
    }
    left
}

#[tokio::test(start_paused = true)]
async fn each_tenant_reads_its_own() {
    let (_, app) = stack();
    fill(&app).await;
    assert_eq!(left(&app).await, ["a", "a:b", "a%3Ab", "*", "a*", "-", "=a", "ü", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_purge_reaches_its_own_tenant_only() {
    for name in NAMES {
        let expected: Vec<_> =
            NAMES.into_iter().filter(|other| *other != name).chain([""]).collect();
        for purge in [&[][..], &[("surrogate-key", "list")], &[("surrogate-key", "*")]] {
            let (_, app) = stack();
            fill(&app).await;
            let fields: Vec<_> =
                purge.iter().copied().chain([BEARER, ("x-tenant", name)]).collect();
            let done = send(&app, request("PURGE", "/list", &fields)).await;
            assert_eq!(done.status, 200);
            assert_eq!(left(&app).await, expected, "{name} {purge:?}");
        }
        let (cache, app) = stack();
        fill(&app).await;
        assert!(cache.purge_tenant(name).await.is_complete());
        assert_eq!(left(&app).await, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_nobodys_is_purged_without_touching_the_tenants() {
    let (cache, app) = stack();
    fill(&app).await;
    assert!(cache.purge_tag(None, "list").await.is_complete());
    assert_eq!(left(&app).await, NAMES);
}

#[tokio::test(start_paused = true)]
async fn a_tenants_write_leaves_the_others_alone() {
    let (_, app) = stack();
    fill(&app).await;
    send(&app, request("POST", "/list", &[("x-tenant", "a")])).await;
    assert!(!left(&app).await.contains(&"a"));
    assert_eq!(left(&app).await.len(), NAMES.len());
}
