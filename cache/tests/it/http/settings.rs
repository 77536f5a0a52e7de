//! Settings and figures.

use std::collections::BTreeSet;
use std::time::Duration;

use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer};

use super::support::{Origin, cache, get};

type Breach = fn(HttpCacheConfig) -> HttpCacheConfig;

#[test]
fn the_defaults_keep_every_rule_and_each_breach_is_named() {
    let good = HttpCacheConfig::default();
    good.validate().unwrap();
    let breaches: [(&str, Breach); 9] = [
        ("name", |_| HttpCacheConfig::new("")),
        ("name", |_| HttpCacheConfig::new("bäd")),
        ("max_body_bytes", |config| config.max_body_bytes(0)),
        ("max_body_bytes", |config| config.max_body_bytes(usize::MAX)),
        ("window_bytes", |config| config.window_bytes(0)),
        ("collapse_wait", |config| config.collapse_wait(Duration::ZERO)),
        ("fill_timeout", |config| config.fill_timeout(Duration::ZERO)),
        ("revalidations", |config| config.revalidations(1 << 20)),
        ("revalidation_timeout", |config| config.revalidation_timeout(Duration::ZERO)),
    ];
    for (field, breach) in breaches {
        let config = breach(good.clone());
        assert_eq!(config.validate().unwrap_err().field, field);
        let storage = HttpCache::storage("pages").build().unwrap();
        assert_eq!(HttpCache::new(storage, config).unwrap_err().field, field);
    }
}

#[cfg(feature = "serde")]
#[test]
fn settings_are_read_from_text_and_unknown_ones_are_refused() {
    let text = r#"{"name": "edge", "collapse_wait": "2s", "max_body_bytes": 1000}"#;
    let config: HttpCacheConfig = serde_json::from_str(text).unwrap();
    let expected =
        HttpCacheConfig::new("edge").collapse_wait(Duration::from_secs(2)).max_body_bytes(1_000);
    assert_eq!(config, expected);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<HttpCacheConfig>(&text).unwrap(), config);
    assert!(serde_json::from_str::<HttpCacheConfig>(r#"{"colapse": false}"#).is_err());
}

#[tokio::test(start_paused = true)]
async fn every_figure_is_exported_under_the_caches_name() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let cache = cache(HttpCacheConfig::new("edge"));
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    get(&app, "/").await;
    assert_eq!(get(&app, "/").await.field("cache-status"), "edge;hit;ttl=60");
    let mut names = BTreeSet::new();
    let mut outcomes = 0.0;
    let mut requests = 0.0;
    cache.stats().visit(&mut |name, labels, value| {
        assert!(labels.contains(&("cache", "edge")), "{name}");
        names.insert(name.to_owned());
        match name {
            "http_cache_outcomes_total" => outcomes += value,
            "http_cache_requests_total" => requests += value,
            _ => {}
        }
    });
    assert_eq!((requests, outcomes), (2.0, 2.0));
    let expected = [
        "http_cache_flights",
        "http_cache_hit_for_miss_total",
        "http_cache_in_flight",
        "http_cache_invalidations_total",
        "http_cache_outcomes_total",
        "http_cache_requests_total",
        "http_cache_revalidations_in_flight",
        "http_cache_revalidations_skipped_total",
        "http_cache_revalidations_total",
        "http_cache_stored_total",
        "http_cache_unstored_total",
        "http_cache_wait_timeouts_total",
    ];
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn responses_weigh_what_they_hold() {
    let origin = Origin::counting(&[("cache-control", "max-age=60")]);
    let storage = HttpCache::storage("pages").build().unwrap();
    let cache = super::support::over(storage, HttpCacheConfig::default());
    let app = origin.behind(HttpCacheLayer::new(cache.clone()));
    get(&app, "/").await;
    let stored = cache.cache().lookup("-::/").await.unwrap().value;
    assert!((100..2_000).contains(&stored.weight()), "{}", stored.weight());
    assert!(!format!("{stored:?}").contains("max-age"), "no field's value is shown");
}

#[test]
fn neither_the_layer_nor_its_purge_token_shows_a_secret() {
    let purge = escala_cache::http::PurgeConfig::new("a-token-of-some-length").unwrap();
    let storage = HttpCache::storage("pages").build().unwrap();
    let cache = HttpCache::new(storage, HttpCacheConfig::default()).unwrap();
    let shown = format!("{:?}", HttpCacheLayer::new(cache).purge(purge));
    assert!(!shown.contains("token-of"), "{shown}");
}
