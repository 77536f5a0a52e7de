//! Settings: what is refused, hidden, read and written.

use std::time::Duration;

use escala_pool::{Pool, PoolConfig, PoolStats};

use crate::scripted::Manager;

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = PoolConfig::default();
    assert_eq!((config.max_size, config.min_idle), (10, 2));
    assert_eq!(config.idle_timeout, Duration::from_secs(30));
    assert_eq!(config.acquire_timeout, Duration::from_secs(5));
    assert_eq!(config.connect_timeout, Duration::from_secs(5));
    config.validate().unwrap();
}

#[tokio::test]
async fn a_setting_that_breaks_a_rule_is_named_with_value_and_rule() {
    let cases = [
        (PoolConfig::default().max_size(0), "max_size = 0: must be between 1 and 100000"),
        (PoolConfig::default().max_connecting(0), "max_connecting = 0: must be between"),
        (PoolConfig::default().pipelines(1_001), "pipelines = 1001: must be at most 1000"),
        (PoolConfig::default().acquire_timeout(Duration::ZERO), "acquire_timeout = 0ns: must be"),
        (PoolConfig::default().idle_timeout(Duration::MAX), "must be between 1 ms and 365 days"),
    ];
    for (config, message) in cases {
        let error = Pool::new(Manager::default(), config).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn the_connection_string_is_not_shown() {
    let config = PoolConfig::new("postgres://app:hunter2@db/shop");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn every_figure_is_exported_once() {
    let mut names = Vec::new();
    PoolStats::default().visit(&mut |name, labels, value| {
        assert!(value == 0.0);
        names.push(format!("{name}{labels:?}"));
    });
    let exported = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), exported);
    for documented in ["size", "available", "waiting"] {
        assert!(names.iter().any(|name| *name == format!("{documented}[]")));
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_file_may_set_anything_but_unknown_fields() {
    let text =
        r#"{ "url": "postgres://app:hunter2@db/shop", "max_size": 4, "idle_timeout": "1m" }"#;
    let config: PoolConfig = serde_json::from_str(text).unwrap();
    assert_eq!((config.max_size, config.idle_timeout), (4, Duration::from_secs(60)));
    assert_eq!(config.url, "postgres://app:hunter2@db/shop");
    assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
    let error = serde_json::from_str::<PoolConfig>(r#"{ "max_sise": 4 }"#).unwrap_err();
    assert!(error.to_string().contains("max_sise"));
    let stats = serde_json::to_value(PoolStats::default()).unwrap();
    assert_eq!(stats["available"], 0);
}
