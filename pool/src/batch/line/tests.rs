//! The line against a naive model.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Enter(u8),
    /// The n-th of those who ever came leaves, perhaps for the second time.
    Leave(usize),
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8).prop_map(Step::Enter),
        3 => (0..60_usize).prop_map(Step::Leave),
        1 => (1..8_usize).prop_map(Step::Take),
    ]
}

/// Those who wait, in the order of their arrival, as `(key, who)`.
#[derive(Default)]
struct Model(Vec<(u8, usize)>);

impl Model {
    /// The keys in the order of the earliest who brought them. A key keeps its place in the line
    /// when that one leaves, so the order is remembered apart.
    fn take(&mut self, order: &mut Vec<u8>, most: usize) -> Vec<(u8, Vec<usize>)> {
        let count = order.len().min(most);
        let keys: Vec<u8> = order.drain(..count).collect();
        let taken = keys.into_iter().map(|key| {
            let who = self.0.iter().filter(|waiter| waiter.0 == key).map(|waiter| waiter.1);
            (key, who.collect())
        });
        let taken: Vec<(u8, Vec<usize>)> = taken.collect();
        self.0.retain(|waiter| taken.iter().all(|(key, _)| *key != waiter.0));
        taken
    }
}

proptest! {
    #[test]
    fn equal_keys_wait_together_and_whoever_leaves_is_not_served(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut line = Line::<u8, usize, Equal<u8>>::default();
        let (mut model, mut order, mut places) = (Model::default(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Enter(key) => {
                    let who = places.len();
                    let place = line.enter(key, who);
                    prop_assert_eq!(place.joined(), order.contains(&key));
                    places.push(place);
                    model.0.push((key, who));
                    if !order.contains(&key) {
                        order.push(key);
                    }
                }
                Step::Leave(who) if who < places.len() => {
                    let at = model.0.iter().position(|waiter| waiter.1 == who);
                    let key = at.map(|at| model.0.remove(at).0);
                    let last = key.filter(|key| model.0.iter().all(|waiter| waiter.0 != *key));
                    order.retain(|key| Some(*key) != last);
                    let left = line.leave(places[who]);
                    // The index keeps a copy of the key, which leaves with it.
                    let left = left.map(|(who, item)| (who, item.map(|(item, kept)| (item, kept == Some(item)))));
                    prop_assert_eq!(left, key.map(|_| (who, last.map(|item| (item, true)))));
                }
                Step::Leave(_) => {}
                Step::Take(most) => {
                    let expected = model.take(&mut order, most);
                    let Some(batch) = line.take(most) else {
                        prop_assert!(expected.is_empty());
                        continue;
                    };
                    for (at, key) in batch.items.iter().enumerate() {
                        prop_assert_eq!(batch.routes.find(key), Some(at));
                    }
                    prop_assert_eq!(batch.routes.by_key.len(), batch.items.len());
                    let waiters = batch.waiters.into_iter().map(SmallVec::into_vec);
                    let found: Vec<_> = batch.items.into_iter().zip(waiters).collect();
                    prop_assert_eq!(found, expected);
                }
            }
            prop_assert_eq!(line.waiting(), model.0.len());
            prop_assert_eq!(line.is_empty(), model.0.is_empty());
            prop_assert!(line.entries.len() <= 2 * line.alive);
            prop_assert_eq!(line.index.0.len(), line.alive);
        }
    }
}

fn slots_of<T, W>(entry: &Entry<T, W>) -> usize {
    entry.kept.as_ref().map_or(1, |(_, waiters)| waiters.slots.capacity())
}

#[test]
fn a_key_that_thousands_leave_stays_small() {
    let mut line = Line::<u8, (), Equal<u8>>::default();
    line.enter(7, ());
    for _ in 0..10_000 {
        let place = line.enter(7, ());
        assert!(line.leave(place).is_some());
    }
    let slots: usize = line.entries.iter().map(slots_of).sum();
    assert!(slots < 10, "{slots} slots for one who waits");
}

#[test]
fn equal_writes_stay_apart() {
    let mut line = Line::<u8, char, Distinct>::default();
    assert!(!line.enter(7, 'a').joined());
    assert!(!line.enter(7, 'b').joined());
    let batch = line.take(10).unwrap();
    let waiters: Vec<Vec<char>> = batch.waiters.into_iter().map(SmallVec::into_vec).collect();
    assert_eq!((batch.items, waiters), (vec![7, 7], vec![vec!['a'], vec!['b']]));
}
