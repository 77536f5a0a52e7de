//! A circuit for every key: which are kept, which are forgotten, and that every call is counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use escala_cluster::{
    BreakerConfig, BreakerRegistry, KeyOverflow, RegistryConfig, RegistryStats, State,
};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::advance;

use crate::states::config;

fn registry(config: RegistryConfig) -> BreakerRegistry<String> {
    BreakerRegistry::new("hosts", config).expect("valid")
}

fn of(max_keys: u32) -> RegistryConfig {
    RegistryConfig::default().breaker(config()).max_keys(max_keys)
}

fn fail(registry: &BreakerRegistry<String>, key: &str, times: u32) {
    for _ in 0..times {
        registry.admit(key).expect("let in").failed();
    }
}

fn check(stats: &RegistryStats, asked: u64, in_flight: u64) {
    assert_eq!(stats.admitted_total + stats.rejected_total, asked, "{stats:?}");
    assert_eq!(stats.in_flight, in_flight, "{stats:?}");
    let ended = stats.succeeded_total
        + stats.failed_total
        + stats.throttled_total
        + stats.ignored_total
        + stats.cancelled_total
        + stats.abandoned_total
        + stats.panicked_total;
    assert_eq!(stats.admitted_total, ended + in_flight, "{stats:?}");
    assert_eq!(stats.created_total, stats.keys + stats.evicted_total, "{stats:?}");
    assert_eq!(stats.keys, stats.closed + stats.half_open + stats.open, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_is_left_alone_and_the_others_are_not() {
    let registry = registry(of(100));
    fail(&registry, "a", 5);
    assert!(registry.admit("a").is_err());
    registry.admit("b").expect("another circuit").succeeded();
    assert_eq!(registry.get("a").expect("kept").state(), State::Open);
    assert!(registry.get("c").is_none(), "asking makes none");
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.closed, stats.open), (2, 1, 1));
    assert_eq!(stats.named[0].name, "hosts/a");
    check(&stats, 7, 0);
}

