//! What the server deals in. Money is in cents and never a float.

use escala_replicas::Token;
use serde::{Deserialize, Serialize};

/// A price of a symbol: what `GET /api/trading/quotes/{symbol}` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// `S0001` and so on.
    pub symbol: String,
    /// What a seller gets, in cents.
    pub bid_cents: i64,
    /// What a buyer pays, in cents.
    pub ask_cents: i64,
    /// Pieces traded so far; every order raises it.
    pub volume: i64,
}

/// A value with the time it was read from the database: what is made of it elsewhere must not
/// outlive it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dated<T> {
    /// The value.
    pub value: T,
    /// When its read began, in milliseconds since 1970.
    pub read_ms: u64,
}

/// Answer of `GET /api/trading/quotes?symbols=..`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteList {
    /// In the order they were asked for.
    pub quotes: Vec<Quote>,
    /// What of the list is no symbol.
    pub unknown: Vec<String>,
}

/// A symbol and its price, without what changes with every order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// `S0001` and so on.
    pub symbol: String,
    /// What a seller gets, in cents.
    pub bid_cents: i64,
    /// What a buyer pays, in cents.
    pub ask_cents: i64,
}

/// A page of the catalogue: what `GET /api/trading/symbols` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// In alphabetical order.
    pub symbols: Vec<Listing>,
    /// Give it as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Body of `POST /api/trading/orders`: buy so many pieces at the asking price.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// Who buys.
    pub user: i64,
    /// What.
    pub symbol: String,
    /// How many, 1 to 1,000,000.
    pub quantity: i64,
}

/// An accepted order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Number of the order.
    pub id: i64,
    /// Who bought.
    pub user: i64,
    /// What.
    pub symbol: String,
    /// How many.
    pub quantity: i64,
    /// At which price, in cents.
    pub price_cents: i64,
    /// Quantity times price, taken from the user's cash.
    pub cost_cents: i64,
    /// Has the settlement job run?
    pub settled: bool,
}

/// Answer of `POST /api/trading/orders`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlacedOrder {
    /// The order.
    #[serde(flatten)]
    pub order: Order,
    /// The symbol's volume, this order included: a quote read from now on shows no less.
    pub volume: i64,
}

/// Answer of `GET /api/financial/balance/{user}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Whose.
    pub user: i64,
    /// How much, in cents.
    pub cash_cents: i64,
}

/// Body of `POST /api/financial/transfers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTransfer {
    /// Who pays.
    pub from: i64,
    /// Who gets it.
    pub to: i64,
    /// How much, in cents, at least 1.
    pub amount_cents: i64,
}

/// An executed transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Number of the transfer.
    pub id: i64,
    /// Who paid.
    pub from: i64,
    /// Who got it.
    pub to: i64,
    /// How much, in cents.
    pub amount_cents: i64,
}

/// What the people a user brought in, and those they brought in, have traded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffiliateReport {
    /// Whose report.
    pub user: i64,
    /// Users of both tiers.
    pub referred_users: i64,
    /// Their orders.
    pub orders: i64,
    /// What these cost together, in cents.
    pub volume_cents: i64,
    /// What the user earns: 10 in 10,000 of the first tier, 5 of the second.
    pub commission_cents: i64,
}

/// A value of a write, and whether it was done now or is the answer to a repeated key.
#[derive(Clone, Debug)]
pub struct Done<T> {
    /// The value.
    pub value: T,
    /// True if the `Idempotency-Key` was known: nothing was done this time.
    pub replayed: bool,
    /// What a node must have come to that shows it; `None` where every node shows it at once.
    pub token: Option<Token>,
}

impl<T> Done<T> {
    pub(super) fn now(value: T) -> Self {
        Self { value, replayed: false, token: None }
    }

    pub(super) fn replayed(value: T) -> Self {
        Self { value, replayed: true, token: None }
    }
}

/// An order just placed, with what it changed.
#[derive(Clone, Debug)]
pub struct Placement {
    /// What the client is told.
    pub placed: PlacedOrder,
    /// Whose affiliate reports it changed: the user's referrer and the referrer's.
    pub affiliates: [Option<i64>; 2],
}

/// The sums that must add up, read in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Cash of all users, in cents.
    pub cash_cents: i64,
    /// Cost of all orders, in cents.
    pub orders_cents: i64,
    /// Cash of all users when the database was seeded.
    pub seeded_cents: i64,
    /// How many orders there are.
    pub orders: i64,
    /// How many of them have no settlement.
    pub unsettled: i64,
    /// Settlement jobs that ran, all orders together: more than orders if a run was repeated after
    /// its answer was lost, which changes nothing.
    pub settlement_runs: i64,
    /// Transfers that are executed.
    pub transfers: i64,
    /// Of them without both ledger entries.
    pub unbooked: i64,
    /// Sum of all ledger entries; 0 in double-entry bookkeeping.
    pub ledger_cents: i64,
    /// Pieces of all orders less the volume of all symbols; 0 if every order is counted once.
    pub volume_gap: i64,
}

impl Audit {
    /// Everything that does not add up, a sentence each; empty if all does.
    #[must_use]
    pub fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut expect = |holds: bool, text: String| {
            if !holds {
                found.push(text);
            }
        };
        let now = self.cash_cents + self.orders_cents;
        expect(
            now == self.seeded_cents,
            format!("money: {now} cents in cash and orders, {} were seeded", self.seeded_cents),
        );
        expect(self.unsettled == 0, format!("{} orders without a settlement", self.unsettled));
        expect(self.unbooked == 0, format!("{} transfers without their entries", self.unbooked));
        expect(self.ledger_cents == 0, format!("the ledger is off by {} cents", self.ledger_cents));
        expect(
            self.volume_gap == 0,
            format!("orders and volumes differ by {} pieces", self.volume_gap),
        );
        found
    }
}
