//! Settings that break a rule are refused by name.

use std::time::Duration;

use escala_cache::{Cache, CacheConfig, ConfigError, Memory};

fn refused(change: impl FnOnce(&mut CacheConfig)) -> ConfigError {
    let mut config = CacheConfig::new("quotes");
    change(&mut config);
    Cache::<String, u64>::builder(config).build().unwrap_err()
}

#[test]
fn each_rule_names_field_value_and_rule() {
    let errors = [
        refused(|config| config.name.clear()),
        refused(|config| config.name = "x".repeat(65)),
        refused(|config| config.ttl = Duration::ZERO),
        refused(|config| config.memory = Memory::entries(0)),
        refused(|config| config.memory.ttl = Duration::ZERO),
        refused(|config| config.shared_ttl = Duration::ZERO),
        refused(|config| config.jitter = f64::NAN),
        refused(|config| config.load_timeout = Duration::ZERO),
        refused(|config| config.max_value_bytes = 0),
    ];
    let fields = errors.each_ref().map(|error| error.field);
    assert_eq!(
        fields,
        [
            "name",
            "name",
            "ttl",
            "memory.capacity",
            "memory.ttl",
            "shared_ttl",
            "jitter",
            "load_timeout",
            "max_value_bytes"
        ]
    );
    assert_eq!(errors[3].to_string(), "memory.capacity = 0: must be at least 1");
}

#[test]
fn the_defaults_are_valid_once_named() {
    CacheConfig::new("quotes").validate().unwrap();
    assert_eq!(CacheConfig::default().validate().unwrap_err().field, "name");
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_address_is_never_shown() {
    let config = escala_cache::RedisConfig::new("redis://user:hunter2@localhost");
    assert!(!format!("{config:?}").contains("hunter2"));
    let secrets = escala_cache::RedisConfig::sentinel(["redis://:hunter2@a"], "main")
        .username("alice")
        .password("hunter2")
        .tls(escala_cache::RedisTls::default().certificate("client.pem", "hunter2"));
    let shown = format!("{secrets:?}");
    assert!(shown.contains("alice") && shown.contains("client.pem") && shown.contains("main"));
    assert!(!shown.contains("hunter2"), "{shown}");
    let error = escala_cache::RedisConfig::new("nonsense:hunter2").validate().unwrap_err();
    assert_eq!(error.field, "url");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[cfg(feature = "serde")]
#[test]
fn a_file_holds_the_same_settings_and_no_others() {
    let text = r#"{"name": "quotes", "ttl": "30s", "memory": {"capacity": 7}}"#;
    let config: CacheConfig = serde_json::from_str(text).unwrap();
    let mut expected = CacheConfig::new("quotes");
    expected.ttl = Duration::from_secs(30);
    expected.memory = Memory::entries(7);
    assert_eq!(config, expected);
    let refused = serde_json::from_str::<CacheConfig>(r#"{"tll": "30s"}"#).unwrap_err();
    assert!(refused.to_string().contains("unknown field `tll`"));
    let written = serde_json::to_string(&expected).unwrap();
    assert_eq!(serde_json::from_str::<CacheConfig>(&written).unwrap(), expected);
}

#[cfg(all(feature = "serde", feature = "redis"))]
#[test]
fn a_redis_address_is_read_but_not_written() {
    let text = r#"{"url": "redis://:hunter2@localhost", "operation_timeout": "20ms"}"#;
    let config: escala_cache::RedisConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.url, "redis://:hunter2@localhost");
    assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));

    let text = r#"{
        "topology": {"sentinel": {"master": "main"}},
        "nodes": ["redis://:hunter2@a", "redis://b"],
        "password": "hunter2",
        "tls": {"authority": "ca.pem", "certificate": "client.pem", "key": "hunter2"},
        "keepalive": "5s"
    }"#;
    let config: escala_cache::RedisConfig = serde_json::from_str(text).unwrap();
    config.validate().unwrap();
    assert_eq!(config.topology, escala_cache::Topology::Sentinel { master: "main".to_owned() });
    assert_eq!(config.tls.key.as_deref(), Some("hunter2"));
    let written = serde_json::to_string(&config).unwrap();
    assert!(written.contains("ca.pem") && !written.contains("hunter2"), "{written}");
    let cluster = r#"{"topology": "cluster", "nodes": ["redis://a"]}"#;
    let cluster: escala_cache::RedisConfig = serde_json::from_str(cluster).unwrap();
    assert_eq!(cluster, escala_cache::RedisConfig::cluster(["redis://a"]));
}
