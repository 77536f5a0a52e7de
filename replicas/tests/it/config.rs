//! Bad settings are refused by name, value and rule.

use std::time::Duration;

use escala_replicas::{ConfigError, Replicas, ReplicasBuilder, ReplicasConfig};

use crate::Name;

fn refused(builder: ReplicasBuilder<Name>) -> ConfigError {
    builder.build().unwrap_err()
}

fn with(config: ReplicasConfig) -> String {
    refused(Replicas::builder("primary").config(config)).to_string()
}

#[test]
fn the_defaults_are_the_documented_ones_and_valid() {
    let config = ReplicasConfig::default();
    assert_eq!(config.health_interval, Duration::from_secs(15));
    assert_eq!(config.probe_timeout, Duration::from_secs(1));
    assert_eq!(config.consecutive_failures, 3);
    assert_eq!(config.ejection_base, Duration::from_secs(30));
    assert_eq!(config.ejection_max, Duration::from_secs(300));
    assert_eq!(config.slow_start, Duration::from_secs(30));
    assert_eq!((config.failure_percent, config.failure_min_requests), (85, 50));
    assert_eq!((config.max_ejected_percent, config.panic_percent), (100, 50));
    assert_eq!((config.primary_read_share, config.max_wait), (0.2, Duration::ZERO));
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn figures_out_of_bounds_are_refused() {
    let config = ReplicasConfig::default;
    let day_and_more = Duration::from_secs(86_401);
    let rule = "but must be longer than zero and at most 24 hours";
    assert_eq!(
        with(config().health_interval(Duration::ZERO)),
        format!("health_interval is \"0ns\", {rule}")
    );
    assert_eq!(
        with(config().probe_timeout(Duration::ZERO)),
        format!("probe_timeout is \"0ns\", {rule}")
    );
    assert_eq!(
        with(config().ejection_base(Duration::ZERO)),
        format!("ejection_base is \"0ns\", {rule}")
    );
    assert_eq!(
        with(config().ejection_max(day_and_more)),
        format!("ejection_max is \"86401s\", {rule}")
    );
    assert_eq!(
        with(config().ejection_max(Duration::from_secs(1))),
        "ejection_max is \"1s\", but must be at least ejection_base"
    );
    assert_eq!(
        with(config().consecutive_failures(0)),
        "consecutive_failures is \"0\", but must be at least 1"
    );
    assert_eq!(
        with(config().failure_window(Duration::ZERO)),
        format!("failure_window is \"0ns\", {rule}")
    );
    for (field, config) in [
        ("slow_start", config().slow_start(day_and_more)),
        ("max_wait", config().max_wait(day_and_more)),
    ] {
        assert_eq!(with(config), format!("{field} is \"86401s\", but must be at most 24 hours"));
    }
    assert!(config().slow_start(Duration::ZERO).max_waiters(0).validate().is_ok());
    assert_eq!(
        with(config().failure_min_requests(0)),
        "failure_min_requests is \"0\", but must be at least 1"
    );
    for percent in [0, 101] {
        assert_eq!(
            with(config().failure_percent(percent)),
            format!("failure_percent is \"{percent}\", but must be from 1 to 100")
        );
    }
    for (field, config) in [
        ("max_ejected_percent", config().max_ejected_percent(101)),
        ("panic_percent", config().panic_percent(101)),
    ] {
        assert_eq!(with(config), format!("{field} is \"101\", but must be at most 100"));
    }
    assert_eq!(
        with(config().zone("")),
        "zone is \"\", but must have 1 to 64 bytes and no control characters"
    );
    for times in [0.9, f64::NAN, f64::INFINITY] {
        assert_eq!(
            with(config().zone_overload(times)),
            format!("zone_overload is \"{times}\", but must be from 1.0 to 1000.0")
        );
    }
    assert_eq!(
        with(config().primary_read_share(1.5)),
        "primary_read_share is \"1.5\", but must be from 0.0 to 1.0"
    );
    for jitter in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(
            with(config().jitter(jitter)),
            format!("jitter is \"{jitter}\", but must be from 0.0 to 1.0")
        );
    }
}

#[test]
fn bad_nodes_are_refused() {
    let set = || Replicas::builder("primary").replica("a", 1, "a");
    for weight in [0, 1_001] {
        let error = refused(set().replica("b", weight, "b"));
        assert_eq!(error.field, "member[2].weight");
        assert_eq!(error.value, weight.to_string());
    }
    for name in ["a", "primary"] {
        let error = refused(set().replica(name, 1, "b"));
        assert_eq!((error.field.as_str(), error.value.as_str()), ("member[2].name", name));
        assert_eq!(error.rule, "differ from every other node's name");
    }
    for name in ["", "two\nlines", &"x".repeat(65)] {
        let error = refused(set().replica(name, 1, "b"));
        assert_eq!((error.field.as_str(), error.value.as_str()), ("member[2].name", name));
        assert_eq!(error.rule, "have 1 to 64 bytes and no control characters");
    }
    assert_eq!(
        refused(Replicas::without_primary()).to_string(),
        "number of nodes is \"0\", but must be from 1 to 64, the primary included"
    );
    let crowd = |count| {
        (0..count)
            .fold(Replicas::builder("primary"), |set, at| set.replica(format!("{at}"), 1, "a"))
    };
    assert!(crowd(63).build().is_ok());
    assert_eq!(refused(crowd(64)).value, "65");
}

#[test]
fn a_balancer_may_call_a_node_primary() {
    assert!(Replicas::without_primary().replica("primary", 1, "a").build().is_ok());
}

#[test]
fn a_probe_needs_a_runtime() {
    let set = Replicas::builder("primary").probe(|_: Name| std::future::ready(Ok(())));
    let error = refused(set);
    assert_eq!(error.field, "probe");
    assert!(error.to_string().ends_with("on which it will run"), "{error}");
    assert!(Replicas::builder("primary").build().is_ok(), "without one, none is needed");
}

#[cfg(feature = "serde")]
#[test]
fn configuration_reads_durations_in_words_and_refuses_unknown_fields() {
    use escala_replicas::Strategy;

    let text = r#"{"health_interval": "250ms", "consecutive_failures": 5}"#;
    let config: ReplicasConfig = serde_json::from_str(text).unwrap();
    let expected = ReplicasConfig::default()
        .health_interval(Duration::from_millis(250))
        .consecutive_failures(5);
    assert_eq!(config, expected);
    let again = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<ReplicasConfig>(&again).unwrap(), config);
    let error = serde_json::from_str::<ReplicasConfig>(r#"{"interval": "1s"}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `interval`"), "{error}");
    for strategy in
        [Strategy::RoundRobin, Strategy::Weighted, Strategy::LeastLoaded, Strategy::PeakEwma]
    {
        assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.as_str());
        assert_eq!(serde_json::from_value::<Strategy>(strategy.as_str().into()).unwrap(), strategy);
    }
}
