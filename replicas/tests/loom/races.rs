//! Two or three callers at once, in every order.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::thread;
use tokio::time::Instant;

use crate::Reason;
use crate::gate::{Attempt, Gate, Kind};
use crate::primitives::SeqCst;
use crate::tally::Tally;

/// A node with a number of places, all of them taken.
struct Node {
    tally: Tally,
    limit: u64,
    gate: Gate,
}

impl Node {
    fn full(limit: u64) -> Arc<Self> {
        let tally = Tally::default();
        assert!((0..limit).all(|_| tally.enter(limit, Reason::Any)));
        Arc::new(Self { tally, limit, gate: Gate::default() })
    }

    fn end(&self) {
        self.tally.leave(None);
        self.gate.freed();
    }

    fn wait(&self) -> impl Future<Output = Option<()>> + '_ {
        self.wait_as(Kind::Replica)
    }

    fn wait_as(&self, kind: Kind) -> impl Future<Output = Option<()>> + '_ {
        let enter = || match self.tally.enter(self.limit, Reason::Any) {
            true => Attempt::Done(()),
            false => Attempt::Failed { again: None },
        };
        self.gate.wait(kind, 4, Instant::now(), enter)
    }

    fn in_flight(&self) -> u64 {
        self.tally.in_flight.load(SeqCst)
    }
}

/// Three threads in every order with at most two preemptions, in which nearly all errors show; all
/// orders would take hours.
fn few(race: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(race);
}

/// A lost wake-up leaves the waiter asleep for ever, which loom reports.
#[test]
fn a_place_that_is_freed_as_somebody_comes_to_wait_is_given_to_him() {
    loom::model(|| {
        let node = Node::full(1);
        let ends = Arc::clone(&node);
        let ends = thread::spawn(move || ends.end());
        block_on(node.wait()).unwrap();
        ends.join().unwrap();
        assert_eq!((node.in_flight(), node.gate.waiting()), (1, 0));
    });
}

#[test]
fn two_places_that_are_freed_at_once_serve_two() {
    few(|| {
        let node = Node::full(2);
        let (ends, waits) = (Arc::clone(&node), Arc::clone(&node));
        let ends = thread::spawn(move || {
            ends.end();
            ends.end();
        });
        let waits = thread::spawn(move || block_on(waits.wait()).unwrap());
        block_on(node.wait()).unwrap();
        ends.join().unwrap();
        waits.join().unwrap();
        assert_eq!((node.in_flight(), node.gate.waiting()), (2, 0));
    });
}

#[test]
fn two_who_try_at_once_are_both_served() {
    few(|| {
        let node = Node::full(2);
        let ends = Arc::clone(&node);
        let ends = thread::spawn(move || {
            ends.end();
            ends.end();
        });
        let waits = || node.wait_as(Kind::Particular);
        let served = block_on(futures_util::future::join(waits(), waits()));
        assert_eq!(served, (Some(()), Some(())));
        ends.join().unwrap();
        assert_eq!((node.in_flight(), node.gate.waiting()), (2, 0));
    });
}

#[test]
fn one_that_leaves_as_a_place_is_freed_passes_it_on() {
    few(|| {
        let node = Node::full(1);
        let (ends, leaves) = (Arc::clone(&node), Arc::clone(&node));
        let leaves = thread::spawn(move || {
            let mut waiting = pin!(leaves.wait());
            // Whatever it was told, it is dropped now; a place that it was given it gives back.
            let mut cx = Context::from_waker(Waker::noop());
            if waiting.as_mut().poll(&mut cx).is_ready() {
                leaves.end();
            }
        });
        let ends = thread::spawn(move || ends.end());
        block_on(node.wait()).unwrap();
        leaves.join().unwrap();
        ends.join().unwrap();
        assert_eq!((node.in_flight(), node.gate.waiting()), (1, 0));
    });
}

#[test]
fn what_was_cancelled_or_failed_is_never_taken_for_a_success() {
    loom::model(|| {
        let tally = Arc::new(Tally::default());
        let theirs = Arc::clone(&tally);
        let thread = thread::spawn(move || {
            for ended in [&theirs.cancelled, &theirs.failed] {
                assert!(theirs.enter(u64::MAX, Reason::Any));
                theirs.leave(Some(ended));
            }
        });
        assert_eq!(tally.succeeded(), 0);
        thread.join().unwrap();
        assert_eq!((tally.started(), tally.succeeded()), (2, 0));
        assert!(tally.enter(u64::MAX, Reason::Any));
        tally.leave(None);
        assert_eq!(tally.succeeded(), 1);
    });
}
