//! The verbs on embedded SQLite: each is one statement, which runs on its caller's thread if it is
//! short, or one closure on a reader or on the writer thread.

use std::path::Path;

use escala_pool::{JobError, SqliteConfig, SqlitePool};
use rusqlite::{self, Connection, OptionalExtension, Row, params};

use super::schema;
use super::{Keyed, Node, Result, StoreError};
use crate::enterprise::domain::{
    AffiliateReport, Audit, Balance, Done, Listing, NewOrder, NewTransfer, Order, PlacedOrder,
    Placement, Quote, Transfer,
};
use crate::enterprise::pool_times::PoolTimes;
use crate::enterprise::settings::REPLICAS;

/// Opens the file's primary (the one writer) and its three read-only nodes, seeded.
///
/// # Errors
/// The file cannot be opened or holds another version of the data.
pub async fn open_embedded(
    path: &Path,
    times: &PoolTimes,
) -> Result<(Node, Vec<(&'static str, u32, Node)>)> {
    let config = SqliteConfig::new(path).readers(1);
    let primary = SqlitePool::builder(config.clone()).on_event(times.hook()).open().await?;
    seed(&primary).await?;
    let mut replicas = Vec::with_capacity(REPLICAS.len());
    for (name, weight) in REPLICAS {
        let builder = SqlitePool::builder(config.clone().read_only()).on_event(times.hook());
        replicas.push((name, weight, Node::Sqlite(builder.open().await?)));
    }
    Ok((Node::Sqlite(primary), replicas))
}

/// Opens the file of a stopped server, to read it.
///
/// # Errors
/// The file cannot be opened.
pub async fn open_file(path: &Path) -> Result<Node> {
    let pool = SqlitePool::open(SqliteConfig::new(path).readers(1).read_only()).await?;
    Ok(Node::Sqlite(pool))
}

pub(super) async fn seed(pool: &SqlitePool) -> Result<()> {
    write(pool, |tx| {
        tx.execute_batch(&schema::tables(
            "integer primary key",
            "integer primary key autoincrement",
        ))?;
        let version: Option<String> = tx
            .query_row("select value from meta where key = 'version'", [], |row| row.get(0))
            .optional()?;
        match version.as_deref() {
            Some(schema::VERSION) => return Ok(()),
            Some(other) => return Err(StoreError::absent("migration from seed version", other)),
            None => {}
        }
        tx.execute_batch(&format!(
            "with recursive c(n) as (select 1 union all select n + 1 from c where n < {symbols})
             insert into symbols (symbol, price_cents)
                 select printf('S%04d', n), {price} from c;
             with recursive c(n) as (select 1 union all select n + 1 from c where n < {users})
             insert into users (id, referrer_id, cash_cents) select n, {referrer}, {cash} from c;
             insert into meta values ('seeded_cents', {total}), ('version', '{version}');",
            symbols = schema::SYMBOLS,
            price = schema::PRICE_OF_N,
            users = schema::USERS,
            referrer = schema::REFERRER_OF_N,
            cash = schema::USER_CASH_CENTS,
            total = schema::USERS * schema::USER_CASH_CENTS,
            version = schema::VERSION,
        ))?;
        Ok(())
    })
    .await
}

pub(super) async fn is_seeded(pool: &SqlitePool) -> Result<bool> {
    let sql = "select count(*) from sqlite_master where name = 'meta'";
    read(pool, move |c| c.prepare_cached(sql)?.query_row([], |row| row.get(0))).await
}

pub(super) async fn ping(pool: &SqlitePool) -> Result<()> {
    pool.query_one("select 1", &[]).await?;
    Ok(())
}

pub(super) async fn quote(pool: &SqlitePool, symbol: &str) -> Result<Quote> {
    let row = pool.query_opt(QUOTE, &[&symbol]).await?;
    let row = row.ok_or_else(|| StoreError::absent("symbol", symbol))?;
    let (bid_cents, ask_cents) = schema::spread(row.try_get(0)?);
    Ok(Quote { symbol: symbol.to_owned(), bid_cents, ask_cents, volume: row.try_get(1)? })
}

pub(super) async fn quotes(pool: &SqlitePool, symbols: &[String]) -> Result<Vec<Quote>> {
    let names = symbols.to_vec();
    read(pool, move |c| names.iter().filter_map(|name| quote_in(c, name).transpose()).collect())
        .await
}

fn quote_in(c: &Connection, name: &str) -> rusqlite::Result<Option<Quote>> {
    c.prepare_cached(QUOTE)?
        .query_row([name], |row| {
            let (bid_cents, ask_cents) = schema::spread(row.get(0)?);
            Ok(Quote { symbol: name.to_owned(), bid_cents, ask_cents, volume: row.get(1)? })
        })
        .optional()
}

pub(super) async fn listings(pool: &SqlitePool, after: &str) -> Result<Vec<Listing>> {
    let after = after.to_owned();
    read(pool, move |c| {
        c.prepare_cached(&schema::listings("?1"))?
            .query_map([after], |row| {
                let (bid_cents, ask_cents) = schema::spread(row.get(1)?);
                Ok(Listing { symbol: row.get(0)?, bid_cents, ask_cents })
            })?
            .collect()
    })
    .await
}

pub(super) async fn order(pool: &SqlitePool, id: i64) -> Result<Order> {
    let found =
        read(pool, move |c| c.prepare_cached(ORDER_BY_ID)?.query_row([id], order_of).optional());
    found.await?.ok_or_else(|| StoreError::absent("order", id))
}

pub(super) async fn balance(pool: &SqlitePool, user: i64) -> Result<Balance> {
    let row = pool.query_opt("select cash_cents from users where id = ?1", &[&user]).await?;
    let row = row.ok_or_else(|| StoreError::absent("user", user))?;
    Ok(Balance { user, cash_cents: row.try_get(0)? })
}

pub(super) async fn report(pool: &SqlitePool, user: i64) -> Result<AffiliateReport> {
    let found = read(pool, move |c| {
        let sql = schema::REPORT.replace("{user}", "?1");
        c.prepare_cached(&sql)?.query_row([user], |row| {
            let exists: i64 = row.get(0)?;
            let report = AffiliateReport {
                user,
                referred_users: row.get(1)?,
                orders: row.get(2)?,
                volume_cents: row.get(3)?,
                commission_cents: row.get(4)?,
            };
            Ok((exists > 0).then_some(report))
        })
    });
    found.await?.ok_or_else(|| StoreError::absent("user", user))
}

pub(super) async fn place_order(
    pool: &SqlitePool,
    order: Keyed<NewOrder>,
) -> Result<Done<Placement>> {
    write(pool, move |tx| place_order_in(tx, &order)).await
}

fn place_order_in(tx: &Connection, order: &Keyed<NewOrder>) -> Result<Done<Placement>> {
    let NewOrder { user, ref symbol, quantity } = order.request;
    if let Some(value) = replayed_order(tx, order)? {
        return Ok(Done::replayed(value));
    }
    let price: i64 = tx
        .prepare_cached("select price_cents from symbols where symbol = ?1")?
        .query_row([symbol], |row| row.get(0))
        .optional()?
        .ok_or_else(|| StoreError::absent("symbol", symbol))?;
    let (_, price_cents) = schema::spread(price);
    let cost_cents = price_cents * quantity;
    let affiliates = affiliates(tx, user)?;
    take_cash(tx, user, cost_cents)?;
    let volume = tx
        .prepare_cached(
            "update symbols set volume = volume + ?2 where symbol = ?1 returning volume",
        )?
        .query_row(params![symbol, quantity], |row| row.get(0))?;
    let id = tx
        .prepare_cached(
            "insert into orders
                 (user_id, symbol, quantity, price_cents, cost_cents, idempotency_key, fingerprint)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .insert(params![
            user,
            symbol,
            quantity,
            price_cents,
            cost_cents,
            order.key,
            order.fingerprint
        ])?;
    let symbol = symbol.clone();
    let order = Order { id, user, symbol, quantity, price_cents, cost_cents, settled: false };
    let value = Placement { placed: PlacedOrder { order, volume }, affiliates };
    Ok(Done::now(value))
}

/// What the key's first use did, if it was used.
fn replayed_order(tx: &Connection, order: &Keyed<NewOrder>) -> Result<Option<Placement>> {
    let Some(key) = &order.key else { return Ok(None) };
    let known = tx
        .prepare_cached(
            "select o.id, o.user_id, o.symbol, o.quantity, o.price_cents, o.cost_cents, o.settled,
                    o.fingerprint, s.volume
             from orders o join symbols s on s.symbol = o.symbol
             where o.user_id = ?1 and o.idempotency_key = ?2",
        )?
        .query_row(params![order.request.user, key], |row| {
            Ok((order_of(row)?, row.get::<_, String>(7)?, row.get(8)?))
        })
        .optional()?;
    match known {
        None => Ok(None),
        Some((_, fingerprint, _)) if fingerprint != order.fingerprint => {
            Err(StoreError::KeyReused { key: key.clone() })
        }
        Some((order, _, volume)) => {
            let affiliates = affiliates(tx, order.user)?;
            let placed = PlacedOrder { order, volume };
            Ok(Some(Placement { placed, affiliates }))
        }
    }
}

fn affiliates(tx: &Connection, user: i64) -> Result<[Option<i64>; 2]> {
    tx.prepare_cached(
        "select u.referrer_id, r.referrer_id from users u
         left join users r on r.id = u.referrer_id where u.id = ?1",
    )?
    .query_row([user], |row| Ok([row.get(0)?, row.get(1)?]))
    .optional()?
    .ok_or_else(|| StoreError::absent("user", user))
}

fn take_cash(tx: &Connection, user: i64, needed_cents: i64) -> Result<()> {
    let taken = tx
        .prepare_cached(
            "update users set cash_cents = cash_cents - ?2 where id = ?1 and cash_cents >= ?2",
        )?
        .execute(params![user, needed_cents])?;
    if taken == 1 {
        return Ok(());
    }
    let cash_cents = tx
        .prepare_cached("select cash_cents from users where id = ?1")?
        .query_row([user], |row| row.get(0))
        .optional()?
        .ok_or_else(|| StoreError::absent("user", user))?;
    Err(StoreError::InsufficientFunds { user, cash_cents, needed_cents })
}

pub(super) async fn transfer(
    pool: &SqlitePool,
    transfer: Keyed<NewTransfer>,
) -> Result<Done<Transfer>> {
    write(pool, move |tx| transfer_in(tx, &transfer)).await
}

fn transfer_in(tx: &Connection, transfer: &Keyed<NewTransfer>) -> Result<Done<Transfer>> {
    let NewTransfer { from, to, amount_cents } = transfer.request;
    if let Some(key) = &transfer.key {
        let known = tx
            .prepare_cached(
                "select id, fingerprint from transfers
                 where from_user = ?1 and idempotency_key = ?2",
            )?
            .query_row(params![from, key], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        if let Some((id, fingerprint)) = known {
            if fingerprint != transfer.fingerprint {
                return Err(StoreError::KeyReused { key: key.clone() });
            }
            let value = Transfer { id, from, to, amount_cents };
            return Ok(Done::replayed(value));
        }
    }
    take_cash(tx, from, amount_cents)?;
    let given = tx
        .prepare_cached("update users set cash_cents = cash_cents + ?2 where id = ?1")?
        .execute(params![to, amount_cents])?;
    if given != 1 {
        return Err(StoreError::absent("user", to));
    }
    let id = tx
        .prepare_cached(
            "insert into transfers
                 (from_user, to_user, amount_cents, idempotency_key, fingerprint)
             values (?1, ?2, ?3, ?4, ?5)",
        )?
        .insert(params![from, to, amount_cents, transfer.key, transfer.fingerprint])?;
    Ok(Done::now(Transfer { id, from, to, amount_cents }))
}

pub(super) async fn settle(pool: &SqlitePool, order: i64) -> Result<()> {
    write(pool, move |tx| {
        // A second run would change nothing but be seen by the audit.
        tx.prepare_cached(
            "insert into settlements values (?1, 1)
             on conflict (order_id) do update set runs = runs + 1",
        )?
        .execute([order])?;
        tx.prepare_cached("update orders set settled = true where id = ?1")?.execute([order])?;
        Ok(())
    })
    .await
}

pub(super) async fn book(pool: &SqlitePool, transfer: i64) -> Result<()> {
    write(pool, move |tx| {
        tx.prepare_cached(
            "insert into ledger
             select id, from_user, -amount_cents from transfers where id = ?1
             union all
             select id, to_user, amount_cents from transfers where id = ?1
             on conflict do nothing",
        )?
        .execute([transfer])?;
        Ok(())
    })
    .await
}

pub(super) async fn unfinished(pool: &SqlitePool) -> Result<(Vec<i64>, Vec<i64>)> {
    let ids = |c: &Connection, sql: &str| -> rusqlite::Result<Vec<i64>> {
        c.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    read(pool, move |c| Ok((ids(c, schema::UNSETTLED)?, ids(c, schema::UNBOOKED)?))).await
}

pub(super) async fn audit(pool: &SqlitePool) -> Result<Audit> {
    read(pool, |c| {
        c.prepare_cached(schema::AUDIT)?.query_row([], |row| {
            Ok(Audit {
                cash_cents: row.get(0)?,
                orders_cents: row.get(1)?,
                seeded_cents: row.get(2)?,
                orders: row.get(3)?,
                unsettled: row.get(4)?,
                settlement_runs: row.get(5)?,
                transfers: row.get(6)?,
                unbooked: row.get(7)?,
                ledger_cents: row.get(8)?,
                volume_gap: row.get(9)?,
            })
        })
    })
    .await
}

pub(super) async fn missing_orders(pool: &SqlitePool, orders: &[i64]) -> Result<Vec<i64>> {
    let orders = orders.to_vec();
    read(pool, move |c| {
        let mut exists = c.prepare_cached("select 1 from orders where id = ?1")?;
        let mut missing = Vec::new();
        for id in orders {
            if !exists.exists([id])? {
                missing.push(id);
            }
        }
        Ok(missing)
    })
    .await
}

const QUOTE: &str = "select price_cents, volume from symbols where symbol = ?1";

const ORDER_BY_ID: &str = "select id, user_id, symbol, quantity, price_cents, cost_cents, settled
                           from orders where id = ?1";

fn order_of(row: &Row<'_>) -> rusqlite::Result<Order> {
    Ok(Order {
        id: row.get(0)?,
        user: row.get(1)?,
        symbol: row.get(2)?,
        quantity: row.get(3)?,
        price_cents: row.get(4)?,
        cost_cents: row.get(5)?,
        settled: row.get(6)?,
    })
}

async fn read<T: Send + 'static>(
    pool: &SqlitePool,
    run: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T> {
    pool.read(run).await.map_err(|error| StoreError::Pool(error.into()))
}

async fn write<T: Send + 'static>(
    pool: &SqlitePool,
    run: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
) -> Result<T> {
    pool.write(run).await.map_err(JobError::flatten)
}
