//! The whole breaker against a model that keeps every result in a list and knows no atomics.

use std::time::Duration;

use escala_cluster::{Breaker, BreakerConfig, State};
use proptest::prelude::*;
use tokio::time::advance;

const LIMIT: usize = 4;
const RATE: f64 = 0.5;
const MINIMUM: usize = 12;
const BUCKET_MILLIS: u64 = 100;

/// A closed circuit: what it has been told since it closed.
#[derive(Default)]
struct Model {
    results: Vec<(u64, bool)>,
}

impl Model {
    /// Whether the circuit opens with this result.
    fn opens(&mut self, now: u64, failed: bool) -> bool {
        self.results.push((now, failed));
        let in_a_row = self.results.iter().rev().take_while(|(_, failed)| *failed).count();
        let (calls, failures) = self.window(now);
        let rate = calls >= MINIMUM && failures as f64 >= RATE * calls as f64;
        failed && (in_a_row >= LIMIT || rate)
    }

    fn window(&self, now: u64) -> (usize, usize) {
        let tick = |millis: u64| millis / BUCKET_MILLIS;
        let recent = self.results.iter().filter(|(then, _)| tick(now) - tick(*then) < 10);
        let failures = recent.clone().filter(|(_, failed)| *failed).count();
        (recent.count(), failures)
    }
}

async fn run(steps: Vec<(u64, bool)>) -> Result<(), TestCaseError> {
    let config = BreakerConfig::default()
        .consecutive_failures(u32::try_from(LIMIT).expect("small"))
        .failure_rate(RATE)
        .minimum_calls(u32::try_from(MINIMUM).expect("small"))
        .window(Duration::from_millis(10 * BUCKET_MILLIS))
        .open_for(Duration::from_secs(1))
        .jitter(0.0)
        .half_open_permits(1);
    let breaker = Breaker::new("model", config).expect("valid");
    let (mut model, mut now) = (Model::default(), 0);
    for (wait, failed) in steps {
        advance(Duration::from_millis(wait)).await;
        now += wait;
        let permit = breaker.admit().expect("closed");
        if failed {
            permit.failed();
        } else {
            permit.succeeded();
        }
        if model.opens(now, failed) {
            prop_assert_eq!(breaker.state(), State::Open);
            // Through a trial back to closed, where the model starts over as well.
            advance(Duration::from_secs(1)).await;
            now += 1_000;
            breaker.admit().expect("the probe").succeeded();
            model = Model::default();
        }
        prop_assert_eq!(breaker.state(), State::Closed);
        let stats = breaker.stats();
        let window = (stats.window_calls as usize, stats.window_failures as usize);
        prop_assert_eq!(window, model.window(now));
    }
    Ok(())
}

proptest! {
    #[test]
    fn it_opens_exactly_when_the_model_does(
        steps in prop::collection::vec((0_u64..160, prop::bool::weighted(0.45)), 1..250),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(steps))?;
    }
}
