//! Settings, names and exported figures.

use std::collections::BTreeSet;

use escala_queue::{Lane, LaneConfig, MemoryEngine, Overflow, Queue, QueueConfig, RetryConfig};

use crate::scene::{lane, seconds};

#[test]
fn the_documented_lanes_are_the_default_and_each_can_be_overridden() {
    let queue = Queue::builder(MemoryEngine::default())
        .documented_lanes()
        .workers(Lane::High, 8)
        .lane(Lane::Low, LaneConfig::default().capacity(5))
        .build()
        .unwrap();
    let shape = |config: &QueueConfig| {
        Lane::ALL.map(|lane| {
            let LaneConfig { workers, timeout, capacity, .. } = *config.lane(lane);
            (workers, timeout.as_secs(), capacity)
        })
    };
    let documented = [(4, 5, 10_000), (3, 10, 10_000), (2, 30, 10_000), (1, 60, 10_000)];
    assert_eq!(shape(&QueueConfig::default()), documented);
    let changed = [(8, 5, 10_000), (3, 10, 10_000), (1, 30, 5), (1, 60, 10_000)];
    assert_eq!(shape(queue.config()), changed);
    assert_eq!(lane(&queue.stats(), Lane::High).workers, 8);
}

#[test]
fn what_cannot_work_is_refused_with_field_value_and_rule() {
    let new = || Queue::builder(MemoryEngine::default());
    let engine = MemoryEngine::default;
    let retry = RetryConfig::default;
    for (builder, expected) in [
        (new().workers(Lane::High, 0), "high.workers is 0: must be from 1 to 4096"),
        (new().workers(Lane::Low, 5_000), "low.workers is 5000: must be from 1 to 4096"),
        (new().timeout(Lane::Low, seconds(0)), "low.timeout is 0ns: must be above zero"),
        (
            new().capacity(Lane::Background, 0),
            "background.capacity is 0: must be from 1 to 10000000",
        ),
        (new().overflow(Overflow::Wait(seconds(0))), "overflow.wait is 0ns: must be above zero"),
        (new().retry(retry().max_attempts(0)), "retry.max_attempts is 0: must be at least 1"),
        (new().retry(retry().base(seconds(0))), "retry.base is 0ns: must be above zero"),
        (new().retry(retry().base(seconds(400))), "retry.cap is 300s: must be at least retry.base"),
        (Queue::builder(engine().dead_letters(0)), "memory.dead_letters is 0: must be at least 1"),
        (Queue::builder(engine().key_capacity(0)), "memory.key_capacity is 0: must be at least 1"),
        (
            Queue::builder(engine().key_lifetime(seconds(0))),
            "memory.key_lifetime is 0ns: must be above zero",
        ),
    ] {
        assert_eq!(builder.build().unwrap_err().to_string(), expected);
    }
}

#[test]
fn lanes_read_as_they_are_written() {
    for lane in Lane::ALL {
        assert_eq!(lane.to_string().parse(), Ok(lane));
        let json = serde_json::to_string(&lane).unwrap();
        assert_eq!(json, format!("\"{lane}\""));
        assert_eq!(serde_json::from_str::<Lane>(&json).unwrap(), lane);
    }
    for wrong in ["", "High", "urgent"] {
        assert!(wrong.parse::<Lane>().is_err(), "{wrong}");
    }
}

#[test]
fn every_figure_is_exported_once_a_lane() {
    let queue = Queue::builder(MemoryEngine::default()).build().unwrap();
    let mut names = BTreeSet::new();
    let mut lanes = BTreeSet::new();
    queue.stats().visit(&mut |name, labels, value| {
        assert!(names.insert(format!("{name} {labels:?}")), "{name} {labels:?} twice");
        lanes.extend(labels.iter().map(|(_, lane)| (*lane).to_owned()));
        if name == "workers" && labels == [("lane", "high")] {
            assert_eq!(value, 4.0);
        }
    });
    assert_eq!(names.len(), 4 * 25 + 6);
    assert_eq!(lanes.len(), 4);
}

#[cfg(feature = "serde")]
mod file {
    use super::*;

    #[test]
    fn a_lane_in_a_file_keeps_its_documented_values_where_it_is_silent() {
        let text = r#"{
            "high": {"workers": 8},
            "background": {"timeout": "2m"},
            "overflow": {"wait": "5s"},
            "retry": {"base": "500ms"}
        }"#;
        let config: QueueConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.high, LaneConfig::documented(Lane::High).workers(8));
        assert_eq!(
            config.background,
            LaneConfig::documented(Lane::Background).timeout(seconds(120))
        );
        assert_eq!(config.medium, LaneConfig::documented(Lane::Medium));
        assert_eq!(config.overflow, Overflow::Wait(seconds(5)));
        assert_eq!(config.retry, RetryConfig::default().base(seconds(1) / 2));
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<QueueConfig>(&written).unwrap(), config);
    }

    #[test]
    fn unknown_names_in_a_file_are_refused() {
        for text in [
            r#"{"hihg": {}}"#,
            r#"{"high": {"worker": 1}}"#,
            r#"{"retry": {"factor": 2}}"#,
            r#"{"overflow": "drop"}"#,
        ] {
            assert!(serde_json::from_str::<QueueConfig>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<MemoryEngine>(r#"{"letters": 1}"#).is_err());
    }

    #[test]
    fn figures_are_written_as_json() {
        let queue = Queue::builder(MemoryEngine::default()).build().unwrap();
        let json = serde_json::to_value(queue.stats()).unwrap();
        assert_eq!(json["lanes"][0]["lane"], "high");
        assert_eq!(json["lanes"][3]["capacity"], 10_000);
    }
}
