//! The rules of the map one by one, and that it is empty when nothing is under way.

use std::sync::Arc;

use super::*;
use crate::error::Failure;

type Map = Arc<Flights<&'static str, u64>>;

fn map() -> Map {
    Arc::new(Flights::new(true))
}

fn lead(map: &Map) -> (Lead<&'static str, u64>, Landing<u64>) {
    match map.join(&"k", 1, 0, || None::<u64>) {
        Join::Lead(lead, landing) => (lead, landing),
        Join::Hit(_) | Join::Wait(_) => panic!("nobody else flies"),
    }
}

fn joins(map: &Map) -> bool {
    matches!(map.join(&"k", 1, 0, || None::<u64>), Join::Wait(_))
}

fn publishes(ticket: &Ticket<&'static str, u64>, writing: bool) -> bool {
    let mut ran = false;
    let published = ticket.publish(writing, || ran = true);
    assert_eq!(published, ran);
    published
}

#[test]
fn a_slot_lives_only_while_something_is_under_way() {
    let map = map();
    let (lead, _) = lead(&map);
    assert!(joins(&map));
    let promotion = map.promote(&"k").unwrap();
    let hold = map.hold("k");
    assert_eq!(map.len(), 1);
    drop(lead);
    assert!(!matches!(map.join(&"k", 1, 0, || Some(1)), Join::Wait(_)));
    drop(promotion);
    assert!(map.promote(&"k").is_none());
    let (_, ticket) = map.replace(&"k", || {});
    drop(hold);
    assert_eq!(map.len(), 1);
    let (_, sweep) = map.sweep();
    assert!(map.promote(&"k").is_none());
    assert_eq!(map.len(), 0);
    drop(ticket);
    drop(sweep);
    assert!(map.promote(&"k").is_some());
    assert_eq!(map.len(), 0);
}

#[test]
fn a_value_that_came_meanwhile_starts_no_flight() {
    let map = map();
    assert!(matches!(map.join(&"k", 1, 0, || Some(7)), Join::Hit(7)));
    assert_eq!(map.len(), 0);
}

#[test]
fn a_landed_flight_takes_no_more_callers_but_a_removal_waits_for_its_write() {
    let map = map();
    let (lead, _) = lead(&map);
    assert!(publishes(&lead.ticket, true));
    assert!(!joins(&map));
    let before = map.void("k", || {});
    assert_eq!(before.0.len(), 1);
    assert!(map.void("k", || {}).0.is_empty(), "a write is waited for once");
    assert!(lead.ticket.is_void());
}

#[test]
fn a_flight_that_still_loads_is_detached_and_not_waited_for() {
    let map = map();
    let (old, _) = lead(&map);
    assert!(map.void("k", || {}).0.is_empty());
    let (new, _) = lead(&map);
    assert!(!publishes(&old.ticket, true));
    drop(old);
    assert!(joins(&map), "the end of the old flight leaves the new one");
    assert!(publishes(&new.ticket, false));
}

#[test]
fn while_a_key_is_held_flights_do_not_trust_the_shared_layer() {
    let map = map();
    let hold = map.hold("k");
    assert!(!lead(&map).0.trusts_shared);
    drop(hold);
    assert!(lead(&map).0.trusts_shared);
    let (_, sweep) = map.sweep();
    assert!(!lead(&map).0.trusts_shared);
    drop(sweep);
    assert!(lead(&map).0.trusts_shared);
    assert_eq!(map.len(), 0);
}

#[test]
fn a_flight_that_began_too_early_is_not_joined_but_still_lands() {
    let map = map();
    let (old, _) = lead(&map);
    let Join::Lead(new, _) = map.join(&"k", 2, 2, || None::<u64>) else { panic!("too old") };
    assert!(publishes(&old.ticket, false), "it fills memory all the same");
    drop(old);
    assert!(matches!(map.join(&"k", 2, 2, || None::<u64>), Join::Wait(_)));
    assert!(publishes(&new.ticket, false));
}

#[test]
fn a_sweep_makes_every_fill_void() {
    let map = map();
    let (flight, _) = lead(&map);
    let promotion = map.promote(&"other").unwrap();
    let (_, insertion) = map.replace(&"third", || {});
    let (before, _sweep) = map.sweep();
    assert_eq!(before.0.len(), 1, "only the insertion writes");
    assert!([&promotion, &insertion, &flight.ticket].iter().all(|ticket| ticket.is_void()));
}

#[tokio::test]
async fn a_predecessor_is_over_when_its_ticket_is_dropped() {
    let map = map();
    let (_, first) = map.replace(&"k", || {});
    let (before, _second) = map.replace(&"k", || {});
    let waiting = tokio::spawn(before.wait());
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_lead_dropped_before_it_lands_is_an_error_for_who_waits() {
    let map = map();
    let (lead, landing) = lead(&map);
    drop(lead);
    assert!(matches!(landing.wait().await, Err(Failure::Aborted)));
    assert_eq!(map.len(), 0);
}
