//! What a user does next: a seeded choice from the documented areas.

use crate::enterprise::store::{self, SYMBOLS, USERS};

/// Symbols on a page of the catalogue, and how many such pages there are.
const PAGE: i64 = store::PAGE as i64;
const PAGES: i64 = SYMBOLS / PAGE;

/// One operation of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Cached read.
    Quote { symbol: i64 },
    /// Cached read of ten quotes, what is not cached by one query.
    Quotes { first: i64 },
    /// Cached page of the catalogue.
    Catalogue { after: i64 },
    /// Replica read.
    Balance,
    /// Transaction on the primary, then a job in the high lane.
    Order { symbol: i64, quantity: i64 },
    /// The last order once more with its key: must be answered, not repeated.
    RepeatOrder,
    /// Transaction on the primary, then a job in the medium lane.
    Transfer { to: i64, amount_cents: i64 },
    /// Heavy aggregate, cached.
    Report,
    /// A job in the background lane.
    Rebuild,
}

/// Names of the endpoints in the report, by [`Operation::endpoint`].
pub(super) const ENDPOINTS: [&str; 8] = [
    "GET trading/quotes/{}",
    "GET financial/balance",
    "POST trading/orders",
    "POST financial/transfers",
    "GET affiliate/report",
    "POST affiliate/report",
    "GET trading/quotes?",
    "GET trading/symbols",
];
/// Symbols of one list of quotes.
pub(super) const LIST: i64 = 10;

impl Operation {
    /// Index into [`ENDPOINTS`].
    pub(super) fn endpoint(&self) -> u8 {
        match self {
            Self::Quote { .. } => 0,
            Self::Balance => 1,
            Self::Order { .. } | Self::RepeatOrder => 2,
            Self::Transfer { .. } => 3,
            Self::Report => 4,
            Self::Rebuild => 5,
            Self::Quotes { .. } => 6,
            Self::Catalogue { .. } => 7,
        }
    }

    /// Whether it is a read, which a server without caches would ask its database for.
    pub(super) fn reads(endpoint: u8) -> bool {
        ENDPOINTS[usize::from(endpoint)].starts_with("GET ")
    }

    /// The realistic mix: 70 % cached reads (four in seventy of them lists and pages), 15 % replica reads, 10 % orders (one in twenty is a
    /// repeat), 5 % transfers and reports.
    pub(super) fn choose(chance: &mut fastrand::Rng, user: i64) -> Self {
        match chance.u32(0..1_000) {
            0..660 => Self::Quote { symbol: symbol(chance) },
            660..680 => Self::Quotes { first: symbol(chance).min(SYMBOLS + 1 - LIST) },
            680..700 => Self::Catalogue { after: chance.i64(0..PAGES) * PAGE },
            700..850 => Self::Balance,
            850..945 => Self::Order { symbol: symbol(chance), quantity: chance.i64(1..=9) },
            945..950 => Self::RepeatOrder,
            950..970 => Self::transfer(chance, user),
            970..995 => Self::Report,
            _ => Self::Rebuild,
        }
    }

    /// One operation each, in the shares of the mix.
    pub(super) fn of_burst(index: usize, chance: &mut fastrand::Rng, user: i64) -> Self {
        match index % 20 {
            0..14 => Self::Quote { symbol: symbol(chance) },
            14..17 => Self::Balance,
            17..19 => Self::Order { symbol: symbol(chance), quantity: chance.i64(1..=9) },
            _ if index % 40 == 19 => Self::transfer(chance, user),
            _ => Self::Report,
        }
    }

    fn transfer(chance: &mut fastrand::Rng, user: i64) -> Self {
        let other = chance.i64(1..USERS);
        let to = if other >= user { other + 1 } else { other };
        Self::Transfer { to, amount_cents: chance.i64(1..=500) }
    }
}

/// Some symbols are asked for far more often than others: the square of an even draw puts a third
/// of all questions on a tenth of the symbols.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "below 1,000")]
fn symbol(chance: &mut fastrand::Rng) -> i64 {
    let draw = chance.f64();
    ((draw * draw * SYMBOLS as f64) as i64).min(SYMBOLS - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(operations: impl Iterator<Item = Operation>) -> [usize; 8] {
        let mut counts = [0; 8];
        operations.for_each(|operation| counts[usize::from(operation.endpoint())] += 1);
        counts
    }

    #[test]
    fn the_mix_has_the_promised_shares() {
        let mut chance = fastrand::Rng::with_seed(7);
        let [quotes, balances, orders, transfers, reports, rebuilds, lists, pages] =
            shares((0..100_000).map(|_| Operation::choose(&mut chance, 1)));
        assert!((69_000..71_000).contains(&(quotes + lists + pages)), "{quotes}");
        assert!((3_700..4_300).contains(&(lists + pages)), "{lists} {pages}");
        assert!((14_500..15_500).contains(&balances), "{balances}");
        assert!((9_600..10_400).contains(&orders), "{orders}");
        assert!((4_700..5_300).contains(&(transfers + reports + rebuilds)));
    }

    #[test]
    fn the_burst_has_the_promised_shares() {
        let mut chance = fastrand::Rng::with_seed(7);
        let counts = shares((0..1_100).map(|i| Operation::of_burst(i, &mut chance, 1)));
        assert_eq!(counts, [770, 165, 110, 28, 27, 0, 0, 0]);
    }

    #[test]
    fn the_same_seed_asks_the_same_and_nobody_pays_themselves() {
        let run = || {
            let mut chance = fastrand::Rng::with_seed(3);
            (0..5_000).map(|_| Operation::choose(&mut chance, 500)).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
        for operation in run() {
            match operation {
                Operation::Transfer { to, .. } => assert!(to != 500 && (1..=USERS).contains(&to)),
                Operation::Quote { symbol } | Operation::Order { symbol, .. } => {
                    assert!((1..=SYMBOLS).contains(&symbol));
                }
                Operation::Quotes { first } => assert!((1..=SYMBOLS + 1 - LIST).contains(&first)),
                Operation::Catalogue { after } => assert!((0..SYMBOLS).contains(&after)),
                _ => {}
            }
        }
    }
}