#[tokio::test(start_paused = true)]
async fn small_registries_hold_what_they_say_they_hold() {
    for max_keys in [1, 2, 20, 33] {
        let registry = registry(of(max_keys));
        for key in 0..max_keys {
            fail(&registry, &key.to_string(), 1);
        }
        let stats = registry.stats();
        assert_eq!((stats.keys, stats.overflow_total), (u64::from(max_keys), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_without_a_blemish_make_room_and_the_longest_unused_goes_first() {
    let registry = registry(of(8));
    for key in 0..8 {
        registry.admit(&key.to_string()).expect("closed").succeeded();
    }
    for fresh in 100..200 {
        // Used all the time.
        registry.admit("0").expect("closed").succeeded();
        registry.admit(&fresh.to_string()).expect("closed").succeeded();
    }
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.evicted_total, stats.overflow_total), (8, 100, 0));
    check(&stats, 208, 0);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_new_keys_pushes_out_neither_what_is_open_nor_what_has_failures() {
    let registry = registry(of(64));
    for key in 0..8 {
        fail(&registry, &format!("open{key}"), 5);
        fail(&registry, &format!("failing{key}"), 4);
    }
    for key in 0..10_000 {
        registry.admit(&format!("flood{key}")).expect("closed").succeeded();
    }
    for key in 0..8 {
        let open = registry.get(&format!("open{key}")).expect("kept");
        assert_eq!(open.state(), State::Open);
        fail(&registry, &format!("failing{key}"), 1);
        assert!(registry.admit(&format!("failing{key}")).is_err(), "its failures count on");
    }
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.open, stats.overflow_total), (64, 16, 0));
}

#[tokio::test(start_paused = true)]
async fn neither_a_flood_of_new_keys_nor_idleness_ends_a_ramp() {
    let slowly = of(16).breaker(config().half_open_permits(1).ramp(Duration::from_secs(60)));
    let registry = registry(slowly.idle_after(Duration::from_secs(30)));
    fail(&registry, "cold", 5);
    advance(Duration::from_secs(6)).await;
    registry.admit("cold").expect("a trial").succeeded();
    advance(Duration::from_secs(1)).await;
    for key in 0..500 {
        registry.admit(&format!("flood{key}")).expect("closed").succeeded();
    }
    assert!(registry.get("cold").is_some());
    let passed = (0..200).filter(|_| registry.admit("cold").map(|it| it.succeeded()).is_ok());
    let passed = passed.count();
    assert!(passed < 100, "{passed} of 200, and a tenth should");
    registry.evict_idle();
    advance(Duration::from_secs(40)).await;
    registry.evict_idle();
    assert!(registry.get("cold").is_some());
    advance(Duration::from_secs(60)).await;
    registry.evict_idle();
    assert!(registry.get("cold").is_none());
}

#[tokio::test(start_paused = true)]
async fn failures_are_kept_for_as_long_as_the_circuit_s_own_window_says() {
    let overrides = |key: &String| match key.as_str() {
        "long window" => Some(config().window(Duration::from_secs(120))),
        "window of calls" => Some(config().window(None).count_window(20)),
        "row only" => Some(config().window(None).failure_rate(None)),
        _ => None,
    };
    let registry = BreakerRegistry::with_overrides("hosts", of(8), overrides).expect("valid");
    let own = ["long window", "window of calls", "row only"];
    for key in own.into_iter().chain(["shared"]) {
        fail(&registry, key, 4);
    }
    for wave in 0..3 {
        for key in 0..100 {
            registry.admit(&format!("{wave} {key}")).expect("closed").succeeded();
        }
        advance(Duration::from_secs(11)).await;
    }
    assert!(registry.get("shared").is_none(), "its window is empty");
    for key in own {
        fail(&registry, key, 1);
        assert!(registry.admit(key).is_err(), "{key}");
    }
    assert_eq!(registry.stats().invalid_overrides_total, 0);
}

#[tokio::test(start_paused = true)]
async fn circuits_that_may_be_tried_and_nobody_tries_make_room() {
    let registry = registry(of(100));
    for key in 0..100 {
        fail(&registry, &format!("down{key}"), 5);
    }
    fail(&registry, "new", 6);
    assert_eq!(registry.stats().overflow_total, 6, "all the others are open");
    for second in 1..=30 {
        advance(Duration::from_secs(1)).await;
        registry.admit(&format!("new{second}")).expect("let through").succeeded();
        if let Ok(permit) = registry.admit("down0") {
            permit.failed();
        }
    }
    fail(&registry, "new", 5);
    assert!(registry.admit("new").is_err(), "it has a circuit now");
    assert_eq!(registry.breaker("down0").stats().opened_total, 3, "after 5 s and 10 s");
    check(&registry.stats(), 500 + 6 + 30 + 30 + 6, 0);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_is_not_forgotten_while_its_last_call_still_tells_what_it_meant() {
    let registry = registry(of(1).breaker(config().half_open_permits(1)));
    let asked = registry.clone();
    registry.on_transition(move |transition| {
        if transition.to == State::Closed {
            asked.admit("another").expect("let through").succeeded();
        }
    });
    fail(&registry, "back", 5);
    advance(Duration::from_secs(6)).await;
    registry.admit("back").expect("a trial").succeeded();
    assert!(registry.get("back").is_some());
    assert_eq!(registry.stats().overflow_total, 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_outlives_its_idle_time_until_its_open_time_is_over() {
    let long = of(4).breaker(config().open_for(Duration::from_secs(60)));
    let registry = registry(long.idle_after(Duration::from_secs(10)));
    fail(&registry, "down", 5);
    registry.admit("up").expect("closed").succeeded();
    assert_eq!(registry.evict_idle(), 0);
    advance(Duration::from_secs(59)).await;
    assert_eq!(registry.evict_idle(), 1, "the one that is closed");
    assert!(registry.admit("down").is_err());
    assert_eq!(registry.evict_idle(), 0);
    advance(Duration::from_secs(2)).await;
    // Asked a moment ago: it may still be tried.
    assert_eq!(registry.evict_idle(), 0);
    advance(Duration::from_secs(10)).await;
    assert_eq!(registry.evict_idle(), 1);
    check(&registry.stats(), 7, 0);
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_wanted_and_what_is_in_use_is_kept() {
    let registry = registry(of(16).idle_after(Duration::from_secs(1)));
    registry.breaker("forced open").force_open();
    registry.breaker("forced closed").force_close();
    let handle = registry.breaker("held");
    let permit = registry.admit("under way").expect("closed");
    registry.admit("idle").expect("closed").succeeded();
    advance(Duration::from_secs(60)).await;
    assert_eq!(registry.evict_idle(), 1);
    assert!(registry.get("idle").is_none());
    drop(handle);
    permit.succeeded();
    assert_eq!(registry.evict_idle(), 0, "in use until a moment ago");
    advance(Duration::from_secs(60)).await;
    assert_eq!(registry.evict_idle(), 2);
    assert_eq!(registry.stats().keys, 2);
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten_as_others_come() {
    let registry = registry(of(10_000).idle_after(Duration::from_secs(60)));
    for key in 0..1_000 {
        fail(&registry, &key.to_string(), 1);
    }
    advance(Duration::from_secs(61)).await;
    for key in 1_000..2_000 {
        fail(&registry, &key.to_string(), 1);
    }
    let stats = registry.stats();
    assert!(stats.keys < 1_100, "far below the bound: {}", stats.keys);
    check(&stats, 2_000, 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_without_room_goes_through_unguarded_and_is_counted() {
    let registry = registry(of(4));
    let permits: Vec<_> =
        (0..4).map(|key| registry.admit(&key.to_string()).expect("closed")).collect();
    fail(&registry, "one too many", 20);
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.overflow_total, stats.failed_total), (4, 20, 20));
    check(&stats, 24, 4);
    // Room again, which is looked for after a moment.
    drop(permits);
    advance(Duration::from_millis(2)).await;
    fail(&registry, "one too many", 5);
    assert!(registry.admit("one too many").is_err());
    check(&registry.stats(), 30, 0);
}

#[tokio::test(start_paused = true)]
async fn keys_without_room_may_share_a_circuit() {
    let registry = registry(of(1).overflow(KeyOverflow::Shared));
    let _permit = registry.admit("first").expect("closed");
    for key in 0..5 {
        fail(&registry, &key.to_string(), 1);
    }
    assert!(registry.admit("anybody").is_err());
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.overflow_total, stats.rejected_total), (1, 6, 1));
    assert_eq!(stats.named[0].name, "hosts (overflow)");
    check(&stats, 7, 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_may_have_a_configuration_of_its_own() {
    let overrides = |key: &String| match key.as_str() {
        "touchy" => Some(config().consecutive_failures(1)),
        "wrong" => Some(config().consecutive_failures(0)),
        _ => None,
    };
    let registry = BreakerRegistry::with_overrides("hosts", of(10), overrides).expect("valid");
    fail(&registry, "touchy", 1);
    assert!(registry.admit("touchy").is_err());
    fail(&registry, "other", 4);
    // What is not valid is as if it were not there.
    fail(&registry, "wrong", 5);
    assert!(registry.admit("wrong").is_err());
    assert!(registry.admit("other").is_ok());
    assert_eq!(registry.stats().invalid_overrides_total, 1);
}

#[test]
fn a_call_whose_circuit_is_kept_allocates_nothing() {
    let registry = registry(of(100));
    registry.admit("api.example:443").expect("closed").succeeded();
    let allocated = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            registry.admit("api.example:443").expect("closed").succeeded();
        }
    });
    assert_eq!(allocated.count_total, 0);
}

// The memory of governor's keyed limiters, and of every breaker registry of Java and Rust, grows
// with each key that was ever seen.
#[test]
fn a_million_keys_take_no_more_memory_than_the_bound_allows() {
    const BOUND: u32 = 1_000;
    let registry = BreakerRegistry::<u32>::new("tenants", of(BOUND)).expect("valid");
    let run = |from: u32, to: u32| {
        for key in from..to {
            let permit = registry.admit(&key).expect("closed");
            // Some fail, so that circuits of every kind are among them.
            if key % 7 == 0 { permit.failed() } else { permit.succeeded() }
        }
    };
    // Until every part has been as full as it gets.
    run(0, 20_000);
    let grown = allocation_counter::measure(|| run(20_000, 1_000_000));
    assert!(grown.bytes_current.abs() < 64 * 1_024, "{} bytes more", grown.bytes_current);
    assert!(grown.bytes_max < 128 * 1_024, "{} bytes more for a while", grown.bytes_max);
    let stats = registry.stats();
    assert!(stats.keys <= u64::from(BOUND), "{stats:?}");
    check(&stats, 1_000_000, 0);
}

#[test]
fn many_threads_make_one_circuit_a_key_and_never_too_many() {
    // A thread that stands still has not abandoned its call.
    let registry = registry(of(50).breaker(config().abandoned_after(None)));
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let registry = &registry;
            scope.spawn(move || {
                for call in 0..5_000_u32 {
                    // A few that all use, and a stream of strangers.
                    let key = if call % 2 == 0 { call % 20 } else { 1_000 * (thread + 1) + call };
                    let key = key.to_string();
                    drop(registry.admit(&key).expect("closed"));
                    if call % 64 == 0 {
                        let stats = registry.stats();
                        assert!(stats.keys <= 2 * 50, "{stats:?}");
                    }
                }
            });
        }
    });
    let stats = registry.stats();
    check(&stats, 20_000, 0);
    assert!(stats.keys <= 50, "{stats:?}");
    assert_eq!(stats.cancelled_total, 20_000);
    let names: BTreeSet<_> =
        registry.breakers(1_000).into_iter().map(|breaker| breaker.name).collect();
    assert_eq!(names.len() as u64, stats.keys, "no key twice");
}

