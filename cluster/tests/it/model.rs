//! The whole breaker against a model that keeps everything in lists and knows no atomics, over
//! random histories and every set of conditions.

mod history;
mod reference;

use std::time::Duration;

use escala_cluster::{Breaker, BreakerConfig, BreakerStats, Judgement, Permit, State};
use proptest::prelude::*;
use tokio::time::advance;

use self::history::{End, Step, config, step};
use self::reference::Model;

struct Run {
    breaker: Breaker,
    model: Model,
    now: u64,
    /// Every call under way, as both know it.
    calls: Vec<(Permit, reference::Call)>,
}

impl Run {
    async fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Wait(millis) => {
                advance(Duration::from_millis(millis)).await;
                self.now += millis;
            }
            Step::Admit => {
                let expected = self.model.admit(self.now);
                let answer = self.breaker.admit();
                let refused = answer.as_ref().err().map(|open| open.retry_after.as_millis());
                prop_assert_eq!(refused, expected.as_ref().err().map(|millis| u128::from(*millis)));
                self.calls.extend(answer.ok().zip(expected.ok()));
            }
            Step::End(index, end) if !self.calls.is_empty() => {
                let (permit, call) = self.calls.swap_remove(index % self.calls.len());
                self.end(permit, &call, end);
            }
            Step::End(..) => {}
            Step::Reconfigure(config) => {
                self.breaker.reconfigure((*config).clone()).expect("valid");
                self.model.reconfigure(*config, self.now);
            }
            Step::Force(state) => {
                match state {
                    Some(State::ForcedOpen) => self.breaker.force_open(),
                    Some(State::ForcedClosed) => self.breaker.force_close(),
                    Some(State::Disabled) => self.breaker.disable(),
                    Some(_) => self.breaker.reset(),
                    None => self.breaker.shadow(),
                }
                self.model.force(state);
            }
        }
        Ok(())
    }

    fn end(&mut self, permit: Permit, call: &reference::Call, end: End) {
        self.model.end(call, end, self.now);
        match end {
            End::Dropped => drop(permit),
            End::Judged(outcome, seconds) => {
                let retry_after = seconds.map(Duration::from_secs);
                permit.judged(Judgement::new(outcome).retry_after(retry_after));
            }
        }
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let state = self.breaker.state();
        self.model.look(self.now);
        prop_assert_eq!(state, self.model.state(self.now));
        let stats = self.breaker.stats();
        prop_assert_eq!(totals(&stats), self.model.totals);
        prop_assert_eq!(stats.shadow, self.model.shadow);
        if state == State::Closed {
            let (time, calls) = self.model.windows(self.now);
            let seen = (stats.window_calls, stats.window_failures, stats.window_slow);
            prop_assert_eq!(seen, time, "the window of time");
            let seen =
                (stats.count_window_calls, stats.count_window_failures, stats.count_window_slow);
            prop_assert_eq!(seen, calls, "the window of calls");
            prop_assert_eq!(stats.consecutive_failures, self.model.row);
            prop_assert_eq!(stats.in_flight_slow, self.model.in_flight_slow(self.now));
        }
        Ok(())
    }
}

fn totals(stats: &BreakerStats) -> reference::Totals {
    reference::Totals {
        in_flight: stats.in_flight,
        admitted: stats.admitted_total,
        rejected: stats.rejected_total,
        shadow_rejected: stats.shadow_rejected_total,
        succeeded: stats.succeeded_total,
        failed: stats.failed_total,
        throttled: stats.throttled_total,
        ignored: stats.ignored_total,
        cancelled: stats.cancelled_total,
        abandoned: stats.abandoned_total,
        slow: stats.slow_total,
        moves: (stats.opened_total, stats.half_opened_total, stats.closed_total),
    }
}

async fn run(config: BreakerConfig, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let breaker = Breaker::new("model", config.clone()).expect("valid");
    let mut run = Run { breaker, model: Model::new(config), now: 0, calls: Vec::new() };
    for step in steps {
        run.step(step).await?;
        run.compare()?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(
        config in config(),
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(config, steps))?;
    }
}

/// The model has to reach what it is there for.
#[test]
fn random_histories_visit_every_state() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::HashSet::new();
    let mut by_itself = (0, 0, 0);
    for _ in 0..30 {
        let config = config().new_tree(&mut runner).expect("a configuration").current();
        let steps = prop::collection::vec(step(), 250).new_tree(&mut runner).expect("steps");
        let (mut model, mut now, mut calls) = (Model::new(config), 0, Vec::new());
        for step in steps.current() {
            match step {
                Step::Wait(millis) => now += millis,
                Step::Admit => calls.extend(model.admit(now)),
                Step::End(index, end) if !calls.is_empty() => {
                    let call = calls.swap_remove(index % calls.len());
                    model.end(&call, end, now);
                }
                Step::End(..) => {}
                Step::Reconfigure(config) => model.reconfigure(*config, now),
                Step::Force(state) => model.force(state),
            }
            model.look(now);
            seen.insert(model.state(now));
        }
        let (opened, half_opened, closed) = model.totals.moves;
        by_itself = (by_itself.0 + opened, by_itself.1 + half_opened, by_itself.2 + closed);
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    assert!(by_itself.0 > 100 && by_itself.1 > 30 && by_itself.2 > 30, "{by_itself:?}");
}
