//! Looks at the pipelines while there are any.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Pipelines, STALL};

/// Two looks without an answer in between make a stall. It is the measure of time too: a look that
/// comes late counts as one that came in time, so a machine that stood still accuses nobody.
const STEP: Duration = Duration::from_nanos(STALL.as_nanos() as u64 / 2);

/// Starts the task, which ends with the last pipeline.
pub(super) fn spawn(pipelines: &Arc<Pipelines>) {
    pipelines.pool.runtime().spawn(run(Arc::downgrade(pipelines)));
}

async fn run(pipelines: Weak<Pipelines>) {
    let mut ticks = interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(pipelines) = pipelines.upgrade() else { return };
        if !look(&pipelines) {
            return;
        }
    }
}

/// False when there is nothing to look at any more.
fn look(pipelines: &Pipelines) -> bool {
    let wanted = pipelines.pool.is_contended();
    let now = Instant::now();
    let mut woken = Vec::new();
    let mut ended = Vec::new();
    let mut state = pipelines.state.lock();
    let looks: Vec<_> =
        state.schedule.lanes().map(|(id, conn)| (id, conn.look(now, wanted))).collect();
    for (id, look) in looks {
        let verdict = state.schedule.judge(id, look, STEP);
        woken.extend(verdict.woken);
        ended.extend(verdict.ended);
        if let Some((text, long)) = verdict.slow {
            state.texts.strike(text, long);
        }
    }
    let any = state.schedule.len() > 0;
    state.watched = any;
    drop(state);
    for waker in woken {
        waker.wake();
    }
    drop(ended);
    any
}