#[tokio::test(start_paused = true)]
async fn figures_name_a_bounded_number_of_circuits_and_the_worst_of_them() {
    let registry = registry(of(1_000).named_keys(3));
    for key in 0..500 {
        fail(&registry, &key.to_string(), 5);
    }
    for _ in 0..3 {
        assert!(registry.admit("321").is_err());
    }
    assert!(registry.admit("123").is_err());
    let stats = registry.stats();
    let names: Vec<_> = stats.named.iter().map(|breaker| breaker.name.as_str()).collect();
    assert_eq!((names.len(), names[0], names[1]), (3, "hosts/321", "hosts/123"));
    assert_eq!(registry.breakers(10).len(), 10);

    let mut series = BTreeSet::new();
    stats.visit(&mut |name, labels, value| {
        assert_eq!(labels[0], ("registry", "hosts"));
        assert!(series.insert((name.to_owned(), labels.get(1).map(|label| label.1.to_owned()))));
        if name == "open" {
            assert_eq!(value, 500.0);
        }
    });
    assert_eq!(series.len(), 24 + 3 * 3);
}

#[test]
fn a_name_shows_no_more_of_a_key_than_is_good() {
    let registry = registry(of(10));
    let long = "ü".repeat(1_000);
    let name = registry.breaker(&long).name().to_owned();
    assert!(name.starts_with("hosts/üü") && name.ends_with('…'), "{name}");
    assert!(name.len() < 150, "{}", name.len());
}

