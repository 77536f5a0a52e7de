//! Any sequence of picks, ends, drops and changes against a model that only counts.

use std::collections::BTreeMap;

use escala_replicas::{
    Exclusion, Member, Observation, Outcome, Pick, Replicas, Role, Session, Strategy,
};
use proptest::prelude::{Just, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use crate::steady;

#[derive(Debug, Clone, Copy)]
enum Step {
    Read,
    Write,
    Pinned,
    /// Ends the n-th of the picks there are.
    End(usize, Option<Outcome>),
    Add(u8, u32),
    Remove(u8),
    Weigh(u8, u32),
    Limit(u8, Option<u64>),
    Observe(u8, Role, Option<Exclusion>),
    Choose(Strategy),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    let outcome = prop_oneof![
        4 => Just(Some(Outcome::Success)),
        3 => Just(Some(Outcome::Failure)),
        1 => Just(Some(Outcome::Neutral)),
        1 => Just(Some(Outcome::Overloaded { retry_after: None })),
        1 => Just(Some(Outcome::NotPrimary)),
        1 => Just(None),
    ];
    let node = 0_u8..6;
    let role = prop_oneof![
        1 => Just(Role::Primary),
        3 => Just(Role::Replica),
        1 => Just(Role::None),
    ];
    let excluded = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Exclusion::Lag)),
        1 => Just(Some(Exclusion::Fenced)),
    ];
    let strategy = prop_oneof![
        Just(Strategy::RoundRobin),
        Just(Strategy::Weighted),
        Just(Strategy::LeastLoaded),
        Just(Strategy::PeakEwma),
    ];
    prop_oneof![
        12 => Just(Step::Read),
        3 => Just(Step::Write),
        2 => Just(Step::Pinned),
        12 => (any::<usize>(), outcome).prop_map(|(at, outcome)| Step::End(at, outcome)),
        1 => (node.clone(), 1_u32..5).prop_map(|(node, weight)| Step::Add(node, weight)),
        1 => node.clone().prop_map(Step::Remove),
        1 => (node.clone(), 0_u32..5).prop_map(|(node, weight)| Step::Weigh(node, weight)),
        2 => (node.clone(), prop::option::of(1_u64..4)).prop_map(|(node, max)| Step::Limit(node, max)),
        2 => (node, role, excluded).prop_map(|(node, role, why)| Step::Observe(node, role, why)),
        1 => strategy.prop_map(Step::Choose),
    ]
}

/// What must be true of a node by its identity.
#[derive(Debug, Default, Clone, PartialEq)]
struct Counts {
    started: u64,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
}

/// The set, the picks held, and the model: nodes are numbered in the order they were added.
struct Run {
    db: Replicas<usize>,
    held: Vec<(usize, Pick<usize>)>,
    names: BTreeMap<String, usize>,
    counts: Vec<Counts>,
}

impl Run {
    fn new() -> Self {
        let members = [
            Member::primary("0", 0).max_in_flight(5),
            Member::replica("1", 1),
            Member::replica("2", 2),
        ];
        let db = Replicas::with_members(members).config(steady()).build().unwrap();
        let names = (0..3).map(|at| (at.to_string(), at)).collect();
        Self { db, held: Vec::new(), names, counts: vec![Counts::default(); 3] }
    }

    fn hold(&mut self, pick: Pick<usize>) {
        self.counts[*pick].started += 1;
        self.held.push((*pick, pick));
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Read => {
                if let Ok(pick) = self.db.read(&Session::new()) {
                    self.hold(pick);
                }
            }
            Step::Pinned => {
                if let Ok(pick) = self.db.read(&Session::pinned_to_primary()) {
                    assert_eq!(pick.role(), Role::Primary);
                    self.hold(pick);
                }
            }
            Step::Write => {
                if let Ok(pick) = self.db.write() {
                    assert_eq!(pick.role(), Role::Primary);
                    self.hold(pick);
                }
            }
            Step::End(at, outcome) => {
                if self.held.is_empty() {
                    return;
                }
                let (node, pick) = self.held.swap_remove(at % self.held.len());
                let counts = &mut self.counts[node];
                match outcome {
                    None => counts.cancelled += 1,
                    Some(Outcome::Failure | Outcome::NotPrimary) => counts.failed += 1,
                    Some(_) => counts.succeeded += 1,
                }
                if let Some(outcome) = outcome {
                    pick.end(outcome);
                }
            }
            Step::Add(name, weight) => {
                let identity = self.counts.len();
                let name = name.to_string();
                let member = Member::replica(name.clone(), identity).weight(weight);
                let added = self.db.change(|members| members.add(member)).is_ok();
                assert_eq!(added, !self.names.contains_key(&name));
                if added {
                    self.names.insert(name, identity);
                    self.counts.push(Counts::default());
                }
            }
            Step::Remove(name) => {
                let name = name.to_string();
                let removed = self.db.change(|members| members.remove(&name)).is_ok();
                assert_eq!(removed, self.names.contains_key(&name) && self.names.len() > 1);
                if removed {
                    self.names.remove(&name);
                }
            }
            Step::Weigh(name, weight) => {
                let name = name.to_string();
                let done = self.db.change(|members| members.set_weight(&name, weight)).is_ok();
                assert_eq!(done, weight > 0 && self.names.contains_key(&name));
            }
            Step::Limit(name, max) => {
                let name = name.to_string();
                let done = self.db.change(|members| members.set_max_in_flight(&name, max));
                assert_eq!(done.is_ok(), self.names.contains_key(&name));
            }
            Step::Observe(name, role, excluded) => {
                let mut observation = Observation::new(role);
                observation.excluded = excluded;
                let _ = self.db.observe(&name.to_string(), observation);
            }
            Step::Choose(strategy) => self.db.set_strategy(strategy),
        }
    }

    fn check(&self) {
        let stats = self.db.stats();
        assert_eq!(stats.nodes.len(), self.names.len());
        let primaries = stats.nodes.iter().filter(|node| node.role == Role::Primary);
        assert!(primaries.count() <= 1);
        let mut held = vec![0; self.counts.len()];
        for (node, _) in &self.held {
            held[*node] += 1;
        }
        let mut there = 0;
        for node in &stats.nodes {
            let identity = self.names[&node.name];
            let expected = &self.counts[identity];
            let counts = Counts {
                started: node.started_total,
                succeeded: node.succeeded_total,
                failed: node.failed_total,
                cancelled: node.cancelled_total,
            };
            assert_eq!(&counts, expected, "{node:?}");
            assert_eq!(node.in_flight, held[identity], "{node:?}");
            there += held[identity];
        }
        assert_eq!(stats.draining, self.held.len() as u64 - there);
    }
}

proptest! {
    #[test]
    fn the_books_balance_whatever_happens(steps in prop::collection::vec(step(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).build();
        let runtime = runtime.unwrap();
        let _entered = runtime.enter();
        let mut run = Run::new();
        for step in steps {
            run.run(step);
            run.check();
        }
        run.held.iter().for_each(|(node, _)| run.counts[*node].cancelled += 1);
        run.held.clear();
        run.check();
    }
}
