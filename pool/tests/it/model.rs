//! Random histories of a pool against a model of it: nothing is lost, whatever is dropped, fails,
//! hangs, panics, is resized, paused or closed, and nobody is served before his turn.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use escala_pool::{Acquire, Lease, Pool, PoolError};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use crate::scripted::{Act, HOUR, Manager, assert_all_adds_up, config};

/// The size a pool begins and ends with.
const SIZE: usize = 3;
const RESERVED: usize = 1;
const MAX_WAITERS: usize = 4;
/// Callers under way at a time, so that one round of polls stays within tokio's budget.
const MOST_CALLERS: usize = 10;

/// What a test does next. Numbers choose among what there is.
#[derive(Debug, Clone, Copy)]
enum Step {
    Acquire {
        reserved: bool,
    },
    /// Drops the future of a caller, wherever it is.
    Cancel(usize),
    Release(usize),
    Discard(usize),
    /// The driver will say that the connection is gone, or panic when it is asked.
    Break(usize),
    PanicWhenAsked(usize),
    Sleep(u64),
    Resize(usize),
    Pause,
    Resume,
    Close,
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
        12 => prop::bool::weighted(0.2).prop_map(|reserved| Step::Acquire { reserved }),
        3 => any::<usize>().prop_map(Step::Cancel),
        6 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Discard),
        1 => any::<usize>().prop_map(Step::Break),
        1 => any::<usize>().prop_map(Step::PanicWhenAsked),
        4 => (0..2_000_u64).prop_map(Step::Sleep),
        2 => (1..6_usize).prop_map(Step::Resize),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
    ]
}

/// A step, and whether the callers act before the next one.
fn any_steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(Step, bool)>> {
    prop::collection::vec((any_step(), prop::bool::weighted(0.7)), count)
}

type Acquiring<'a> = Pin<Box<dyn Future<Output = Result<Lease<Manager>, PoolError>> + Send + 'a>>;

struct Caller<'a> {
    reserved: bool,
    /// It came while the pool was paused, which has not been resumed since.
    held_back: bool,
    future: Acquiring<'a>,
}

/// A pool, and what should be true of it.
struct Model<'a> {
    manager: &'a Manager,
    pool: &'a Pool<Manager>,
    callers: Vec<Caller<'a>>,
    leases: Vec<Lease<Manager>>,
    max_size: usize,
    /// The largest it ever was, which connections may still be left of.
    largest: usize,
    paused: bool,
    closed: bool,
    /// A test of a connection may let a later caller pass.
    in_turn: bool,
}

