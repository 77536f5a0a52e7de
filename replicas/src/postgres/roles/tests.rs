//! Failovers, old primaries, split brains and strangers, and what holds whatever happens.

use proptest::prelude::*;

use super::*;

const SYSTEM: u64 = 7_712_341_245_863_561_938;

fn writable(timeline: u32) -> Seen {
    Seen { system: SYSTEM, recovery: Recovery::Writable { timeline } }
}

fn standby(timeline: u32) -> Seen {
    Seen { system: SYSTEM, recovery: Recovery::Standby { timeline: Some(timeline) } }
}

fn of(system: u64, seen: Seen) -> Seen {
    Seen { system, ..seen }
}

fn members(names: &[&str]) -> Roles {
    let mut roles = Roles::new(None, None);
    for name in names {
        roles.join(Name::from(*name));
    }
    roles
}

/// A primary `a` on timeline 1 with two standbys, all heard.
fn healthy() -> Roles {
    let mut roles = members(&["a", "b", "c"]);
    roles.saw("a", writable(1));
    roles.saw("b", standby(1));
    roles.saw("c", standby(1));
    assert_eq!(primary(&roles), Some("a"));
    roles
}

fn primary(roles: &Roles) -> Option<&str> {
    roles.primary().map(|name| &**name)
}

fn change(node: &str, from: Standing, to: Standing) -> Change {
    Change { node: Name::from(node), from, to }
}

use Standing::{Fenced, Foreign, Primary, Replica, Rival, Unheard};

#[test]
fn nothing_is_decided_before_everybody_has_answered() {
    let mut roles = members(&["a", "b", "c"]);
    assert_eq!(roles.saw("a", writable(1)), []);
    assert_eq!(roles.saw("b", standby(1)), []);
    assert!(!roles.is_settled());
    // The new primary answers last, and the old one never was one to us.
    let changes = roles.saw("c", writable(2));
    let first = [change("a", Unheard, Fenced), change("b", Unheard, Replica)];
    assert_eq!(changes[..2], first);
    assert_eq!(changes[2..], [change("c", Unheard, Primary)]);
}

#[test]
fn nobody_waits_for_ever_for_a_node_that_does_not_answer() {
    let mut roles = members(&["a", "b"]);
    roles.saw("a", writable(1));
    assert_eq!(roles.settle(), [change("a", Unheard, Primary)]);
    assert_eq!(roles.saw("b", standby(1)), [change("b", Unheard, Replica)]);
}

#[test]
fn a_promotion_fences_the_old_primary_first() {
    let mut roles = healthy();
    let changes = roles.saw("b", writable(2));
    assert_eq!(changes, [change("a", Primary, Fenced), change("b", Replica, Primary)]);
    // The old one stays where it is until it follows.
    assert_eq!(roles.saw("a", writable(1)), []);
    assert_eq!(roles.standing("a"), Fenced);
    assert_eq!(roles.saw("a", standby(2)), [change("a", Fenced, Replica)]);
}

#[test]
fn a_standby_s_timeline_fences_before_the_new_primary_is_seen() {
    let mut roles = healthy();
    assert_eq!(roles.saw("c", standby(2)), [change("a", Primary, Fenced)]);
    assert_eq!(primary(&roles), None);
    assert_eq!(roles.saw("b", writable(2)), [change("b", Replica, Primary)]);
}

#[test]
fn an_unreachable_primary_stays_the_primary() {
    let mut roles = healthy();
    for _ in 0..10 {
        assert_eq!(roles.saw("b", standby(1)), []);
    }
    assert_eq!(primary(&roles), Some("a"));
}

#[test]
fn a_split_brain_keeps_the_known_primary() {
    let mut roles = healthy();
    roles.saw("b", writable(2));
    // Promoted from timeline 1 as well, without having heard of the other promotion.
    assert_eq!(roles.saw("c", writable(2)), [change("c", Replica, Rival)]);
    assert_eq!(roles.saw("c", writable(2)), [], "however often it says so");
    // The operator makes the first one follow the second.
    let changes = roles.saw("b", standby(2));
    assert_eq!(changes, [change("b", Primary, Replica), change("c", Rival, Primary)]);
}

