//! Choosing among nodes, as pure functions: the order of turns, and the least loaded.

/// At most this many nodes in a set, the primary included, so that a [`NodeSet`] is one word.
pub(crate) const MAX_NODES: usize = 64;

/// Some of the nodes of one set, by index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodeSet(u64);

impl NodeSet {
    pub(crate) fn contains(self, node: usize) -> bool {
        self.0 & (1 << node) != 0
    }

    pub(crate) fn insert(&mut self, node: usize) {
        self.0 |= 1 << node;
    }

    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) fn union(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(crate) fn intersection(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let node = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(node)
        })
    }
}

impl FromIterator<usize> for NodeSet {
    fn from_iter<I: IntoIterator<Item = usize>>(nodes: I) -> Self {
        let mut set = Self::default();
        for node in nodes {
            set.insert(node);
        }
        set
    }
}

/// The order in which nodes take turns: a table that is read round and round.
///
/// The order is nginx's smooth weighted round robin (`A B C A B C A B` for weights 3, 3, 2). It
/// repeats after the sum of the weights divided by their greatest common divisor, and a stretch of
/// one period of a periodic sequence holds the same turns wherever it starts. That is why every
/// window is exact, and why the table is built anew for each set of eligible nodes rather than
/// skipped through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turns(Box<[u8]>);

impl Turns {
    /// For nodes given as (index below [`MAX_NODES`], weight above zero).
    pub(crate) fn new(nodes: &[(usize, u32)]) -> Self {
        let divisor = nodes.iter().fold(0, |divisor, &(_, weight)| gcd(divisor, weight)).max(1);
        let weights = nodes.iter().map(|&(_, weight)| i64::from(weight / divisor));
        let mut standings: Vec<(i64, i64)> = weights.map(|weight| (weight, 0)).collect();
        let period: i64 = standings.iter().map(|&(weight, _)| weight).sum();
        let order = (0..period).filter_map(|_| {
            let mut leader: Option<(usize, i64)> = None;
            for (position, (weight, standing)) in standings.iter_mut().enumerate() {
                *standing += *weight;
                if leader.is_none_or(|(_, best)| *standing > best) {
                    leader = Some((position, *standing));
                }
            }
            let (position, _) = leader?;
            standings[position].1 -= period;
            u8::try_from(nodes[position].0).ok()
        });
        Self(order.collect())
    }

    /// Whose turn it is, unless nobody takes turns.
    #[inline]
    pub(crate) fn at(&self, turn: u64) -> Option<usize> {
        let period = u64::try_from(self.0.len()).ok()?;
        let slot = usize::try_from(turn.checked_rem(period)?).ok()?;
        self.0.get(slot).map(|&node| usize::from(node))
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What a node has to do and what it can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) in_flight: u64,
    pub(crate) weight: u32,
}

/// The candidate with the least `(in_flight + 1) / weight`.
///
/// Candidates that are at present less loaded than that node would be with the request are tied
/// with it, and the next of them in turn is taken. Without this, nodes of a small weight would
/// get nothing while the set is nearly idle: 1/2 never beats 1/3.
pub(crate) fn least_loaded(
    candidates: NodeSet,
    load: impl Fn(usize) -> Load,
    turns: &Turns,
    turn: u64,
) -> Option<usize> {
    // The usual case first: a node that is idle is tied with any, so that the others do not matter.
    let next = turns.at(turn).filter(|&node| candidates.contains(node));
    if let Some(idle) = next.filter(|&node| load(node).in_flight == 0) {
        return Some(idle);
    }
    let mut nodes = candidates.iter();
    let mut least = nodes.next()?;
    let mut limit = with_one_more(load(least));
    for node in nodes {
        let after = with_one_more(load(node));
        if less(after, limit) {
            (least, limit) = (node, after);
        }
    }
    // A light node may wait for its turn behind many of a heavy one, so the look ahead is bounded.
    let ahead = 2 * u64::try_from(candidates.len()).unwrap_or(0);
    let tied = (0..ahead)
        .filter_map(|step| turns.at(turn.wrapping_add(step)))
        .find(|&node| candidates.contains(node) && less(load(node), limit));
    Some(tied.unwrap_or(least))
}

/// One of the nodes, by weight; `chance` is uniform in 0..1.
///
/// For turns of which some nodes cannot make use: the next in the table would be the same node again
/// and again.
pub(crate) fn draw(nodes: NodeSet, weight: impl Fn(usize) -> u32, chance: f64) -> Option<usize> {
    let total: u64 = nodes.iter().map(|node| u64::from(weight(node))).sum();
    let mut left = (chance * total as f64) as u64;
    let drawn = nodes.iter().find(|&node| {
        let weight = u64::from(weight(node));
        let hit = left < weight;
        left = left.saturating_sub(weight);
        hit
    });
    // The last for a chance that was rounded up to one.
    drawn.or_else(|| nodes.iter().last())
}

/// One of the nodes, all alike, by random bits.
pub(crate) fn any_of(nodes: NodeSet, random: u32) -> Option<usize> {
    // A fraction of 2^32, multiplied rather than divided.
    let position = (u64::from(random) * nodes.len() as u64) >> 32;
    nodes.iter().nth(position as usize)
}

fn with_one_more(load: Load) -> Load {
    Load { in_flight: load.in_flight.saturating_add(1), ..load }
}

/// Whether `a` is less loaded than `b`, by cross multiplication: exact, and no division.
fn less(a: Load, b: Load) -> bool {
    a.in_flight.saturating_mul(u64::from(b.weight))
        < b.in_flight.saturating_mul(u64::from(a.weight))
}

#[cfg(test)]
mod tests;