#[test]
fn each_rule_names_its_field() {
    for (config, field) in [
        (of(0), "max_keys"),
        (of(1_000_001), "max_keys"),
        (of(1).idle_after(Duration::ZERO), "idle_after"),
        (of(1).idle_after(Duration::from_secs(86_401)), "idle_after"),
        (of(1).named_keys(101), "named_keys"),
        (of(1).breaker(BreakerConfig::default().jitter(2.0)), "jitter"),
    ] {
        assert_eq!(config.validate().expect_err(field).field(), field);
        assert!(BreakerRegistry::<String>::new("hosts", config).is_err());
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_file_may_set_a_part_of_it() {
    let text = r#"{"max_keys": 7, "idle_after": "90s", "overflow": "shared", "breaker": {"open_for": "1s"}}"#;
    let config: RegistryConfig = serde_json::from_str(text).expect("read");
    assert_eq!((config.max_keys, config.idle_after), (7, Duration::from_secs(90)));
    assert_eq!(
        (config.overflow, config.breaker.open_for),
        (KeyOverflow::Shared, Duration::from_secs(1))
    );
    assert!(serde_json::from_str::<RegistryConfig>(r#"{"max_key": 7}"#).is_err());
}

#[tokio::test(start_paused = true)]
async fn another_configuration_reaches_every_circuit_but_those_with_their_own() {
    let overrides = |key: &String| (key == "own").then(|| config().consecutive_failures(4));
    let registry = BreakerRegistry::with_overrides("hosts", of(3), overrides).expect("valid");
    for key in ["own", "first", "second"] {
        fail(&registry, key, 2);
    }
    let touchy = of(2).breaker(config().consecutive_failures(3)).overflow(KeyOverflow::Shared);
    registry.reconfigure(touchy).expect("valid");
    // What was counted counts on.
    fail(&registry, "first", 1);
    assert!(registry.admit("first").is_err());
    fail(&registry, "own", 2);
    assert!(registry.admit("own").is_err());
    // There are more than the new bound allows: they stay, and no other comes.
    fail(&registry, "overflow", 3);
    assert!(registry.admit("overflow").is_err(), "which is a circuit now");
    assert_eq!(registry.stats().keys, 3);
    let refused = registry.reconfigure(of(0)).expect_err("not valid");
    assert_eq!(refused.field(), "max_keys");
    assert!(registry.admit("first").is_err());
}

#[test]
fn of_configurations_set_at_once_one_holds_for_all() {
    let registry = registry(of(20));
    let kept: Vec<_> = (0..10).map(|key| registry.breaker(&key.to_string())).collect();
    for round in 0..300 {
        std::thread::scope(|scope| {
            for failures in [1, 2] {
                let config = of(20).breaker(config().consecutive_failures(failures));
                let registry = &registry;
                scope.spawn(move || registry.reconfigure(config).expect("valid"));
            }
        });
        let new = registry.breaker(&format!("new in {round}")).config();
        assert!(kept.iter().all(|breaker| breaker.config() == new));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lower_bound_makes_room_at_once() {
    let registry = registry(of(200));
    for key in 0..400 {
        registry.admit(&(key % 200).to_string()).expect("closed").succeeded();
    }
    registry.reconfigure(of(100)).expect("valid");
    assert_eq!(registry.stats().keys, 100, "those that were just used, too");
    let held: Vec<_> = (0..60).map(|key| registry.breaker(&key.to_string())).collect();
    registry.reconfigure(of(10)).expect("valid");
    assert_eq!(registry.stats().keys, 60, "those in use stay");
    drop(held);
    for key in 1_000..1_100 {
        registry.admit(&key.to_string()).expect("let through").succeeded();
        advance(Duration::from_millis(2)).await;
    }
    let stats = registry.stats();
    assert!(stats.keys <= 10, "{stats:?}");
    check(&stats, 500, 0);
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_of_every_circuit_and_may_ask_the_registry() {
    let slow = config()
        .failure_rate(None)
        .slow_call_rate(0.5)
        .slow_call(Duration::from_millis(100))
        .minimum_calls(2);
    let registry = registry(of(100).breaker(slow));
    let (told, asked) = (Arc::new(Mutex::new(Vec::new())), registry.clone());
    fail(&registry, "before", 1);
    let heard = Arc::clone(&told);
    registry.on_transition(move |transition| {
        // All of this takes the locks of the registry.
        let stats = asked.stats();
        asked.breaker(&format!("made by {}", transition.breaker));
        asked.evict_idle();
        heard.lock().push((transition.breaker.clone(), transition.to, stats.keys));
    });
    fail(&registry, "before", 4);
    fail(&registry, "after", 5);
    // Slow calls under way are noticed by the next one, which is the one that tells.
    let permits: Vec<_> = (0..4).map(|_| registry.admit("slow").expect("closed")).collect();
    advance(Duration::from_secs(1)).await;
    assert!(registry.admit("slow").is_err());
    drop(permits);
    let told: Vec<_> = told.lock().iter().map(|(name, to, _)| (name.clone(), *to)).collect();
    let expected = ["hosts/before", "hosts/after", "hosts/slow"];
    assert_eq!(told, expected.map(|name| (name.to_owned(), State::Open)));
    assert_eq!(registry.stats().keys, 6);
}

#[test]
fn a_key_whose_circuit_cannot_be_made_takes_no_place() {
    let overrides = |key: &String| match key.as_str() {
        "bad" => std::panic::resume_unwind(Box::new("a bug")),
        _ => None,
    };
    let registry = BreakerRegistry::with_overrides("hosts", of(1), overrides).expect("valid");
    for _ in 0..3 {
        let made =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| registry.breaker("bad")));
        assert!(made.is_err());
    }
    fail(&registry, "good", 1);
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.overflow_total), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn circuits_in_shadow_reject_nothing_and_are_kept() {
    let registry = registry(of(10).idle_after(Duration::from_secs(1)));
    registry.breaker("tried out").shadow();
    fail(&registry, "tried out", 7);
    advance(Duration::from_secs(60)).await;
    assert_eq!(registry.evict_idle(), 0);
    registry.breaker("off").disable();
    fail(&registry, "off", 7);
    advance(Duration::from_secs(60)).await;
    assert_eq!(registry.evict_idle(), 0);
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.admitted_total, stats.shadow_rejected_total), (2, 7, 2));
}

/// What the proptest below does in one step: a call of a key, how it ends, and how long nothing
/// happens then.
type Step = (u32, u8, u64);

/// Whatever happens: no key twice, none too many, no call lost, and nobody forgets that a backend is
/// down.
async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    const BOUND: u32 = 8;
    let config = of(BOUND).breaker(config().consecutive_failures(2));
    let registry = BreakerRegistry::<u32>::new("keys", config.idle_after(Duration::from_secs(8)))
        .expect("valid");
    let mut held = Vec::new();
    for (asked, (key, end, wait)) in (1..).zip(steps) {
        let open: Vec<_> = (0..40)
            .filter(|key| registry.get(key).is_some_and(|kept| kept.state() == State::Open))
            .collect();
        match registry.admit(&key) {
            Ok(permit) if end == 0 => held.push(permit),
            Ok(permit) if end < 4 => permit.failed(),
            Ok(permit) => permit.succeeded(),
            Err(_) => {}
        }
        for key in open {
            let kept = registry.get(&key);
            prop_assert!(kept.is_some_and(|kept| kept.state() == State::Open), "{key}");
        }
        if wait == 1 {
            held.clear();
        }
        advance(Duration::from_millis(wait * wait)).await;
        let stats = registry.stats();
        check(&stats, asked, held.len() as u64);
        let names: BTreeSet<_> =
            registry.breakers(100).into_iter().map(|breaker| breaker.name).collect();
        prop_assert_eq!(names.len() as u64, stats.keys, "no key twice");
        prop_assert!(stats.keys <= u64::from(BOUND));
        for name in names {
            let key: u32 = name.trim_start_matches("keys/").parse().expect("a number");
            let kept = registry.get(&key).map(|breaker| breaker.name().to_owned());
            prop_assert_eq!(kept, Some(name), "found where it is");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn over_random_histories_nothing_is_lost(
        steps in prop::collection::vec((0_u32..40, 0_u8..10, 0_u64..70), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(steps))?;
    }
}