impl<'a> Model<'a> {
    fn new(manager: &'a Manager, pool: &'a Pool<Manager>, in_turn: bool) -> Self {
        let (callers, leases) = (Vec::new(), Vec::new());
        let (max_size, largest, paused, closed) = (SIZE, SIZE, false, false);
        Self { manager, pool, callers, leases, max_size, largest, paused, closed, in_turn }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Acquire { reserved } if self.callers.len() < MOST_CALLERS => {
                let acquire = if reserved { Acquire::reserved() } else { Acquire::new() };
                let future = Box::pin(self.pool.acquire_with(acquire));
                let held_back = self.paused && !reserved;
                self.callers.push(Caller { reserved, held_back, future });
            }
            Step::Acquire { .. } => {}
            Step::Cancel(which) => drop(pick(&mut self.callers, which)),
            Step::Release(which) => drop(pick(&mut self.leases, which)),
            Step::Discard(which) => {
                if let Some(lease) = pick(&mut self.leases, which) {
                    lease.discard();
                }
            }
            Step::Break(which) => {
                if let Some(mut lease) = pick(&mut self.leases, which) {
                    lease.broken = true;
                }
            }
            Step::PanicWhenAsked(which) => {
                if let Some(mut lease) = pick(&mut self.leases, which) {
                    lease.panics = true;
                }
            }
            Step::Sleep(pause) => sleep(Duration::from_millis(pause)).await,
            Step::Resize(max_size) => {
                self.pool.resize(max_size).unwrap();
                self.max_size = max_size;
                self.largest = self.largest.max(max_size);
            }
            Step::Pause => {
                self.pool.pause();
                self.paused = true;
            }
            Step::Resume => {
                self.pool.resume();
                self.paused = false;
                self.callers.iter_mut().for_each(|caller| caller.held_back = false);
            }
            Step::Close => {
                // Who was given a permit before is served.
                self.settle().await;
                self.pool.close_within(Duration::ZERO).await;
                self.closed = true;
                self.settle().await;
            }
        }
    }

    /// Lets everybody act who can, and looks at each moment.
    async fn settle(&mut self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
            self.poll_all().await;
            self.check();
        }
    }

    /// Polls all callers in their order, without letting anything else run in between.
    async fn poll_all(&mut self) {
        let mut earlier_waits = false;
        let mut index = 0;
        while let Some(caller) = self.callers.get_mut(index) {
            let poll = poll_fn(|cx| Poll::Ready(caller.future.as_mut().poll(cx))).await;
            let Poll::Ready(result) = poll else {
                earlier_waits |= !caller.reserved;
                index += 1;
                continue;
            };
            let caller = self.callers.remove(index);
            match result {
                Ok(lease) => {
                    assert!(!self.closed && !caller.held_back, "served while held back");
                    let in_turn = !self.in_turn || caller.reserved || !earlier_waits;
                    assert!(in_turn, "served before an earlier caller");
                    self.leases.push(lease);
                }
                Err(error) => assert!(!self.closed || matches!(error, PoolError::Closed)),
            }
        }
    }

    fn check(&self) {
        let stats = self.pool.stats();
        assert_all_adds_up(&stats);
        assert_eq!((stats.leased, stats.waiting), (self.leases.len(), self.callers.len()));
        assert_eq!((stats.max_size, stats.paused), (self.max_size, self.paused));
        let server = self.manager.server.lock();
        assert_eq!(stats.size, server.open);
        assert!(server.connecting <= stats.connecting && stats.connecting <= 4);
        assert!(stats.size + stats.connecting <= self.largest + RESERVED, "{stats:?}");
        assert!(stats.leased + stats.available <= stats.size);
    }

    /// When everything was given back and the server works, everything is there again.
    async fn end(mut self) {
        {
            let mut server = self.manager.server.lock();
            server.connects.clear();
            server.tests.clear();
        }
        self.callers.clear();
        self.leases.clear();
        if self.closed {
            sleep(Duration::from_secs(30)).await;
            let stats = self.pool.stats();
            assert_all_adds_up(&stats);
            assert_eq!((stats.size, stats.waiting, stats.leased), (0, 0, 0));
            return;
        }
        self.step(Step::Resume).await;
        self.step(Step::Resize(SIZE)).await;
        self.settle().await;
        // What still hangs ends within the connect timeout.
        sleep(Duration::from_secs(11)).await;
        for _ in 0..SIZE {
            self.leases.push(self.pool.acquire().await.unwrap());
        }
        self.check();
        let one_more = timeout(Duration::from_millis(1), self.pool.acquire()).await;
        assert!(one_more.is_err(), "a permit too many");
        let reserved = self.pool.acquire_with(Acquire::reserved()).await.unwrap();
        let another = self.pool.acquire_with(Acquire::reserved());
        assert!(timeout(Duration::from_millis(1), another).await.is_err());
        drop(reserved);
        self.leases.clear();
        let stats = self.pool.stats();
        assert_all_adds_up(&stats);
        assert_eq!((stats.waiting, stats.connecting, stats.leased), (0, 0, 0));
        assert_eq!((stats.size, stats.available), (SIZE + RESERVED, SIZE + RESERVED));
    }
}

fn pick<T>(items: &mut Vec<T>, which: usize) -> Option<T> {
    (!items.is_empty()).then(|| items.remove(which % items.len()))
}

fn run(steps: &[(Step, bool)], connects: Vec<Act>, tests: Vec<Act>, in_turn: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let manager = Manager::default();
        manager.connects(connects);
        manager.tests(tests);
        let validate_after = if in_turn { HOUR } else { Duration::from_millis(500) };
        let limits = config(SIZE)
            .reserved(RESERVED)
            .max_waiters(MAX_WAITERS)
            .validate_after(validate_after)
            .keepalive(Duration::from_secs(3));
        let pool = manager.pool(limits);
        let mut model = Model::new(&manager, &pool, in_turn);
        for (step, settle) in steps {
            model.step(*step).await;
            if *settle {
                model.settle().await;
            }
        }
        model.end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_by_any_order_of_calls_drops_failures_and_panics(
        connects in prop::collection::vec(any_act(), 0..20),
        tests in prop::collection::vec(any_act(), 0..20),
        steps in any_steps(1..60),
    ) {
        run(&steps, connects, tests, false);
    }

    #[test]
    fn nobody_is_served_before_an_earlier_caller(
        connects in prop::collection::vec(any_act(), 0..20),
        steps in any_steps(1..60),
    ) {
        run(&steps, connects, Vec::new(), true);
    }

    #[test]
    fn a_closed_pool_keeps_nothing_and_serves_nobody(
        connects in prop::collection::vec(any_act(), 0..10),
        before in any_steps(0..30),
        after in any_steps(0..20),
    ) {
        let steps: Vec<_> = before.into_iter().chain([(Step::Close, true)]).chain(after).collect();
        run(&steps, connects, Vec::new(), false);
    }
}
