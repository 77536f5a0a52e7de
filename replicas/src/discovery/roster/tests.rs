//! Answers in a row, and what each asks for.

use proptest::prelude::*;

use super::*;

fn found(nodes: &[(&str, u8)]) -> BTreeMap<String, u8> {
    nodes.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect()
}

/// Lets the set do all that an answer asks for, and says what that was.
fn answer(roster: &mut Roster<u8>, nodes: &[(&str, u8)]) -> Vec<Task> {
    let found = found(nodes);
    let tasks = roster.compare(&found, 3);
    for task in &tasks {
        roster.done(task, &found);
    }
    tasks
}

fn add(name: &str) -> Task {
    Task::Add(name.to_owned())
}

fn remove(name: &str) -> Task {
    Task::Remove(name.to_owned())
}

#[test]
fn a_node_comes_at_once_and_goes_after_three_answers_without_it() {
    let mut roster = Roster::new();
    assert_eq!(answer(&mut roster, &[("a", 1), ("b", 2)]), [add("a"), add("b")]);
    assert_eq!(answer(&mut roster, &[("a", 1)]), []);
    assert_eq!(answer(&mut roster, &[("a", 1)]), []);
    assert_eq!(answer(&mut roster, &[("a", 1), ("b", 2)]), [], "it is back");
    assert_eq!(answer(&mut roster, &[("a", 1), ("c", 3)]), [add("c")]);
    assert_eq!(answer(&mut roster, &[("a", 1), ("c", 3)]), []);
    assert_eq!(answer(&mut roster, &[("a", 1), ("c", 3)]), [remove("b")]);
    assert_eq!(answer(&mut roster, &[("a", 1), ("c", 3)]), []);
}

#[test]
fn a_name_that_moves_is_replaced_at_once() {
    let mut roster = Roster::new();
    answer(&mut roster, &[("a", 1)]);
    assert_eq!(answer(&mut roster, &[("a", 2)]), [Task::Replace("a".to_owned())]);
    assert_eq!(answer(&mut roster, &[("a", 2)]), []);
}

#[test]
fn what_the_set_refused_is_asked_for_again() {
    let mut roster = Roster::new();
    for _ in 0..3 {
        assert_eq!(roster.compare(&found(&[("a", 1)]), 3), [add("a")]);
    }
    assert_eq!(roster.known.len(), 0);
}

proptest! {
    /// Whoever is found is known at once, and whoever is known was found lately.
    #[test]
    fn the_roster_follows_the_answers(
        answers in proptest::collection::vec(proptest::collection::btree_map("[a-e]", 0_u8..2, 0..5), 1..40),
    ) {
        let mut roster = Roster::new();
        for (at, found) in answers.iter().enumerate() {
            for task in roster.compare(found, 3) {
                roster.done(&task, found);
            }
            for (name, address) in found {
                prop_assert_eq!(roster.known[name].address, *address);
            }
            let lately = &answers[at.saturating_sub(2)..=at];
            for name in roster.known.keys() {
                prop_assert!(lately.iter().any(|answer| answer.contains_key(name)));
            }
        }
    }
}
