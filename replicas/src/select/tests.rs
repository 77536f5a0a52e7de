//! Turns are exact in every window; the least loaded node is found, and ties go by weight.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use proptest::prelude::*;

use super::*;

fn picks(turns: &Turns, from: u64, count: u64) -> BTreeMap<usize, u64> {
    let mut picks = BTreeMap::new();
    for turn in from..from + count {
        *picks.entry(turns.at(turn).unwrap()).or_default() += 1;
    }
    picks
}

#[test]
fn the_documented_weights_take_turns_smoothly() {
    let turns = Turns::new(&[(0, 3), (1, 3), (2, 2)]);
    let order: Vec<usize> = (0..8).map(|turn| turns.at(turn).unwrap()).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1]);
    assert_eq!(turns.at(8), Some(0), "and again from the start");
}

#[test]
fn nobody_takes_turns_in_an_empty_table() {
    assert_eq!(Turns::new(&[]).at(7), None);
    assert_eq!(least_loaded(NodeSet::default(), |_| unreachable!(), &Turns::new(&[]), 0), None);
}

#[test]
fn a_common_divisor_does_not_lengthen_the_table() {
    assert_eq!(Turns::new(&[(0, 900), (1, 600)]), Turns::new(&[(0, 3), (1, 2)]));
}

proptest! {
    #[test]
    fn every_window_of_one_period_is_exact(
        weights in prop::collection::vec(1_u32..40, 1..12),
        start in 0_u64..1_000,
    ) {
        let nodes: Vec<(usize, u32)> = weights.iter().copied().enumerate().collect();
        let turns = Turns::new(&nodes);
        let divisor = weights.iter().copied().fold(0, gcd);
        let period: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
        let expected: BTreeMap<usize, u64> =
            nodes.iter().map(|&(node, weight)| (node, u64::from(weight / divisor))).collect();
        prop_assert_eq!(picks(&turns, start, period), expected);
    }

    /// Smooth: in any stretch a node is within one round of its share, never served in a lump.
    #[test]
    fn no_stretch_strays_far_from_the_shares(
        weights in prop::collection::vec(1_u32..10, 2..6),
        start in 0_u64..100,
        length in 1_u64..60,
    ) {
        let nodes: Vec<(usize, u32)> = weights.iter().copied().enumerate().collect();
        let picks = picks(&Turns::new(&nodes), start, length);
        let total: u32 = weights.iter().sum();
        for (node, weight) in nodes {
            let share = length as f64 * f64::from(weight) / f64::from(total);
            let got = picks.get(&node).copied().unwrap_or(0) as f64;
            prop_assert!((got - share).abs() < weights.len() as f64, "{node}: {got} of {share}");
        }
    }

    #[test]
    fn sets_hold_what_was_put_in(
        members in prop::collection::btree_set(0_usize..MAX_NODES, 0..MAX_NODES),
        gone in prop::collection::btree_set(0_usize..MAX_NODES, 0..MAX_NODES),
    ) {
        let set: NodeSet = members.iter().copied().collect();
        prop_assert_eq!(set.len(), members.len());
        prop_assert_eq!(set.is_empty(), members.is_empty());
        prop_assert!(set.iter().eq(members.iter().copied()));
        let left = set.without(gone.iter().copied().collect());
        prop_assert!(left.iter().eq(members.difference(&gone).copied()));
    }

    /// Whatever the ties, the choice is never one request worse than the best there is.
    #[test]
    fn the_choice_is_as_good_as_the_best(
        nodes in prop::collection::vec((0_u64..50, 1_u32..20), 1..10),
        turn in any::<u64>(),
    ) {
        let load = |node: usize| Load { in_flight: nodes[node].0, weight: nodes[node].1 };
        let weights: Vec<(usize, u32)> =
            nodes.iter().enumerate().map(|(node, &(_, weight))| (node, weight)).collect();
        let all = (0..nodes.len()).collect();
        let chosen = least_loaded(all, load, &Turns::new(&weights), turn).unwrap();
        let ratio = |load: Load| load.in_flight as f64 / f64::from(load.weight);
        let best = (0..nodes.len())
            .map(|node| ratio(with_one_more(load(node))))
            .fold(f64::INFINITY, f64::min);
        let is_best = ratio(with_one_more(load(chosen))) <= best;
        prop_assert!(is_best || ratio(load(chosen)) < best);
    }
}