#[test]
fn a_split_brain_from_the_beginning_has_no_primary() {
    let mut roles = members(&["a", "b"]);
    roles.saw("a", writable(3));
    let changes = roles.saw("b", writable(3));
    assert_eq!(changes, [change("a", Unheard, Rival), change("b", Unheard, Rival)]);
    assert_eq!(primary(&roles), None);
    let changes = roles.saw("a", writable(4));
    assert_eq!(changes, [change("b", Rival, Fenced), change("a", Rival, Primary)]);
}

#[test]
fn a_removed_primary_makes_way_but_its_timeline_counts() {
    let mut roles = healthy();
    roles.saw("b", writable(2));
    assert_eq!(roles.leave("b"), []);
    assert_eq!(primary(&roles), None);
    assert_eq!(roles.saw("a", writable(1)), [], "still fenced");
    // The same server under another name.
    roles.join(Name::from("b2"));
    assert_eq!(roles.saw("b2", writable(2)), [change("b2", Unheard, Primary)]);
}

#[test]
fn a_foreign_system_is_refused_whatever_its_timeline() {
    let mut roles = healthy();
    let stranger = of(42, writable(9));
    assert_eq!(roles.saw("c", stranger), [change("c", Replica, Foreign)]);
    assert_eq!((primary(&roles), roles.highest()), (Some("a"), 1));
    assert_eq!(roles.saw("c", standby(1)), [change("c", Foreign, Replica)]);
}

#[test]
fn the_system_is_the_given_one_or_the_declared_primary_s_or_that_of_most() {
    let hear = |mut roles: Roles| {
        for name in ["a", "b", "c"] {
            roles.join(Name::from(name));
        }
        roles.saw("a", of(1, writable(1)));
        roles.saw("b", of(2, standby(1)));
        roles.saw("c", of(2, writable(1)));
        roles
    };
    let most = hear(Roles::new(None, None));
    assert_eq!((most.system(), primary(&most)), (Some(2), Some("c")));
    let declared = hear(Roles::new(None, Some(Name::from("a"))));
    assert_eq!((declared.system(), primary(&declared)), (Some(1), Some("a")));
    let given = hear(Roles::new(Some(3), Some(Name::from("a"))));
    assert_eq!((given.system(), primary(&given)), (Some(3), None));
}

/// One answer of one of four nodes, or none.
fn answer() -> impl Strategy<Value = (usize, Option<Seen>)> {
    let recovery = prop_oneof![
        (1_u32..5).prop_map(|timeline| Recovery::Writable { timeline }),
        proptest::option::of(1_u32..5).prop_map(|timeline| Recovery::Standby { timeline }),
    ];
    let system = prop_oneof![9 => Just(SYSTEM), 1 => Just(1)];
    let seen = (system, recovery).prop_map(|(system, recovery)| Seen { system, recovery });
    (0_usize..4, proptest::option::of(seen))
}

proptest! {
    /// Whatever is answered: one primary at most, also between two changes; never one on a timeline
    /// below the highest that was seen; and the changes tell the standings.
    #[test]
    fn there_is_one_primary_on_the_newest_timeline(answers in proptest::collection::vec(answer(), 1..60)) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let mut roles = members(&NAMES);
        let mut told: BTreeMap<Name, Standing> = BTreeMap::new();
        let mut last: BTreeMap<&str, Seen> = BTreeMap::new();
        let mut highest = 0;
        for (node, seen) in answers {
            let changes = match seen {
                Some(seen) => {
                    last.insert(NAMES[node], seen);
                    roles.saw(NAMES[node], seen)
                }
                None => roles.settle(),
            };
            for change in changes {
                let before = told.insert(Name::clone(&change.node), change.to).unwrap_or_default();
                prop_assert_eq!(before, change.from);
                let primaries = told.values().filter(|standing| **standing == Primary).count();
                prop_assert!(primaries <= 1);
            }
            for name in NAMES {
                prop_assert_eq!(told.get(name).copied().unwrap_or_default(), roles.standing(name));
            }
            prop_assert!(roles.highest() >= highest);
            highest = roles.highest();
            if let Some(name) = primary(&roles) {
                prop_assert_eq!(roles.standing(name), Primary);
                let seen = last[name];
                prop_assert_eq!(seen.recovery, Recovery::Writable { timeline: highest });
                prop_assert_eq!(Some(seen.system), roles.system());
            }
        }
    }
}
