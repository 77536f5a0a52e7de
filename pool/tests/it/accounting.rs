//! Every acquire is counted once and every permit comes back, however its future ends.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use escala_pool::{Lease, Pool};
use proptest::prelude::*;
use tokio::time::sleep;

use crate::scripted::{Act, Manager, assert_all_adds_up, config};

const SIZE: usize = 2;

/// What a test does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Begins an acquire, lets time pass after each of some polls, then drops it if it is pending.
    Acquire {
        polls: usize,
        pause: u64,
        keep: bool,
    },
    Release,
    Break,
    Sleep(u64),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Work),
        2 => Just(Act::Slow),
        1 => Just(Act::Fail),
        1 => Just(Act::Hang),
        1 => Just(Act::Panic),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_usize, 0..200_u64, any::<bool>())
            .prop_map(|(polls, pause, keep)| Step::Acquire { polls, pause, keep }),
        2 => Just(Step::Release),
        1 => Just(Step::Break),
        1 => (0..2_000_u64).prop_map(Step::Sleep),
    ]
}

/// Polls a future some times with time in between; `None` if it is still pending then.
async fn poll_times<F: Future>(future: F, polls: usize, pause: u64) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let ready = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        if ready.is_some() {
            return ready;
        }
        sleep(Duration::from_millis(pause)).await;
    }
    None
}

async fn run(steps: Vec<Step>, manager: &Manager, pool: &Pool<Manager>) {
    let mut leases: Vec<Lease<Manager>> = Vec::new();
    for step in steps {
        match step {
            Step::Acquire { polls, pause, keep } => {
                if let Some(Ok(lease)) = poll_times(pool.acquire(), polls, pause).await
                    && keep
                {
                    leases.push(lease);
                }
            }
            Step::Release => drop(leases.pop()),
            Step::Break => leases.iter_mut().for_each(|lease| lease.broken = true),
            Step::Sleep(pause) => sleep(Duration::from_millis(pause)).await,
        }
        assert_all_adds_up(&pool.stats());
        assert!(leases.len() <= SIZE && manager.server.lock().open <= SIZE);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_by_any_order_of_drops_failures_and_panics(
        connects in prop::collection::vec(any_act(), 0..20),
        tests in prop::collection::vec(any_act(), 0..20),
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let manager = Manager::default();
            manager.connects(connects);
            manager.tests(tests);
            let pool = manager.pool(config(SIZE).max_waiters(1));
            run(steps, &manager, &pool).await;
            // The server is well again: what still hangs ends within the connect timeout.
            manager.server.lock().connects.clear();
            manager.server.lock().tests.clear();
            sleep(Duration::from_secs(11)).await;
            let full = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            drop(full);
            let stats = pool.stats();
            assert_all_adds_up(&stats);
            assert_eq!((stats.waiting, stats.connecting), (0, 0));
            assert_eq!((stats.size, stats.available), (SIZE, SIZE));
            assert_eq!(manager.server.lock().peak_open, SIZE);
        });
    }
}
