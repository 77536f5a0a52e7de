//! Two or three callers at once, in every order.

use std::time::Duration;

use loom::future::block_on;
use loom::thread;
use tokio::time::Instant;

use crate::lock::{Gate, Want};
use crate::primitives::Arc;
use crate::state::{Limits, Plan};
use crate::stats::CloseReason;
use crate::tokens::{Entry, Lane, Permit, Place, Ticket};

const LIMITS: Limits = Limits {
    reserved: 0,
    max_waiters: 4,
    max_connecting: 4,
    min_idle: 0,
    max_backoff: Duration::from_secs(1),
};

/// Three threads in every order with at most two preemptions, in which nearly all errors show; all
/// orders would take hours.
fn three(race: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(race);
}

fn gate(max_size: usize) -> Arc<Gate> {
    Arc::new(Gate::new(max_size, LIMITS))
}

/// A gate with a connection that is idle.
fn stocked(max_size: usize, now: Instant) -> Arc<Gate> {
    let gate = gate(max_size);
    let (ticket, entry) = gate.enter(Lane::Ordinary);
    let Plan::Connect(connecting) = gate.plan(now) else { panic!("a connect is due") };
    connecting.made(Duration::ZERO);
    gate.put();
    drop((ticket, entry));
    assert_eq!((gate.snapshot().size, gate.snapshot().available), (1, 1));
    gate
}

fn permit(gate: &Arc<Gate>) -> (Ticket, Permit) {
    let (ticket, entry) = gate.enter(Lane::Ordinary);
    let Ok(Entry::Permit(permit)) = entry else { panic!("a permit is free") };
    (ticket, permit)
}

fn queued(gate: &Arc<Gate>) -> (Ticket, Place<Permit>) {
    let (ticket, entry) = gate.enter(Lane::Ordinary);
    let Ok(Entry::Queued(place)) = entry else { panic!("no permit is free") };
    (ticket, place)
}

/// Nobody holds or wants anything, and all there was is there.
fn assert_at_rest(gate: &Arc<Gate>, max_size: usize) {
    let stats = gate.snapshot();
    assert_eq!((stats.waiting, stats.leased, stats.connecting), (0, 0, 0));
    assert_eq!((gate.permits_out(), stats.available), (0, stats.size));
    let all: Vec<_> = (0..max_size).map(|_| permit(gate)).collect();
    assert!(matches!(gate.enter(Lane::Ordinary).1, Ok(Entry::Queued(_))));
    drop(all);
}

#[test]
fn a_permit_that_comes_as_its_waiter_leaves_is_not_lost() {
    loom::model(|| {
        let gate = gate(1);
        let held = permit(&gate);
        let waits = queued(&gate);
        let leaves = thread::spawn(move || drop(waits));
        drop(held);
        leaves.join().unwrap();
        assert_at_rest(&gate, 1);
    });
}

#[test]
fn a_permit_whose_first_waiter_leaves_goes_to_the_second() {
    three(|| {
        let gate = gate(1);
        let held = permit(&gate);
        let first = queued(&gate);
        let second = queued(&gate);
        let leaves = thread::spawn(move || drop(first));
        let returns = thread::spawn(move || drop(held));
        assert!(block_on(second.1).is_some());
        drop(second.0);
        leaves.join().unwrap();
        returns.join().unwrap();
        assert_at_rest(&gate, 1);
    });
}

#[test]
fn nobody_slips_in_while_a_pause_ends() {
    loom::model(|| {
        let gate = gate(1);
        gate.pause(true);
        let first = queued(&gate);
        let resumes = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.pause(false))
        };
        let (ticket, entry) = gate.enter(Lane::Ordinary);
        let Ok(Entry::Queued(second)) = entry else { panic!("served before an earlier caller") };
        resumes.join().unwrap();
        drop(block_on(first.1).unwrap());
        assert!(block_on(second).is_some());
        drop((first.0, ticket));
        assert_at_rest(&gate, 1);
    });
}

#[test]
fn a_pool_that_grows_as_a_lease_comes_back_serves_both_who_wait() {
    three(|| {
        let gate = gate(1);
        let held = permit(&gate);
        let (first, second) = (queued(&gate), queued(&gate));
        let grows = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.resize(2))
        };
        let returns = thread::spawn(move || drop(held));
        let permits = (block_on(first.1).unwrap(), block_on(second.1).unwrap());
        grows.join().unwrap();
        returns.join().unwrap();
        drop((permits, first.0, second.0));
        assert_at_rest(&gate, 2);
    });
}

