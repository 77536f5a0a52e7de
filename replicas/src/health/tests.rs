//! Every transition, with times and chances put in.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy(probed: bool) -> Policy {
    Policy::new(ReplicasConfig::default(), probed)
}

/// A failure that alone says nothing of shares.
fn failure(now: Instant, epoch: u32, chance: f64) -> Failure {
    Failure { now, epoch, succeeded: 0, chance, may_eject: true }
}

/// Fails requests until the node is out; returns until when.
fn eject(health: &mut Health, now: Instant, chance: f64, policy: &Policy) -> Instant {
    for _ in 0..2 {
        assert_eq!(health.request_failed(failure(now, health.epoch(), chance), policy), None);
    }
    match health.request_failed(failure(now, health.epoch(), chance), policy) {
        Some(Transition::Ejected { until }) => until,
        other => panic!("not ejected but {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let (policy, now) = (policy(false), Instant::now());
    let mut health = Health::new(now);
    for _ in 0..10 {
        assert_eq!(health.request_failed(failure(now, 0, 0.0), &policy), None);
        assert_eq!(health.request_failed(failure(now, 0, 0.0), &policy), None);
        assert!(!health.is_spotless());
        assert_eq!(health.request_succeeded(now, 0, &policy), None);
        assert!(health.is_spotless());
    }
    let until = eject(&mut health, now, 0.0, &policy);
    assert_eq!(until, now + 30 * SECOND);
    assert!(health.is_ejected() && !health.is_spotless());
}

#[tokio::test(start_paused = true)]
async fn requests_from_before_the_ejection_change_nothing() {
    let (policy, now) = (policy(false), Instant::now());
    let mut health = Health::new(now);
    let old = health.epoch();
    let until = eject(&mut health, now, 0.0, &policy);
    let later = until + SECOND;
    assert_eq!(health.request_succeeded(later, old, &policy), None);
    assert_eq!(health.request_failed(failure(later, old, 0.0), &policy), None);
    assert_eq!(health.next_trial(&policy), Some(until));
}

#[tokio::test(start_paused = true)]
async fn a_trial_is_granted_once_after_the_time_and_its_success_returns_the_node() {
    let (policy, now) = (policy(false), Instant::now());
    let mut health = Health::new(now);
    let until = eject(&mut health, now, 0.0, &policy);
    let epoch = health.epoch();
    assert!(!health.begin_trial(until - Duration::from_millis(1), &policy));
    assert!(health.begin_trial(until, &policy));
    assert!(!health.begin_trial(until, &policy), "one at a time");
    assert_eq!(health.request_succeeded(until, epoch, &policy), Some(Transition::Returned));
    assert!(health.is_spotless());
    assert_eq!(health.next_trial(&policy), None);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_hangs_or_is_dropped_lets_the_next_one_through() {
    let (policy, now) = (policy(false), Instant::now());
    let mut health = Health::new(now);
    let until = eject(&mut health, now, 0.0, &policy);
    assert!(health.begin_trial(until, &policy));
    assert!(health.begin_trial(until + SECOND, &policy), "after the probe timeout");
    health.abandon_trial(until + SECOND, health.epoch() - 1);
    assert!(!health.begin_trial(until + SECOND, &policy), "an older trial has no say");
    health.abandon_trial(until + SECOND, health.epoch());
    assert!(health.begin_trial(until + SECOND, &policy));
}

#[tokio::test(start_paused = true)]
async fn failed_trials_prolong_the_ejection_up_to_the_limit() {
    let (policy, start) = (policy(false), Instant::now());
    let mut health = Health::new(start);
    let mut until = eject(&mut health, start, 0.0, &policy);
    for n in 2..=20 {
        let now = until;
        assert!(health.begin_trial(now, &policy));
        let epoch = health.epoch();
        until = now + (n * 30 * SECOND).min(300 * SECOND);
        let transition = health.request_failed(failure(now, epoch, 0.0), &policy);
        assert_eq!(transition, Some(Transition::Ejected { until }));
    }
}

#[tokio::test(start_paused = true)]
async fn chance_lengthens_ejections_and_intervals_by_the_jitter() {
    let (policy, now) = (policy(true), Instant::now());
    let until = eject(&mut Health::new(now), now, 1.0, &policy);
    assert_eq!(until, now + 36 * SECOND);
    let until = eject(&mut Health::new(now), now, 0.5, &policy);
    assert_eq!(until, now + 33 * SECOND);
    assert_eq!(policy.interval(0.0), 15 * SECOND);
    assert_eq!(policy.interval(1.0), 18 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn with_a_probe_only_the_probe_returns_a_node_and_only_after_its_time() {
    let (policy, now) = (policy(true), Instant::now());
    let mut health = Health::new(now);
    let until = eject(&mut health, now, 0.0, &policy);
    let epoch = health.epoch();
    assert_eq!(health.next_trial(&policy), None);
    assert!(!health.begin_trial(until, &policy));
    assert_eq!(health.request_succeeded(until, epoch, &policy), None);
    let fails_again = health.request_failed(failure(until, epoch, 0.0), &policy);
    assert_eq!(fails_again, Some(Transition::Confirmed));
    assert_eq!(health.probe_succeeded(until - Duration::from_millis(1)), None);
    assert_eq!(health.probe_failed(until, 0.0, &policy), None, "neither prolonged nor news");
    assert_eq!(health.probe_succeeded(until), Some(Transition::Returned));
}

#[tokio::test(start_paused = true)]
async fn failed_probes_in_a_row_eject_but_not_while_requests_succeed() {
    let (policy, now) = (policy(true), Instant::now());
    let mut health = Health::new(now);
    assert_eq!(health.probe_failed(now, 0.0, &policy), None);
    assert_eq!(health.probe_failed(now, 0.0, &policy), None);
    assert_eq!(health.request_succeeded(now, 0, &policy), None);
    assert_eq!(health.probe_failed(now, 0.0, &policy), None);
    assert_eq!(health.probe_succeeded(now), None);
    assert_eq!(health.probe_failed(now, 0.0, &policy), None);
    assert_eq!(health.probe_failed(now, 0.0, &policy), None);
    let until = now + 30 * SECOND;
    assert_eq!(health.probe_failed(now, 0.0, &policy), Some(Transition::Ejected { until }));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_pings_but_fails_its_requests_is_ejected() {
    let (policy, now) = (policy(true), Instant::now());
    let mut health = Health::new(now);
    for _ in 0..2 {
        assert_eq!(health.request_failed(failure(now, 0, 0.0), &policy), None);
        assert_eq!(health.probe_succeeded(now), None);
    }
    assert!(health.request_failed(failure(now, 0, 0.0), &policy).is_some());
}

#[tokio::test(start_paused = true)]
async fn ejections_grow_in_close_succession_and_are_forgiven_by_service() {
    let (policy, mut now) = (policy(true), Instant::now());
    let mut health = Health::new(now);
    for n in 1..=4 {
        let until = eject(&mut health, now, 0.0, &policy);
        assert_eq!(until, now + n * 30 * SECOND);
        now = until;
        assert_eq!(health.probe_succeeded(now), Some(Transition::Returned));
    }
    // 65 s of service forgive two of four; the third from then is the next.
    now += 65 * SECOND;
    let until = eject(&mut health, now, 0.0, &policy);
    assert_eq!(until, now + 3 * 30 * SECOND);
    // A day of service forgives all.
    assert_eq!(health.probe_succeeded(until), Some(Transition::Returned));
    let now = until + 86_400 * SECOND;
    assert_eq!(eject(&mut health, now, 0.0, &policy), now + 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_the_set_cannot_spare_stays_until_it_can() {
    let (policy, now) = (policy(false), Instant::now());
    let mut health = Health::new(now);
    let kept = Failure { may_eject: false, ..failure(now, 0, 0.0) };
    for _ in 0..10 {
        assert_eq!(health.request_failed(kept, &policy), None);
    }
    let until = now + 30 * SECOND;
    let next = health.request_failed(failure(now, 0, 0.0), &policy);
    assert_eq!(next, Some(Transition::Ejected { until }));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_is_confirmed_once_and_forgotten_with_the_return() {
    let (policy, now) = (policy(true), Instant::now());
    let mut health = Health::new(now);
    let until = eject(&mut health, now, 0.0, &policy);
    assert!(!health.is_confirmed(), "only its requests failed");
    assert_eq!(health.probe_failed(now, 0.0, &policy), Some(Transition::Confirmed));
    assert_eq!(health.probe_failed(now, 0.0, &policy), None);
    assert_eq!(health.probe_succeeded(now), None);
    assert!(health.is_confirmed(), "one answer does not make it a suspect again");
    assert_eq!(health.probe_succeeded(until), Some(Transition::Returned));
    assert!(!health.is_confirmed());
    // By probes, it is certain from the start.
    for _ in 0..3 {
        health.probe_failed(until, 0.0, &policy);
    }
    assert!(health.is_ejected() && health.is_confirmed());
}

#[tokio::test(start_paused = true)]
async fn a_large_share_of_failures_ejects_although_no_two_were_in_a_row() {
    let (mut policy, now) = (policy(false), Instant::now());
    policy.config = policy.config.failure_percent(50).failure_min_requests(20);
    let mut health = Health::new(now);
    let (mut succeeded, mut failures) = (1_000, 0);
    let ejected = loop {
        failures += 1;
        let failed = Failure { succeeded, ..failure(now, 0, 0.0) };
        if let Some(transition) = health.request_failed(failed, &policy) {
            break transition;
        }
        succeeded += 1;
        assert_eq!(health.request_succeeded(now, 0, &policy), None);
    };
    // 11 failures and the 10 successes between them.
    assert_eq!((failures, ejected), (11, Transition::Ejected { until: now + 30 * SECOND }));
}

#[test]
fn a_slow_start_grows_by_tenths_in_proportion_to_the_time() {
    let whole = 30 * SECOND;
    for (seconds, tenths) in [(0, 1), (3, 1), (5, 1), (6, 2), (15, 5), (29, 9), (30, 10), (99, 10)]
    {
        assert_eq!(ramp(seconds * SECOND, whole), tenths, "after {seconds} s");
    }
    assert_eq!(ramp(Duration::ZERO, Duration::ZERO), TENTHS);
    for tenths in 2..=TENTHS {
        let at = ramp_reaches(tenths, whole);
        assert_eq!(ramp(at, whole), tenths);
        assert!(ramp(at - Duration::from_millis(1), whole) < tenths);
    }
}
