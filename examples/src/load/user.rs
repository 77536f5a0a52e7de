//! One user: asks, and checks the content of every answer, not only its status.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::{Answer, Client};
use super::plan::{LIST, Operation};
use crate::enterprise::domain::{
    AffiliateReport, Balance, Catalogue, NewOrder, NewTransfer, Order, PlacedOrder, Quote,
    QuoteList, Transfer,
};
use crate::enterprise::store::{PAGE, SYMBOLS, bid_and_ask, referred_users, symbol_name};

/// How often, at most, a replica is asked for what it has not got yet, and the pauses between.
const REPLAY_POLLS: usize = 100;
const REPLAY_POLL: Duration = Duration::from_millis(20);

/// A user with a connection and a memory of what was acknowledged.
pub(super) struct User {
    id: i64,
    client: Client,
    pub(super) chance: fastrand::Rng,
    /// Of this run: a database that outlives it knows the keys of earlier ones.
    run: u64,
    requests: u64,
    /// The volume each symbol had after this user's last order of it: no later quote may show less.
    volumes: HashMap<i64, i64>,
    last: Option<(String, NewOrder, i64)>,
    /// Numbers of all acknowledged orders.
    pub(super) orders: Vec<i64>,
    /// Transfers that were acknowledged.
    pub(super) transfers: u64,
    /// Operations that failed: they may have been done all the same.
    failed: u64,
    /// Where the last answer came from, if the server said so.
    cached: Option<bool>,
}

