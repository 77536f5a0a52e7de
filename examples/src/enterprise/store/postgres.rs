//! The verbs on PostgreSQL.

use std::future::Future;

use escala_pool::postgres::{Row, TransactionOptions};
use escala_pool::{PgTransaction, PoolError};
use escala_replicas::session::postgres as position;

use super::server::{self, Server, order_of};
use super::{Keyed, Result, StoreError, schema};
use crate::enterprise::domain::{
    AffiliateReport, Audit, Balance, Done, Listing, NewOrder, NewTransfer, Order, PlacedOrder,
    Placement, Quote, Transfer,
};

/// The request whose key is already there: the index refused the second row.
const UNIQUE_VIOLATION: &str = "23505";
const ATTEMPTS: u32 = 5;

pub(super) async fn is_seeded(server: &Server) -> Result<bool> {
    // One transaction makes the tables and fills them, so the table stands for its contents.
    let sql = "select to_regclass('meta') is not null
                  and exists (select from pg_trigger where tgname = 'tell_of_price')";
    if !server.pool.query_one(sql, &[]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    let version = server.pool.query_one(VERSION, &[]).await?;
    is_current(version.get(0))?;
    Ok(true)
}

const VERSION: &str = "select value from meta where key = 'version'";

fn is_current(version: String) -> Result<()> {
    match version == schema::VERSION {
        true => Ok(()),
        false => Err(StoreError::absent("migration from seed version", version)),
    }
}

pub(super) async fn seed(server: &Server) -> Result<()> {
    let mut tx = server.pool.begin().await?;
    // Two servers that start at once must not both seed.
    tx.execute("select pg_advisory_xact_lock(20261122)", &[]).await?;
    tx.batch_execute(&schema::tables(
        "bigint primary key",
        "bigint generated always as identity primary key",
    ))
    .await?;
    tx.batch_execute(schema::TELL_OF_PRICES).await?;
    match tx.query_opt(VERSION, &[]).await? {
        Some(row) => is_current(row.get(0))?,
        None => {
            tx.batch_execute(&format!(
                "insert into symbols (symbol, price_cents)
                     select 'S' || lpad(n::text, 4, '0'), {price}
                     from generate_series(1, {symbols}) n;
                 insert into users (id, referrer_id, cash_cents)
                     select n, {referrer}, {cash} from generate_series(1, {users}) n;
                 insert into meta values ('seeded_cents', '{total}'), ('version', '{version}')",
                symbols = schema::SYMBOLS,
                price = schema::PRICE_OF_N,
                users = schema::USERS,
                referrer = schema::REFERRER_OF_N,
                cash = schema::USER_CASH_CENTS,
                total = schema::USERS * schema::USER_CASH_CENTS,
                version = schema::VERSION,
            ))
            .await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

pub(super) async fn ping(server: &Server) -> Result<()> {
    server.ping().await
}

pub(super) async fn quote(server: &Server, symbol: &str) -> Result<Quote> {
    let quote = server.quotes.get(symbol.to_owned()).await?;
    quote.ok_or_else(|| StoreError::absent("symbol", symbol))
}

pub(super) async fn quotes(server: &Server, symbols: &[String]) -> Result<Vec<Quote>> {
    let quotes = server::quotes(server.pool.clone(), symbols.to_vec()).await?;
    Ok(quotes.into_iter().map(|(_, quote)| quote).collect())
}

pub(super) async fn listings(server: &Server, after: &str) -> Result<Vec<Listing>> {
    let rows = server.pool.query(&schema::listings("$1"), &[&after]).await?;
    let listing_of = |row: &Row| {
        let (bid_cents, ask_cents) = schema::spread(row.get(1));
        Listing { symbol: row.get(0), bid_cents, ask_cents }
    };
    Ok(rows.iter().map(listing_of).collect())
}

pub(super) async fn order(server: &Server, id: i64) -> Result<Order> {
    let order = server.orders.get(id).await?;
    order.ok_or_else(|| StoreError::absent("order", id))
}

pub(super) async fn balance(server: &Server, user: i64) -> Result<Balance> {
    let cash_cents = server.balances.get(user).await?;
    let cash_cents = cash_cents.ok_or_else(|| StoreError::absent("user", user))?;
    Ok(Balance { user, cash_cents })
}

pub(super) async fn report(server: &Server, user: i64) -> Result<AffiliateReport> {
    let row = server.pool.query_one(&schema::REPORT.replace("{user}", "$1"), &[&user]).await?;
    if row.get::<_, i64>(0) == 0 {
        return Err(StoreError::absent("user", user));
    }
    Ok(AffiliateReport {
        user,
        referred_users: row.get(1),
        orders: row.get(2),
        volume_cents: row.get(3),
        commission_cents: row.get(4),
    })
}

/// Runs a transaction, and once more when a request with the same key came first: its second run
/// finds what that one did. What met another transaction is run again by the pool. Where the log
/// stood after the commit comes along with the commit's answer.
async fn once<T, F, Fut>(server: &Server, work: F) -> Result<Done<T>>
where
    F: Fn(PgTransaction) -> Fut,
    Fut: Future<Output = Result<Done<T>>>,
{
    let options = TransactionOptions::new();
    let mut attempt = 1;
    loop {
        let commit = server.pool.transaction_and_query(&options, position::POSITION, &[], &work);
        match commit.await {
            Err(StoreError::Pool(error)) if attempt < ATTEMPTS && came_second(&error) => {
                attempt += 1;
            }
            Err(error) => return Err(error),
            Ok((done, rows)) => {
                let rows = rows.unwrap_or_default();
                return Ok(Done { token: Some(position::token(rows.first())), ..done });
            }
        }
    }
}

fn came_second(error: &PoolError) -> bool {
    error.sqlstate() == Some(UNIQUE_VIOLATION)
}

pub(super) async fn place_order(
    server: &Server,
    order: Keyed<NewOrder>,
) -> Result<Done<Placement>> {
    let order = &order;
    once(server, async |mut tx| place_order_in(&mut tx, order).await).await
}

async fn place_order_in(
    tx: &mut PgTransaction,
    order: &Keyed<NewOrder>,
) -> Result<Done<Placement>> {
    let NewOrder { user, ref symbol, quantity } = order.request;
    if let Some(value) = replayed_order(tx, order).await? {
        return Ok(Done::replayed(value));
    }
    let sql = "select price_cents from symbols where symbol = $1";
    let row = tx.query_opt(sql, &[symbol]).await?;
    let row = row.ok_or_else(|| StoreError::absent("symbol", symbol))?;
    let (_, price_cents) = schema::spread(row.get(0));
    let cost_cents = price_cents * quantity;
    let affiliates = take_cash(tx, user, cost_cents).await?;
    let sql = "insert into orders
                   (user_id, symbol, quantity, price_cents, cost_cents, idempotency_key, fingerprint)
               values ($1, $2, $3, $4, $5, $6, $7) returning id";
    let id = tx
        .query_one(
            sql,
            &[&user, symbol, &quantity, &price_cents, &cost_cents, &order.key, &order.fingerprint],
        )
        .await?
        .get(0);
    // Last, because every order of this symbol waits for this row until the commit.
    let sql = "update symbols set volume = volume + $2 where symbol = $1 returning volume";
    let volume = tx.query_one(sql, &[symbol, &quantity]).await?.get(0);
    let symbol = symbol.clone();
    let order = Order { id, user, symbol, quantity, price_cents, cost_cents, settled: false };
    let value = Placement { placed: PlacedOrder { order, volume }, affiliates };
    Ok(Done::now(value))
}

/// What the key's first use did, if it was used.
async fn replayed_order(
    tx: &mut PgTransaction,
    order: &Keyed<NewOrder>,
) -> Result<Option<Placement>> {
    let Some(key) = &order.key else { return Ok(None) };
    let sql =
        "select o.id, o.user_id, o.symbol, o.quantity, o.price_cents, o.cost_cents, o.settled,
                      o.fingerprint, s.volume, u.referrer_id, r.referrer_id
               from orders o
               join symbols s on s.symbol = o.symbol
               join users u on u.id = o.user_id
               left join users r on r.id = u.referrer_id
               where o.user_id = $1 and o.idempotency_key = $2";
    let Some(row) = tx.query_opt(sql, &[&order.request.user, key]).await? else {
        return Ok(None);
    };
    if row.get::<_, String>(7) != order.fingerprint {
        return Err(StoreError::KeyReused { key: key.clone() });
    }
    let placed = PlacedOrder { order: order_of(&row), volume: row.get(8) };
    Ok(Some(Placement { placed, affiliates: [row.get(9), row.get(10)] }))
}

/// Takes the cash and answers who brought the user in, and who brought that one in.
async fn take_cash(
    tx: &mut PgTransaction,
    user: i64,
    needed_cents: i64,
) -> Result<[Option<i64>; 2]> {
    let sql = "update users u set cash_cents = cash_cents - $2 where id = $1 and cash_cents >= $2
               returning referrer_id, (select referrer_id from users r where r.id = u.referrer_id)";
    if let Some(row) = tx.query_opt(sql, &[&user, &needed_cents]).await? {
        return Ok([row.get(0), row.get(1)]);
    }
    let row = tx.query_opt("select cash_cents from users where id = $1", &[&user]).await?;
    let row = row.ok_or_else(|| StoreError::absent("user", user))?;
    Err(StoreError::InsufficientFunds { user, cash_cents: row.get(0), needed_cents })
}

pub(super) async fn transfer(
    server: &Server,
    transfer: Keyed<NewTransfer>,
) -> Result<Done<Transfer>> {
    let transfer = &transfer;
    once(server, async |mut tx| transfer_in(&mut tx, transfer).await).await
}

async fn transfer_in(
    tx: &mut PgTransaction,
    transfer: &Keyed<NewTransfer>,
) -> Result<Done<Transfer>> {
    let NewTransfer { from, to, amount_cents } = transfer.request;
    if let Some(key) = &transfer.key {
        let sql = "select id, fingerprint from transfers
                   where from_user = $1 and idempotency_key = $2";
        if let Some(row) = tx.query_opt(sql, &[&from, key]).await? {
            if row.get::<_, String>(1) != transfer.fingerprint {
                return Err(StoreError::KeyReused { key: key.clone() });
            }
            let value = Transfer { id: row.get(0), from, to, amount_cents };
            return Ok(Done::replayed(value));
        }
    }
    // Both rows in the order of their ids: two opposite transfers cannot wait for each other.
    let sql = "select id from users where id = any($1) order by id for update";
    let users = tx.query(sql, &[&[from, to].as_slice()]).await?;
    for user in [from, to] {
        if !users.iter().any(|row| row.get::<_, i64>(0) == user) {
            return Err(StoreError::absent("user", user));
        }
    }
    take_cash(tx, from, amount_cents).await?;
    let sql = "update users set cash_cents = cash_cents + $2 where id = $1";
    tx.execute(sql, &[&to, &amount_cents]).await?;
    let sql =
        "insert into transfers (from_user, to_user, amount_cents, idempotency_key, fingerprint)
               values ($1, $2, $3, $4, $5) returning id";
    let id = tx
        .query_one(sql, &[&from, &to, &amount_cents, &transfer.key, &transfer.fingerprint])
        .await?
        .get(0);
    Ok(Done::now(Transfer { id, from, to, amount_cents }))
}

pub(super) async fn settle(server: &Server, order: i64) -> Result<()> {
    Ok(server.settlements.write(order).await?)
}

pub(super) async fn book(server: &Server, transfer: i64) -> Result<()> {
    Ok(server.bookings.write(transfer).await?)
}

pub(super) async fn unfinished(server: &Server) -> Result<(Vec<i64>, Vec<i64>)> {
    let ids = |rows: Vec<Row>| rows.iter().map(|row| row.get(0)).collect();
    let orders = ids(server.pool.query(schema::UNSETTLED, &[]).await?);
    let transfers = ids(server.pool.query(schema::UNBOOKED, &[]).await?);
    Ok((orders, transfers))
}

pub(super) async fn audit(server: &Server) -> Result<Audit> {
    let row = server.pool.query_one(schema::AUDIT, &[]).await?;
    Ok(Audit {
        cash_cents: row.get(0),
        orders_cents: row.get(1),
        seeded_cents: row.get(2),
        orders: row.get(3),
        unsettled: row.get(4),
        settlement_runs: row.get(5),
        transfers: row.get(6),
        unbooked: row.get(7),
        ledger_cents: row.get(8),
        volume_gap: row.get(9),
    })
}

pub(super) async fn missing_orders(server: &Server, orders: &[i64]) -> Result<Vec<i64>> {
    let sql = "select wanted.id from unnest($1::bigint[]) as wanted(id)
               where not exists (select 1 from orders o where o.id = wanted.id)";
    let rows = server.pool.query(sql, &[&orders]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
