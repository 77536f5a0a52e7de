//! Defaults are valid, and what breaks a rule is refused with its name.

use std::time::Duration;

use escala_cluster::{Breaker, BreakerConfig};

#[test]
fn the_defaults_are_valid_and_those_of_the_documents() {
    let config = BreakerConfig::default();
    config.validate().expect("valid");
    assert_eq!(config.consecutive_failures, Some(5));
    assert_eq!(config.failure_rate, Some(0.5));
    assert_eq!((config.window, config.minimum_calls), (Some(Duration::from_secs(10)), 100));
    assert_eq!((config.open_for, config.half_open_permits), (Duration::from_secs(5), 3));
    assert_eq!(config.probe_deadline, Duration::from_secs(5));
}

#[test]
fn each_rule_names_its_field() {
    let default = BreakerConfig::default;
    for (config, field) in [
        (default().consecutive_failures(0), "consecutive_failures"),
        (default().consecutive_failures(None).failure_rate(None), "consecutive_failures"),
        (default().failure_rate(0.0), "failure_rate"),
        (default().failure_rate(1.1), "failure_rate"),
        (default().failure_rate(f64::NAN), "failure_rate"),
        (default().slow_call_rate(0.0), "slow_call_rate"),
        (default().slow_call(Duration::ZERO), "slow_call"),
        (default().window(Duration::from_millis(99)), "window"),
        (default().window(None), "window"),
        (default().count_window(0), "minimum_calls"),
        (default().count_window(0).minimum_calls(1), "count_window"),
        (default().count_window(10_001), "count_window"),
        (default().count_window(20).minimum_calls(21), "minimum_calls"),
        (default().retry_after_max(Duration::MAX), "retry_after_max"),
        (default().ramp(Duration::MAX), "ramp"),
        (default().minimum_calls(0), "minimum_calls"),
        (default().minimum_calls(100_001), "minimum_calls"),
        (default().open_for(Duration::ZERO), "open_for"),
        (default().open_for_max(Duration::from_secs(1)), "open_for_max"),
        (default().jitter(-0.1), "jitter"),
        (default().half_open_permits(0), "half_open_permits"),
        (default().half_open_success_ratio(0.0), "half_open_success_ratio"),
        (default().probe_deadline(Duration::MAX), "probe_deadline"),
    ] {
        let error = Breaker::new("refused", config).expect_err(field);
        assert_eq!(error.field(), field, "{error}");
    }
    let error = default().jitter(2.0).validate().expect_err("refused");
    assert_eq!(error.to_string(), "jitter is 2, but must be between 0.0 and 1.0");
}

#[cfg(feature = "serde")]
#[test]
fn a_file_may_leave_out_everything_and_may_not_invent_fields() {
    let config: BreakerConfig =
        serde_json::from_str(r#"{"open_for": "30s", "abandoned_after": null}"#).expect("read");
    assert_eq!(config.open_for, Duration::from_secs(30));
    assert_eq!(config.abandoned_after, None);
    assert_eq!(config.window, Some(Duration::from_secs(10)));
    let written = serde_json::to_string(&config).expect("written");
    assert_eq!(serde_json::from_str::<BreakerConfig>(&written).expect("read"), config);
    let error = serde_json::from_str::<BreakerConfig>(r#"{"open_four": "30s"}"#);
    assert!(error.expect_err("unknown").to_string().contains("open_four"));
}

#[cfg(feature = "axum")]
#[test]
fn the_drain_has_the_documented_defaults_and_refuses_by_name() {
    use escala_cluster::DrainConfig;

    let default = DrainConfig::default;
    default().validate().expect("valid");
    assert_eq!(default().lame_duck, Duration::from_secs(15));
    assert_eq!(default().header_read_timeout, Duration::from_secs(10));
    for (config, field) in [
        (default().max_connections(0), "max_connections"),
        (default().header_read_timeout(Duration::ZERO), "header_read_timeout"),
        (default().idle_timeout(Duration::ZERO), "idle_timeout"),
        (default().write_timeout(Duration::ZERO), "write_timeout"),
        (default().deadline(Duration::MAX), "deadline"),
    ] {
        assert_eq!(config.validate().expect_err(field).field(), field);
    }
}

#[cfg(all(feature = "axum", feature = "serde"))]
#[test]
fn the_drain_reads_durations() {
    let config: escala_cluster::DrainConfig =
        serde_json::from_str(r#"{"lame_duck": "0s", "deadline": "1m"}"#).expect("read");
    assert_eq!((config.lame_duck, config.deadline), (Duration::ZERO, Duration::from_secs(60)));
}
