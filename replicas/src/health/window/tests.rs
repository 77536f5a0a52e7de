//! Shares of failures, with times put in.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A window with what was fed to it so far.
struct Fed {
    window: Window,
    succeeded: u64,
    config: ReplicasConfig,
}

impl Fed {
    fn new() -> Self {
        let config = ReplicasConfig::default();
        Self { window: Window::default(), succeeded: 0, config }
    }

    fn succeed(&mut self, count: u64) {
        self.succeeded += count;
    }

    fn fail(&mut self, now: Instant) -> bool {
        self.window.failed(now, self.succeeded, &self.config)
    }
}

#[tokio::test(start_paused = true)]
async fn too_large_a_share_of_enough_requests_is_needed() {
    let now = Instant::now();
    let mut fed = Fed::new();
    assert!((0..49).all(|_| !fed.fail(now)), "49 requests say nothing");
    assert!(fed.fail(now));

    let mut fed = Fed::new();
    fed.fail(now);
    fed.succeed(10);
    assert!((0..55).all(|_| !fed.fail(now)), "56 of 66 are less than 85 %");
    assert!(fed.fail(now), "57 of 67 are more");
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_window_is_forgotten() {
    let now = Instant::now();
    let mut fed = Fed::new();
    for _ in 0..49 {
        fed.fail(now);
    }
    assert!(!fed.fail(now + 10 * SECOND));
    // And good times before the first failure of the window do not hide bad ones in it.
    fed.succeed(1_000_000);
    assert!((0..49).all(|_| !fed.fail(now + 30 * SECOND)));
    assert!(fed.fail(now + 30 * SECOND));
}

proptest! {
    /// Against a list of all requests: equal but for what lies before the first failure of the window
    /// and for the length of one bucket.
    #[test]
    fn the_share_is_that_of_the_window(
        steps in prop::collection::vec((0_u64..700, 0_u64..20), 1..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let start = Instant::now();
        let mut fed = Fed::new();
        let mut all: Vec<(u64, bool)> = Vec::new();
        let mut now = 0;
        for (pause, successes) in steps {
            now += pause;
            fed.succeed(successes);
            all.extend((0..successes).map(|_| (now, true)));
            all.push((now, false));
            let verdict = fed.fail(start + Duration::from_millis(now));
            prop_assert!(fed.window.marks.len() <= 10);
            // The exact share, from any failure within the first bucket on.
            let from = (now + 1).saturating_sub(10_000);
            let starts = all.iter().enumerate().filter(|(_, (at, ok))| {
                !ok && (from..=from + 1_000).contains(at)
            });
            let mut near: Vec<bool> = starts
                .map(|(start, _)| {
                    let within = &all[start..];
                    let failed = within.iter().filter(|(_, ok)| !ok).count();
                    within.len() >= 50 && failed * 100 >= within.len() * 85
                })
                .collect();
            // The window may have forgotten all but the last bucket's failures.
            near.push(false);
            prop_assert!(near.contains(&verdict), "{verdict} at {now}");
            let always = near.len() > 1 && near[..near.len() - 1].iter().all(|is| *is);
            prop_assert!(verdict || !always, "missed at {now}");
        }
    }
}
