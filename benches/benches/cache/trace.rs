//! Seeded sequences of keys: the same on every machine and in every run.

use fastrand::Rng;

/// Draws numbers so that the n-th most frequent comes up in proportion to n to the minus `skew`.
pub(crate) struct Zipf {
    /// The share of all draws that falls on a number or a lower one.
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(numbers: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative = Vec::with_capacity(numbers);
        for rank in 1..=numbers {
            sum += (rank as f64).powf(-skew);
            cumulative.push(sum);
        }
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Self { cumulative }
    }

    pub(crate) fn draw(&self, chance: &mut Rng) -> u64 {
        let share = chance.f64();
        let rank = self.cumulative.partition_point(|below| *below < share);
        rank.min(self.cumulative.len().saturating_sub(1)) as u64
    }
}

/// A trace: what it is called and the keys in their order.
pub(crate) struct Trace {
    pub(crate) name: &'static str,
    pub(crate) keys: Vec<u64>,
}

/// The traces of the hit ratio table, for a cache of `capacity` entries and `numbers` keys.
pub(crate) fn all(capacity: usize, numbers: usize, length: usize) -> Vec<Trace> {
    let (flat, steep) = (Zipf::new(numbers, 0.8), Zipf::new(numbers, 1.0));
    let mut chance = Rng::with_seed(1);
    let mut draw = |zipf: &Zipf| zipf.draw(&mut chance);
    let wide = numbers as u64;
    let mut traces = Vec::new();
    let mut add = |name, keys: Vec<u64>| traces.push(Trace { name, keys });
    add("Zipf 0.8", (0..length).map(|_| draw(&flat)).collect());
    add("Zipf 1.0", (0..length).map(|_| draw(&steep)).collect());
    // Every fourth key comes once and never again.
    let once = |at: usize| wide + at as u64;
    let wonders = |at: usize| if at % 4 == 3 { once(at) } else { draw(&steep) };
    add("Zipf 1.0 + 25 % one-hit wonders", (0..length).map(wonders).collect());
    // A scan over twice the capacity after each ten times the capacity of ordinary reads.
    let (ordinary, scan) = (10 * capacity, 2 * capacity);
    let scans = |at: usize| {
        let place = at % (ordinary + scan);
        if place < ordinary { draw(&steep) } else { once(place) }
    };
    add("Zipf 1.0 + scans", (0..length).map(scans).collect());
    let round = capacity + capacity / 2;
    add("loop over 1.5 x capacity", (0..length).map(|at| (at % round) as u64).collect());
    // Ten times in the trace, other keys become the hot ones.
    let shifting = |at: usize| (draw(&steep) + (at / (length / 10)) as u64 * 7_919) % wide;
    add("hot set shifts ten times", (0..length).map(shifting).collect());
    traces
}
