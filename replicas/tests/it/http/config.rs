//! Settings that cannot be are refused with field, value and rule.

use std::time::Duration;

use escala_replicas::http::{HostPolicy, ProxyConfig, Upstream, UpstreamConfig};

#[test]
fn what_cannot_be_is_named() {
    let plain = ProxyConfig::default;
    for (config, field, value) in [
        (plain().attempts(0), "attempts", "0"),
        (plain().attempts(11), "attempts", "11"),
        (plain().retry_statuses([404]), "retry_statuses", "404"),
        (plain().failure_statuses([600]), "failure_statuses", "600"),
        (plain().retry_budget(1.5, 0), "retry_ratio", "1.5"),
        (plain().retry_budget(f64::NAN, 0), "retry_ratio", "NaN"),
        (plain().replay_bytes(usize::MAX), "replay_bytes", "18446744073709551615"),
        (plain().hedge_after(Duration::ZERO), "hedge_after", "0ns"),
        (plain().tunnel_idle_timeout(Duration::ZERO), "tunnel_idle_timeout", "0ns"),
        (
            plain().request_idle_timeout(Duration::MAX),
            "request_idle_timeout",
            "18446744073709551615.999999999s",
        ),
        (plain().explain("a b"), "explain", "a b"),
        (plain().via(""), "via", ""),
        (plain().host(HostPolicy::Fixed("a\n".to_owned())), "host", "a\n"),
        (plain().upgrades(["a\0".to_owned()]), "upgrades", "a\0"),
    ] {
        let error = config.validate().unwrap_err();
        assert_eq!((error.field.as_str(), error.value.as_str()), (field, value));
    }
    assert_eq!(ProxyConfig::default().validate(), Ok(()));
    let zero = UpstreamConfig::default().connect_timeout(Duration::ZERO);
    assert_eq!(zero.validate().unwrap_err().field, "connect_timeout");
}

#[test]
fn addresses_are_a_host_and_a_port() {
    let new = |address| Upstream::new(address, UpstreamConfig::default());
    for address in ["127.0.0.1:1", "http://a.example", "http://a:80/", "[::1]:80"] {
        assert!(new(address).is_ok(), "{address}");
    }
    for address in ["", "https://a", "http://a/b", "u@a", "a b", "ftp://a", ":80"] {
        let error = new(address).unwrap_err();
        assert_eq!((error.field.as_str(), error.value.as_str()), ("address", address));
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_configuration_is_read_and_an_unknown_field_is_refused() {
    let text =
        r#"{"host": {"fixed": "a"}, "trusted_proxies": ["10.0.0.0/8"], "hedge_after": "50ms"}"#;
    let config: ProxyConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.hedge_after, Some(Duration::from_millis(50)));
    let again = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<ProxyConfig>(&again).unwrap(), config);
    assert!(serde_json::from_str::<ProxyConfig>(r#"{"hosts": "upstream"}"#).is_err());
}
