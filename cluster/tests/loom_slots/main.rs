//! The places of a concurrency limit and the queue in front of them under every order in which
//! callers may meet: the file itself, with loom's atomics and locks in the place of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod primitives;
#[path = "../../src/limit/concurrency/slots.rs"]
mod slots;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::thread;

use crate::slots::{Entry, Slots};

/// Three threads in every order with at most two preemptions, in which nearly all errors show; all
/// orders would take hours.
fn few(race: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(race);
}

fn full(limit: u64) -> Arc<Slots> {
    let slots = Slots::new(limit);
    assert!((0..limit).all(|_| slots.try_take().is_some()));
    Arc::new(slots)
}

/// Waits for a place as a caller does; a lost wake-up leaves it asleep for ever, which loom reports.
async fn wait(slots: &Slots) {
    let mut number = None;
    poll_fn(|cx| {
        if let Some(number) = number {
            return if slots.poll(number, cx.waker()) { Poll::Ready(()) } else { Poll::Pending };
        }
        match slots.enter(8, cx.waker()) {
            Entry::Taken(_) => Poll::Ready(()),
            Entry::Queued(queued) => {
                number = Some(queued);
                Poll::Pending
            }
            Entry::Full => panic!("there is room for eight"),
        }
    })
    .await;
}

#[test]
fn a_place_that_is_given_back_as_somebody_comes_to_wait_is_his() {
    loom::model(|| {
        let slots = full(1);
        let ends = Arc::clone(&slots);
        let ends = thread::spawn(move || ends.give_back());
        block_on(wait(&slots));
        ends.join().unwrap();
        assert_eq!((slots.under_way(), slots.waiting()), (1, 0));
        assert!(slots.try_take().is_none());
        slots.give_back();
        assert!(slots.try_take().is_some(), "no mark is left behind");
    });
}

#[test]
fn two_places_that_are_given_back_at_once_serve_two() {
    few(|| {
        let slots = full(2);
        let (ends, waits) = (Arc::clone(&slots), Arc::clone(&slots));
        let ends = thread::spawn(move || {
            ends.give_back();
            ends.give_back();
        });
        let waits = thread::spawn(move || block_on(wait(&waits)));
        block_on(wait(&slots));
        ends.join().unwrap();
        waits.join().unwrap();
        assert_eq!((slots.under_way(), slots.waiting()), (2, 0));
    });
}

#[test]
fn never_more_than_the_limit_are_let_in() {
    few(|| {
        let slots = Arc::new(Slots::new(1));
        let others = [(); 2].map(|()| {
            let slots = Arc::clone(&slots);
            thread::spawn(move || {
                let taken = slots.try_take();
                assert!(taken.is_none_or(|under_way| under_way == 1));
                taken.is_some()
            })
        });
        let mine = slots.try_take().is_some();
        let taken = others.map(|other| other.join().unwrap());
        assert_eq!(taken.into_iter().chain([mine]).filter(|taken| *taken).count(), 1);
    });
}

#[test]
fn calls_that_come_and_go_are_never_taken_for_a_crowd() {
    few(|| {
        let slots = Arc::new(Slots::new(2));
        let others = Arc::clone(&slots);
        let others = thread::spawn(move || {
            for _ in 0..3 {
                assert!(others.try_take().is_some());
                others.give_back();
            }
        });
        assert!(!slots.is_full(), "at most one is under way");
        others.join().unwrap();
    });
}

#[test]
fn a_newcomer_beside_one_who_waits_costs_nobody_his_place() {
    few(|| {
        let slots = full(1);
        let (ends, passes) = (Arc::clone(&slots), Arc::clone(&slots));
        let ends = thread::spawn(move || ends.give_back());
        let passes = thread::spawn(move || {
            if passes.try_take().is_some() {
                passes.give_back();
            }
        });
        block_on(wait(&slots));
        ends.join().unwrap();
        passes.join().unwrap();
        assert_eq!((slots.under_way(), slots.waiting()), (1, 0));
    });
}

#[test]
fn one_that_leaves_as_a_place_is_given_passes_it_on() {
    few(|| {
        let slots = full(1);
        let (ends, leaves) = (Arc::clone(&slots), Arc::clone(&slots));
        let leaves = thread::spawn(move || match leaves.enter(8, Waker::noop()) {
            Entry::Taken(_) => leaves.give_back(),
            Entry::Queued(number) => {
                if leaves.leave(number) {
                    leaves.give_back();
                }
            }
            Entry::Full => panic!("there is room for eight"),
        });
        let ends = thread::spawn(move || ends.give_back());
        block_on(wait(&slots));
        leaves.join().unwrap();
        ends.join().unwrap();
        assert_eq!((slots.under_way(), slots.waiting()), (1, 0));
    });
}

#[test]
fn a_limit_that_rises_as_somebody_comes_to_wait_lets_him_in() {
    loom::model(|| {
        let slots = full(1);
        let rises = Arc::clone(&slots);
        let rises = thread::spawn(move || {
            rises.set_limit(2);
            rises.hand_out();
        });
        block_on(wait(&slots));
        rises.join().unwrap();
        assert_eq!((slots.under_way(), slots.waiting()), (2, 0));
    });
}

#[test]
fn a_limit_that_falls_as_a_place_is_given_back_leaves_nobody_behind() {
    few(|| {
        let slots = full(2);
        let (ends, falls) = (Arc::clone(&slots), Arc::clone(&slots));
        let ends = thread::spawn(move || {
            ends.give_back();
            ends.give_back();
        });
        let falls = thread::spawn(move || {
            falls.set_limit(1);
            falls.hand_out();
        });
        block_on(wait(&slots));
        ends.join().unwrap();
        falls.join().unwrap();
        assert_eq!((slots.under_way(), slots.waiting()), (1, 0));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(std::pin::pin!(wait(&slots)).poll(&mut cx).is_pending());
    });
}
