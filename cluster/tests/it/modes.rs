//! What a breaker can be told while it runs, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use escala_cluster::{Breaker, BreakerConfig, BreakerLayer, Reason, State, Transition};
use parking_lot::Mutex;
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};

use crate::states::{breaker, config, fail, succeed};

fn transitions(breaker: &Breaker) -> Arc<Mutex<Vec<Transition>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    breaker.on_transition(move |transition| listener.lock().push(transition.clone()));
    told
}

pub(crate) fn reasons(breaker: &Breaker) -> Arc<Mutex<Vec<Reason>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    breaker.on_transition(move |transition| listener.lock().push(transition.reason));
    told
}

#[tokio::test(start_paused = true)]
async fn in_shadow_mode_it_moves_and_rejects_nothing() {
    let breaker = breaker(config().half_open_permits(1));
    breaker.shadow();
    fail(&breaker, 5);
    assert_eq!(breaker.state(), State::Open);
    let service =
        BreakerLayer::new(breaker.clone()).layer(service_fn(async |()| Ok::<_, &str>(())));
    for _ in 0..3 {
        service.clone().oneshot(()).await.expect("let through");
    }
    let stats = breaker.stats();
    assert_eq!((stats.shadow, stats.state), (true, State::Open));
    assert_eq!((stats.rejected_total, stats.shadow_rejected_total), (0, 3));
    assert_eq!((stats.admitted_total, stats.succeeded_total), (8, 3));

    // What goes through in the place of a rejection decides nothing.
    advance(Duration::from_secs(5)).await;
    let probe = breaker.admit().expect("the probe");
    succeed(&breaker, 10);
    assert_eq!(breaker.state(), State::HalfOpen);
    probe.succeeded();
    assert_eq!(breaker.state(), State::Closed);

    // Now in truth.
    breaker.reset();
    fail(&breaker, 5);
    assert!(breaker.admit().is_err());
    // A circuit that is open when it is put into shadow stays so, and lets through.
    breaker.shadow();
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.admit().is_ok());
    breaker.force_open();
    assert!(breaker.admit().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_disabled_breaker_counts_nothing_and_rejects_nothing() {
    let breaker = breaker(config());
    let before = breaker.admit().expect("closed");
    breaker.disable();
    assert_eq!(breaker.state(), State::Disabled);
    fail(&breaker, 100);
    before.failed();
    let stats = breaker.stats();
    assert_eq!((stats.admitted_total, stats.failed_total, stats.in_flight), (1, 1, 0));
    let within = breaker.admit().expect("disabled");
    breaker.reset();
    within.failed();
    fail(&breaker, 4);
    assert_eq!((breaker.state(), breaker.stats().failed_total), (State::Closed, 5));
}

#[tokio::test(start_paused = true)]
async fn another_configuration_keeps_what_was_counted() {
    let config = config().consecutive_failures(None).count_window(20).minimum_calls(10);
    let breaker = breaker(config.clone());
    succeed(&breaker, 3);
    fail(&breaker, 6);
    let refused = breaker.reconfigure(config.clone().jitter(2.0)).expect_err("refused");
    assert_eq!(refused.field(), "jitter");
    assert_eq!(breaker.config(), config);

    let other = config.clone().failure_rate(0.9).window(Duration::from_secs(5));
    breaker.reconfigure(other.clone()).expect("valid");
    assert_eq!(breaker.config(), other);
    let stats = breaker.stats();
    assert_eq!((stats.window_calls, stats.window_failures), (9, 6));
    assert_eq!((stats.count_window_calls, stats.count_window_failures), (9, 6));
    succeed(&breaker, 1);
    assert_eq!(breaker.state(), State::Closed);

    // A shorter window of calls keeps the last ones.
    breaker.reconfigure(config.count_window(4).minimum_calls(4)).expect("valid");
    let stats = breaker.stats();
    assert_eq!((stats.count_window_calls, stats.count_window_failures), (4, 3));
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn another_configuration_counts_at_once() {
    let breaker = breaker(config());
    fail(&breaker, 2);
    breaker.reconfigure(config().consecutive_failures(3)).expect("valid");
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
    // An open time that has begun stays; the next one is by the new numbers.
    let longer = config().open_for(Duration::from_secs(20)).half_open_permits(1);
    breaker.reconfigure(longer).expect("valid");
    assert_eq!(breaker.admit().expect_err("open").retry_after, Duration::from_secs(5));
    advance(Duration::from_secs(5)).await;
    fail(&breaker, 1);
    assert_eq!(breaker.admit().expect_err("open").retry_after, Duration::from_secs(40));
    // So is what a circuit forced open answers.
    breaker.force_open();
    breaker.reconfigure(config().open_for(Duration::from_secs(7))).expect("valid");
    assert_eq!(breaker.admit().expect_err("open").retry_after, Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_are_watched_once_the_slow_call_rate_is_switched_on() {
    let before = config().abandoned_after(None);
    let breaker = breaker(before.clone());
    let _old = [(); 3].map(|()| breaker.admit().expect("closed"));
    breaker.reconfigure(before.slow_call_rate(0.5).minimum_calls(2)).expect("valid");
    advance(Duration::from_secs(2)).await;
    assert_eq!(breaker.state(), State::Closed, "nobody has noted when they began");
    let _young = [(); 2].map(|()| breaker.admit().expect("closed"));
    advance(Duration::from_secs(2)).await;
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_closes_by_itself_ramps_up() {
    let ramp = config().half_open_permits(1).ramp(Duration::from_secs(100));
    let breaker = breaker(ramp);
    fail(&breaker, 5);
    advance(Duration::from_secs(5)).await;
    succeed(&breaker, 1);
    assert_eq!(breaker.state(), State::Closed);
    let mut through = Vec::new();
    for _ in 0..4 {
        let calls =
            (0..1_000).filter(|_| breaker.admit().map(escala_cluster::Permit::succeeded).is_ok());
        through.push(calls.count());
        advance(Duration::from_secs(25)).await;
    }
    // A tenth, a quarter, half, three quarters: far more than chance apart.
    for (share, expected) in through.iter().zip([100, 250, 500, 750]) {
        assert!(share.abs_diff(expected) < 100, "{through:?}");
    }
    let stats = breaker.stats();
    assert_eq!(stats.admitted_total + stats.rejected_total, 4_006);
    // After it all go through.
    succeed(&breaker, 1_000);
    // By hand it closes for all at once.
    fail(&breaker, 5);
    breaker.reset();
    succeed(&breaker, 100);
}

#[tokio::test(start_paused = true)]
async fn each_move_is_told_with_its_reason_and_its_figures() {
    let breaker = breaker(config().half_open_permits(1));
    let told = transitions(&breaker);
    succeed(&breaker, 2);
    fail(&breaker, 5);
    advance(Duration::from_secs(5)).await;
    succeed(&breaker, 1);
    let told = told.lock();
    let moves: Vec<_> = told.iter().map(|t| (t.from, t.to, t.reason, t.sequence)).collect();
    assert_eq!(
        moves,
        [
            (State::Closed, State::Open, Reason::ConsecutiveFailures, 1),
            (State::Open, State::HalfOpen, Reason::OpenTimeOver, 2),
            (State::HalfOpen, State::Closed, Reason::TrialSucceeded, 3),
        ]
    );
    assert_eq!((told[0].breaker.as_str(), told[0].shadow), ("test", false));
    assert_eq!(told[0].open_for, Duration::from_secs(5));
    let figures = told[0].figures;
    assert_eq!((figures.consecutive_failures, figures.calls, figures.failures), (5, 7, 5));
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_ask_the_breaker_and_may_panic() {
    let breaker = breaker(config());
    let handle = breaker.clone();
    breaker.on_transition(move |transition| {
        // No lock is held: this would wait for ever.
        assert_eq!(handle.stats().state, transition.to);
        handle.on_transition(|_| std::panic::resume_unwind(Box::new("a bug")));
    });
    fail(&breaker, 5);
    assert_eq!(breaker.stats().hook_panicked_total, 0);
    breaker.reset();
    // Also while the call that moves it panics itself.
    let config: BreakerConfig = config().consecutive_failures(1);
    breaker.reconfigure(config).expect("valid");
    let call = std::panic::AssertUnwindSafe(|| {
        let _permit = breaker.admit().expect("closed");
        std::panic::resume_unwind(Box::new("another"))
    });
    let ended: Result<(), _> = std::panic::catch_unwind(call);
    assert!(ended.is_err());
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.hook_panicked_total), (State::Open, 2));
    assert_eq!((stats.panicked_total, stats.in_flight), (1, 0));
}

/// Writes no log: it panics.
#[cfg(feature = "tracing")]
struct Broken;

#[cfg(feature = "tracing")]
impl tracing::Subscriber for Broken {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, _event: &tracing::Event<'_>) {
        std::panic::resume_unwind(Box::new("a bug"))
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

// It would end the process: a panic that leaves a destructor while another is under way.
#[cfg(feature = "tracing")]
#[test]
fn a_log_that_panics_over_a_call_that_panics_ends_neither_process_nor_listener() {
    let breaker = breaker(config().consecutive_failures(1));
    let told = reasons(&breaker);
    let call = std::panic::AssertUnwindSafe(|| {
        let _permit = breaker.admit().expect("closed");
        std::panic::resume_unwind(Box::new("another"))
    });
    let ended: Result<(), _> =
        tracing::subscriber::with_default(Broken, || std::panic::catch_unwind(call));
    assert!(ended.is_err());
    assert_eq!(*told.lock(), [Reason::ConsecutiveFailures]);
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.hook_panicked_total), (State::Open, 1));
}