impl User {
    pub(super) fn new(id: i64, client: Client, seed: u64, run: u64) -> Self {
        // Neighbouring seeds begin alike; the odd constant spreads them.
        let seed = (seed ^ id.unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            id,
            client,
            chance: fastrand::Rng::with_seed(seed),
            run,
            requests: 0,
            volumes: HashMap::new(),
            last: None,
            orders: Vec::new(),
            transfers: 0,
            failed: 0,
            cached: None,
        }
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// Did every operation so far succeed?
    pub(super) fn is_certain(&self) -> bool {
        self.failed == 0
    }

    /// Did the server's HTTP cache have the last answer? `None` if nothing was said of one.
    pub(super) fn was_cached(&self) -> Option<bool> {
        self.cached
    }

    /// Opens a new connection in place of one that failed.
    pub(super) async fn reconnect(&mut self) -> anyhow::Result<()> {
        self.client.reconnect().await
    }

    /// Does one operation and checks its answer.
    pub(super) async fn perform(&mut self, operation: &Operation) -> anyhow::Result<()> {
        // Counted down again only on success, so that a cancelled operation stays counted.
        self.failed += 1;
        self.cached = None;
        self.attempt(operation).await?;
        self.failed -= 1;
        Ok(())
    }

    async fn attempt(&mut self, operation: &Operation) -> anyhow::Result<()> {
        match *operation {
            Operation::Quote { symbol } => self.quote(symbol).await,
            Operation::Quotes { first } => self.quotes(first).await,
            Operation::Catalogue { after } => self.catalogue(after).await,
            Operation::Balance => self.balance().await,
            Operation::Order { symbol, quantity } => self.order(symbol, quantity).await,
            Operation::RepeatOrder => match self.last.take() {
                Some(last) => self.repeat(last).await,
                None => self.order(1, 1).await,
            },
            Operation::Transfer { to, amount_cents } => self.transfer(to, amount_cents).await,
            Operation::Report => self.report().await,
            Operation::Rebuild => self.rebuild().await,
        }
    }

    async fn quote(&mut self, symbol: i64) -> anyhow::Result<()> {
        let name = symbol_name(symbol);
        let answer = self.client.get(&format!("/api/trading/quotes/{name}")).await?;
        self.cached = answer.header("cache-status").map(is_hit);
        let quote: Quote = content(&answer, StatusCode::OK)?;
        self.checks(symbol, &quote)
    }

    fn checks(&self, symbol: i64, quote: &Quote) -> anyhow::Result<()> {
        let name = symbol_name(symbol);
        ensure!(quote.symbol == name, "asked for {name}, got {}", quote.symbol);
        let prices = (quote.bid_cents, quote.ask_cents);
        ensure!(prices == bid_and_ask(symbol), "price: {quote:?}");
        let least = self.volumes.get(&symbol).copied().unwrap_or(0);
        ensure!(quote.volume >= least, "stale: volume {} after {least}", quote.volume);
        Ok(())
    }

    async fn quotes(&mut self, first: i64) -> anyhow::Result<()> {
        let names: Vec<String> = (first..first + LIST).map(symbol_name).collect();
        let path = format!("/api/trading/quotes?symbols={}", names.join(","));
        let answer = self.client.get(&path).await?;
        let list: QuoteList = content(&answer, StatusCode::OK)?;
        ensure!(list.quotes.len() == names.len() && list.unknown.is_empty(), "list: {list:?}");
        (first..).zip(&list.quotes).try_for_each(|(symbol, quote)| self.checks(symbol, quote))
    }

    async fn catalogue(&mut self, after: i64) -> anyhow::Result<()> {
        let path = match after {
            0 => "/api/trading/symbols".to_owned(),
            after => format!("/api/trading/symbols?after={}", symbol_name(after)),
        };
        let answer = self.client.get(&path).await?;
        self.cached = answer.header("cache-status").map(is_hit);
        let page: Catalogue = content(&answer, StatusCode::OK)?;
        let right = (after + 1..).zip(&page.symbols).all(|(n, listing)| {
            listing.symbol == symbol_name(n)
                && (listing.bid_cents, listing.ask_cents) == bid_and_ask(n)
        });
        ensure!(right && page.symbols.len() == PAGE, "catalogue after {after}: {page:?}");
        let last = after + i64::try_from(PAGE)?;
        ensure!(page.next == (last < SYMBOLS).then(|| symbol_name(last)), "next: {:?}", page.next);
        Ok(())
    }

    async fn balance(&mut self) -> anyhow::Result<()> {
        let answer = self.client.get(&format!("/api/financial/balance/{}", self.id)).await?;
        let balance: Balance = content(&answer, StatusCode::OK)?;
        ensure!(balance.user == self.id && balance.cash_cents >= 0, "balance: {balance:?}");
        Ok(())
    }

    async fn order(&mut self, symbol: i64, quantity: i64) -> anyhow::Result<()> {
        let order = NewOrder { user: self.id, symbol: symbol_name(symbol), quantity };
        let key = self.key();
        let answer = self.client.post("/api/trading/orders", Some(&key), &json(&order)?).await?;
        let placed: PlacedOrder = content(&answer, StatusCode::CREATED)?;
        let PlacedOrder { order: placed, volume } = placed;
        let (_, price_cents) = bid_and_ask(symbol);
        ensure!(
            (placed.user, &placed.symbol, placed.quantity) == (order.user, &order.symbol, quantity)
                && (placed.price_cents, placed.cost_cents) == (price_cents, price_cents * quantity),
            "order: {placed:?}"
        );
        let location = answer.header("location").context("no Location")?;
        ensure!(location == format!("/api/trading/orders/{}", placed.id), "Location");
        self.volumes.insert(symbol, volume);
        self.orders.push(placed.id);
        self.last = Some((key, order, placed.id));
        Ok(())
    }

    async fn repeat(&mut self, (key, order, id): (String, NewOrder, i64)) -> anyhow::Result<()> {
        let answer = self.client.post("/api/trading/orders", Some(&key), &json(&order)?).await?;
        let placed: PlacedOrder = content(&answer, StatusCode::OK)?;
        ensure!(placed.order.id == id, "order {id} repeated became {}", placed.order.id);
        ensure!(answer.header("idempotent-replayed").is_some(), "not marked as replayed");
        Ok(())
    }

    async fn transfer(&mut self, to: i64, amount_cents: i64) -> anyhow::Result<()> {
        let asked = NewTransfer { from: self.id, to, amount_cents };
        let key = self.key();
        let answer =
            self.client.post("/api/financial/transfers", Some(&key), &json(&asked)?).await?;
        let done: Transfer = content(&answer, StatusCode::CREATED)?;
        ensure!(
            (done.from, done.to, done.amount_cents) == (self.id, to, amount_cents) && done.id > 0,
            "transfer: {done:?}"
        );
        self.transfers += 1;
        Ok(())
    }

    async fn report(&mut self) -> anyhow::Result<()> {
        let answer = self.client.get(&format!("/api/affiliate/{}/report", self.id)).await?;
        let report: AffiliateReport = content(&answer, StatusCode::OK)?;
        ensure!(
            report.user == self.id
                && report.referred_users == referred_users(self.id)
                && report.commission_cents <= report.volume_cents,
            "report: {report:?}"
        );
        Ok(())
    }

    async fn rebuild(&mut self) -> anyhow::Result<()> {
        let path = format!("/api/affiliate/{}/report", self.id);
        let answer = self.client.post(&path, None, "").await?;
        let accepted: serde_json::Value = content(&answer, StatusCode::ACCEPTED)?;
        ensure!(accepted["user"] == self.id, "rebuild: {accepted}");
        Ok(())
    }

    /// How many of the acknowledged orders are not there, or not settled.
    pub(super) async fn missing_orders(&mut self) -> anyhow::Result<usize> {
        let mut missing = 0;
        for id in std::mem::take(&mut self.orders) {
            missing += usize::from(!self.order_is_settled(id).await?);
        }
        Ok(missing)
    }

    /// A replica may show the settlement, which was not this user's doing, a moment later.
    async fn order_is_settled(&mut self, id: i64) -> anyhow::Result<bool> {
        for _ in 0..REPLAY_POLLS {
            if self.order_shows_settled(id).await? {
                return Ok(true);
            }
            tokio::time::sleep(REPLAY_POLL).await;
        }
        Ok(false)
    }

    async fn order_shows_settled(&mut self, id: i64) -> anyhow::Result<bool> {
        let answer = self.client.get(&format!("/api/trading/orders/{id}")).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let order: Order = content(&answer, StatusCode::OK)?;
        Ok(order.id == id && order.user == self.id && order.settled)
    }

    /// A key that no other request has.
    fn key(&mut self) -> String {
        self.requests += 1;
        format!("{:x}-{}-{}", self.run, self.id, self.requests)
    }
}

/// Whether a `Cache-Status` (RFC 9211) says that a stored answer was sent without asking further.
fn is_hit(status: &str) -> bool {
    let nearest = status.rsplit(',').next().unwrap_or_default();
    nearest.split(';').any(|parameter| parameter.trim() == "hit")
}

fn json<T: Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)?)
}

fn content<T: DeserializeOwned>(answer: &Answer, expected: StatusCode) -> anyhow::Result<T> {
    let Answer { status, body, .. } = answer;
    ensure!(*status == expected, "{status}: {}", String::from_utf8_lossy(body));
    serde_json::from_slice(body)
        .with_context(|| format!("not as documented: {}", String::from_utf8_lossy(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_cache_says_whether_it_had_it() {
        assert!(is_hit("pages;hit;ttl=599"));
        assert!(is_hit("far;fwd=miss, pages; hit"));
        assert!(!is_hit("pages;fwd=uri-miss;stored"));
        assert!(!is_hit("far;hit, pages;fwd=stale"));
    }
}