#[test]
fn a_connection_that_comes_as_the_one_who_wants_it_leaves_is_idle_again() {
    let now = Instant::now();
    loom::model(move || {
        let gate = stocked(2, now);
        let (held_ticket, mut held) = permit(&gate);
        held.use_claim();
        let (ticket, mut wants) = permit(&gate);
        let Want::Wait(place) = gate.want(&mut wants, now) else { panic!("none is idle") };
        let leaves = thread::spawn(move || drop((place, wants, ticket)));
        // The connection lies in the store again.
        held.give_back(true, Duration::ZERO);
        drop(held_ticket);
        leaves.join().unwrap();
        assert_at_rest(&gate, 2);
    });
}

#[test]
fn of_two_who_want_a_connection_the_second_gets_it_when_the_first_leaves() {
    let now = Instant::now();
    three(move || {
        let gate = stocked(3, now);
        let (held_ticket, mut held) = permit(&gate);
        held.use_claim();
        let (first, second) = (permit(&gate), permit(&gate));
        let leaves = thread::spawn(move || drop(first));
        let returns = thread::spawn(move || {
            held.give_back(true, Duration::ZERO);
            drop(held_ticket);
        });
        let (ticket, mut wants) = second;
        let Want::Wait(place) = gate.want(&mut wants, now) else { panic!("none is idle") };
        wants.add(block_on(place).unwrap().unwrap());
        assert!(wants.has_claim());
        drop((wants, ticket));
        leaves.join().unwrap();
        returns.join().unwrap();
        assert_at_rest(&gate, 3);
    });
}

#[test]
fn a_look_at_the_idle_connections_keeps_none_from_who_wants_one() {
    let now = Instant::now();
    loom::model(move || {
        let gate = stocked(2, now);
        let looks = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || drop(gate.sweep()))
        };
        let (ticket, mut wants) = permit(&gate);
        if !wants.has_claim() {
            match gate.want(&mut wants, now) {
                Want::Wait(place) => wants.add(block_on(place).unwrap().unwrap()),
                other => panic!("{other:?}"),
            }
        }
        looks.join().unwrap();
        drop((wants, ticket));
        assert_at_rest(&gate, 2);
    });
}

#[test]
fn two_who_want_a_connection_start_two_connects_and_no_more() {
    let now = Instant::now();
    three(move || {
        let gate = gate(2);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    let caller = permit(&gate);
                    let mut begun = Vec::new();
                    while let Plan::Connect(connecting) = gate.plan(now) {
                        begun.push(connecting);
                    }
                    (caller, begun)
                })
            })
            .collect();
        let begun: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        assert_eq!(gate.snapshot().connecting, 2);
        assert_eq!(begun.iter().map(|(_, begun)| begun.len()).sum::<usize>(), 2);
        drop(begun);
        assert_at_rest(&gate, 2);
    });
}

#[test]
fn a_close_turns_waiters_away_and_hears_of_the_last_permit() {
    three(|| {
        let gate = gate(1);
        let held = permit(&gate);
        let waits = queued(&gate);
        let returns = thread::spawn(move || drop(held));
        gate.close();
        // The lease may have come back just before, and gone to who waits.
        let turned_away = thread::spawn(move || drop(block_on(waits.1)));
        if let Some(drained) = gate.drained() {
            block_on(drained).unwrap();
        }
        assert_eq!(gate.permits_out(), 0);
        returns.join().unwrap();
        turned_away.join().unwrap();
        drop(waits.0);
        assert_eq!(gate.snapshot().waiting, 0);
    });
}

#[test]
fn a_connection_closed_and_one_made_at_the_same_time_are_counted() {
    let now = Instant::now();
    loom::model(move || {
        let gate = stocked(2, now);
        let (ticket, mut held) = permit(&gate);
        held.use_claim();
        let other = permit(&gate);
        let Plan::Connect(connecting) = gate.plan(now) else { panic!("a connect is due") };
        let closes = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || {
                gate.closed(CloseReason::Broken);
                held.give_back(false, Duration::ZERO);
                drop(ticket);
            })
        };
        connecting.made(Duration::ZERO);
        gate.put();
        closes.join().unwrap();
        drop(other);
        let stats = gate.snapshot();
        assert_eq!((stats.size, stats.available, stats.closed.broken_total), (1, 1, 1));
        assert_at_rest(&gate, 2);
    });
}
