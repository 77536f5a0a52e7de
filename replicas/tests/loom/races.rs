//! Two or three callers at once, in every order.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;
use tokio::time::Instant;

use crate::gate::{Gate, Kind};
use crate::primitives::SeqCst;

/// A node with a number of places, as the set has it: counted by a relaxed compare and exchange, given
/// back by a sequentially consistent subtraction.
struct Node {
    in_flight: AtomicU64,
    limit: u64,
    gate: Gate,
}

impl Node {
    fn full(limit: u64) -> Arc<Self> {
        Arc::new(Self { in_flight: AtomicU64::new(limit), limit, gate: Gate::default() })
    }

    fn enter(&self) -> Option<()> {
        let below = |count: u64| (count < self.limit).then(|| count + 1);
        self.in_flight.fetch_update(Relaxed, Relaxed, below).ok().map(drop)
    }

    fn end(&self) {
        self.in_flight.fetch_sub(1, SeqCst);
        self.gate.freed();
    }

    fn wait(&self) -> impl Future<Output = Option<()>> + '_ {
        self.gate.wait(Kind::Replica, 4, Instant::now(), || self.enter())
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
        assert_eq!((node.in_flight.load(SeqCst), node.gate.waiting()), (1, 0));
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
        assert_eq!((node.in_flight.load(SeqCst), node.gate.waiting()), (2, 0));
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
        assert_eq!((node.in_flight.load(SeqCst), node.gate.waiting()), (1, 0));
    });
}
