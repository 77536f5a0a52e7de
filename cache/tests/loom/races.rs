//! Two or three callers at once, in every order.

use loom::future::block_on;
use loom::thread;

use crate::error::Failure;
use crate::map::{Flights, Join, Outcome};
use crate::primitives::{Arc, Mutex};

/// The map, and what memory holds under its one key.
#[derive(Clone)]
struct World {
    flights: Arc<Flights<&'static str, u64>>,
    memory: Arc<Mutex<Option<u64>>>,
    source: Arc<Mutex<u64>>,
}

const KEY: &str = "k";

impl World {
    fn new() -> Self {
        Self {
            flights: Arc::new(Flights::new(true)),
            memory: Arc::new(Mutex::new(None)),
            source: Arc::new(Mutex::new(1)),
        }
    }

    /// Reads as the cache does: joins, or loads and publishes. `None` without a runtime to load.
    fn read(&self) -> Outcome<u64> {
        match self.flights.join(&KEY, 0, 0, || *self.memory.lock()) {
            Join::Hit(value) => Ok(value),
            Join::Wait(landing) => block_on(landing.wait()),
            Join::Lead(lead, landing) => {
                let value = *self.source.lock();
                lead.ticket.publish(false, || *self.memory.lock() = Some(value));
                drop(lead.ticket);
                lead.runway.send_replace(Some(Ok(value)));
                block_on(landing.wait())
            }
        }
    }

    /// Changes the source, then removes the key.
    fn change(&self, value: u64) {
        *self.source.lock() = value;
        self.flights.void(&KEY, || *self.memory.lock() = None);
    }
}

#[test]
fn a_read_that_begins_after_a_removal_never_sees_what_was_there_before() {
    loom::model(|| {
        let world = World::new();
        let reader = world.clone();
        let reader = thread::spawn(move || reader.read().unwrap());
        world.change(2);
        assert_eq!(world.read(), Ok(2));
        assert!((1..=2).contains(&reader.join().unwrap()));
        assert_eq!(*world.memory.lock(), Some(2));
        assert_eq!(world.flights.len(), 0, "nothing is under way, nothing is kept");
    });
}

#[test]
fn a_sweep_keeps_out_what_began_before_it() {
    loom::model(|| {
        let world = World::new();
        let reader = world.clone();
        let reader = thread::spawn(move || reader.read().unwrap());
        *world.source.lock() = 2;
        let (_, hold) = world.flights.sweep();
        *world.memory.lock() = None;
        drop(hold);
        assert_eq!(world.read(), Ok(2));
        reader.join().unwrap();
        assert_eq!(*world.memory.lock(), Some(2));
        assert_eq!(world.flights.len(), 0);
    });
}

#[test]
fn two_callers_of_a_cold_key_cause_one_load() {
    loom::model(|| {
        let world = World::new();
        let loads = Arc::new(Mutex::new(0));
        let read =
            |world: World, loads: Arc<Mutex<u32>>| match world
                .flights
                .join(&KEY, 0, 0, || *world.memory.lock())
            {
                Join::Hit(value) => value,
                Join::Wait(landing) => block_on(landing.wait()).unwrap(),
                Join::Lead(lead, _) => {
                    *loads.lock() += 1;
                    lead.ticket.publish(false, || *world.memory.lock() = Some(1));
                    drop(lead.ticket);
                    lead.runway.send_replace(Some(Ok(1)));
                    1
                }
            };
        let other = (world.clone(), Arc::clone(&loads));
        let other = thread::spawn(move || read(other.0, other.1));
        assert_eq!(read(world.clone(), Arc::clone(&loads)), 1);
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(*loads.lock(), 1);
    });
}

#[test]
fn a_leader_that_dies_hangs_nobody() {
    loom::model(|| {
        let world = World::new();
        let dying = world.clone();
        let dying = thread::spawn(move || {
            drop(dying.flights.join(&KEY, 0, 0, || *dying.memory.lock()));
        });
        match world.read() {
            Ok(value) => assert_eq!(value, 1),
            Err(failure) => assert_eq!(failure, Failure::Aborted),
        }
        dying.join().unwrap();
        assert_eq!(world.read(), Ok(1));
        assert_eq!(world.flights.len(), 0);
    });
}

#[test]
fn a_later_write_waits_for_the_earlier_one() {
    loom::model(|| {
        let world = World::new();
        let shared = Arc::new(Mutex::new(0));
        let write = |world: &World, shared: &Mutex<u64>, value: u64| {
            let (before, ticket) =
                world.flights.replace(&KEY, || *world.memory.lock() = Some(value));
            block_on(before.wait());
            if !ticket.is_void() {
                *shared.lock() = value;
            }
        };
        let other = (world.clone(), Arc::clone(&shared));
        let other = thread::spawn(move || write(&other.0, &other.1, 1));
        write(&world, &shared, 2);
        other.join().unwrap();
        assert_eq!(world.memory.lock().unwrap(), *shared.lock());
        assert_eq!(world.flights.len(), 0);
    });
}

#[test]
fn a_read_without_a_ticket_does_not_see_what_is_being_removed() {
    loom::model(|| {
        let world = World::new();
        *world.memory.lock() = Some(1);
        let remover = world.clone();
        let remover = thread::spawn(move || {
            let hold = remover.flights.hold(KEY);
            remover.flights.void(&KEY, || *remover.memory.lock() = None);
            // The source stands for the shared layer here.
            *remover.source.lock() = 2;
            drop(hold);
        });
        let removed = world.memory.lock().is_none();
        if removed && world.flights.trusts_shared(&KEY) {
            assert_eq!(*world.source.lock(), 2);
        }
        remover.join().unwrap();
        assert!(world.flights.trusts_shared(&KEY));
    });
}