#[test]
fn a_draw_is_by_weight_and_any_of_takes_all_alike() {
    let nodes: NodeSet = [1, 4, 7].into_iter().collect();
    let weight = |node: usize| if node == 4 { 3 } else { 1 };
    let mut drawn = BTreeMap::<usize, u32>::new();
    let mut taken = BTreeMap::<usize, u32>::new();
    for step in 0..1_000_u32 {
        let chance = f64::from(step) / 1_000.0;
        *drawn.entry(draw(nodes, weight, chance).unwrap()).or_default() += 1;
        *taken.entry(any_of(nodes, step * (u32::MAX / 1_000)).unwrap()).or_default() += 1;
    }
    assert_eq!(drawn, [(1, 200), (4, 600), (7, 200)].into());
    assert!(taken.len() == 3 && taken.values().all(|&count| count.abs_diff(333) < 5), "{taken:?}");
    assert_eq!(draw(nodes, weight, 1.0), Some(7));
    assert_eq!(any_of(nodes, u32::MAX), Some(7));
    assert_eq!(
        (draw(NodeSet::default(), weight, 0.5), any_of(NodeSet::default(), 1)),
        (None, None)
    );
}

#[test]
fn an_idle_node_goes_before_a_busy_one_of_its_weight() {
    let turns = Turns::new(&[(0, 1), (1, 1), (2, 1)]);
    let in_flight = [1, 0, 1];
    for turn in 0..6 {
        let load = |node: usize| Load { in_flight: in_flight[node], weight: 1 };
        assert_eq!(least_loaded((0..3).collect(), load, &turns, turn), Some(1));
    }
}

#[test]
fn only_candidates_are_chosen() {
    let turns = Turns::new(&[(0, 3), (1, 3), (2, 2)]);
    let load = |_| Load { in_flight: 0, weight: 1 };
    let chosen = |turn| least_loaded([1].into_iter().collect(), load, &turns, turn);
    assert!((0..8).all(|turn| chosen(turn) == Some(1)));
    // Also when none of them takes turns.
    assert_eq!(least_loaded([5, 9].into_iter().collect(), load, &turns, 0), Some(5));
}

/// Serves `requests`, `at_once` at any time, on nodes of the given weights and mean service times;
/// returns each node's share. A simulation with its own clock.
fn shares(weights: &[u32], means: &[f64], at_once: usize, requests: usize) -> Vec<f64> {
    struct End(f64, usize);
    impl PartialEq for End {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other) == Ordering::Equal
        }
    }
    impl Eq for End {}
    impl PartialOrd for End {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for End {
        // The earliest end is the greatest, which a heap pops first.
        fn cmp(&self, other: &Self) -> Ordering {
            other.0.total_cmp(&self.0)
        }
    }

    let mut random = fastrand::Rng::with_seed(7);
    let nodes: Vec<(usize, u32)> = weights.iter().copied().enumerate().collect();
    let turns = Turns::new(&nodes);
    let mut in_flight = vec![0_u64; weights.len()];
    let mut served = vec![0_usize; weights.len()];
    let mut ends = BinaryHeap::new();
    let mut now = 0.0;
    for request in 0..requests {
        if ends.len() == at_once {
            let End(time, node) = ends.pop().unwrap();
            now = time;
            in_flight[node] -= 1;
        }
        let load = |node: usize| Load { in_flight: in_flight[node], weight: weights[node] };
        let turn = request as u64;
        let node = least_loaded((0..weights.len()).collect(), load, &turns, turn).unwrap();
        in_flight[node] += 1;
        served[node] += 1;
        ends.push(End(now - means[node] * (1.0 - random.f64()).ln(), node));
    }
    served.iter().map(|&served| served as f64 / requests as f64).collect()
}

#[test]
fn equal_nodes_are_used_by_weight_under_any_load() {
    for at_once in [1, 2, 3, 4, 6, 8, 16, 64, 200] {
        let shares = shares(&[3, 3, 2], &[1.0; 3], at_once, 40_000);
        for (share, weight) in shares.iter().zip([3.0, 3.0, 2.0]) {
            assert!((share - weight / 8.0).abs() < 0.06, "{at_once} at once: {shares:?}");
        }
    }
}

#[test]
fn a_slow_node_gets_what_it_can_do() {
    let shares = shares(&[3, 3, 2], &[10.0, 1.0, 1.0], 32, 40_000);
    // By turns it would get 0.375; in proportion to its speed 0.3 / 5.3.
    assert!(shares[0] < 0.10, "{shares:?}");
}
