//! One PostgreSQL server: its connections, and the lines in which work of one kind waits to be done
//! together.

use std::time::Duration;

use escala_pool::postgres::Row;
use escala_pool::{
    Acquire, BatchConfig, BatchWriter, Batcher, Emit, PgPool, PoolConfig, PoolError,
};

use super::{Result, schema};
use crate::enterprise::domain::{Order, Quote};
use crate::enterprise::pool_times::PoolTimes;

/// How long a health check may wait, connection included.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pool, and what goes through it in batches.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) pool: PgPool,
    pub(super) quotes: Batcher<String, Quote>,
    pub(super) orders: Batcher<i64, Order>,
    pub(super) balances: Batcher<i64, i64>,
    pub(super) settlements: BatchWriter<i64, ()>,
    pub(super) bookings: BatchWriter<i64, ()>,
}

/// The documented pool but for its size. A statement that runs longer than a request may take is of
/// no use to anybody.
fn config(url: &str, size: usize) -> PoolConfig {
    PoolConfig::new(url)
        .max_size(size)
        .min_idle(2)
        .application_name("escala-enterprise")
        .statement_timeout(Duration::from_secs(30))
        .idle_in_transaction_timeout(Duration::from_secs(30))
        .leak_threshold(Duration::from_secs(60))
}

impl Server {
    pub(super) async fn connect(url: &str, size: usize, times: &PoolTimes) -> Result<Self> {
        let builder = PgPool::builder(config(url, size)).on_event(times.hook());
        Self::over(builder.connect().await?)
    }

    pub(super) fn lazy(url: &str, size: usize, times: &PoolTimes) -> Result<Self> {
        let builder = PgPool::builder(config(url, size)).on_event(times.hook());
        Self::over(builder.connect_lazy()?)
    }

    /// For what the verbs do not cover: `COPY`, `LISTEN`.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    fn over(pool: PgPool) -> Result<Self> {
        let config = BatchConfig::new();
        Ok(Self {
            quotes: Batcher::new(config.clone(), by_keys(&pool, quotes))?,
            orders: Batcher::new(config.clone(), by_keys(&pool, orders))?,
            balances: Batcher::new(config.clone(), by_keys(&pool, balances))?,
            settlements: BatchWriter::new(
                config.clone(),
                PoolError::is_data,
                by_keys(&pool, settle),
            )?,
            bookings: BatchWriter::new(config, PoolError::is_data, by_keys(&pool, book))?,
            pool,
        })
    }

    /// One round trip. It does not starve when all connections are in use: that is no failure.
    pub(super) async fn ping(&self) -> Result<()> {
        let lease = self.pool.acquire_with(Acquire::reserved().timeout(PATIENCE)).await?;
        lease.query_one("select 1", &[]).await?;
        Ok(())
    }

    pub(super) fn visit_batches(&self, emit: &mut Emit<'_>) {
        let lines = [
            ("quotes", self.quotes.stats()),
            ("orders", self.orders.stats()),
            ("balances", self.balances.stats()),
            ("settlements", self.settlements.stats()),
            ("bookings", self.bookings.stats()),
        ];
        for (name, stats) in lines {
            stats.visit(&mut |metric, labels, value| {
                let mut labelled = vec![("batch", name)];
                labelled.extend_from_slice(labels);
                emit(metric, &labelled, value);
            });
        }
    }
}

/// A function of a pool and many keys, as one of many keys.
fn by_keys<K, F, Fut>(pool: &PgPool, query: F) -> impl Fn(Vec<K>) -> Fut + Send + Sync + 'static
where
    F: Fn(PgPool, Vec<K>) -> Fut + Send + Sync + 'static,
{
    let pool = pool.clone();
    move |keys| query(pool.clone(), keys)
}

pub(super) async fn quotes(
    pool: PgPool,
    symbols: Vec<String>,
) -> Result<Vec<(String, Quote)>, PoolError> {
    let sql = "select symbol, price_cents, volume from symbols where symbol = any($1)";
    let rows = pool.query(sql, &[&symbols]).await?;
    let quote_of = |row: &Row| {
        let (bid_cents, ask_cents) = schema::spread(row.get(1));
        let symbol: String = row.get(0);
        (symbol.clone(), Quote { symbol, bid_cents, ask_cents, volume: row.get(2) })
    };
    Ok(rows.iter().map(quote_of).collect())
}

async fn orders(pool: PgPool, ids: Vec<i64>) -> Result<Vec<(i64, Order)>, PoolError> {
    let sql = "select id, user_id, symbol, quantity, price_cents, cost_cents, settled
               from orders where id = any($1)";
    let rows = pool.query(sql, &[&ids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), order_of(row))).collect())
}

async fn balances(pool: PgPool, users: Vec<i64>) -> Result<Vec<(i64, i64)>, PoolError> {
    let rows = pool.query("select id, cash_cents from users where id = any($1)", &[&users]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// One statement, so one transaction. A second run would change nothing but be seen by the audit;
/// two runs of one order in the same group count as two.
async fn settle(pool: PgPool, orders: Vec<i64>) -> Result<Vec<()>, PoolError> {
    let sql = "with run as (
                   insert into settlements
                   select id, count(*) from unnest($1::bigint[]) as given(id) group by id
                   on conflict (order_id) do update set runs = settlements.runs + excluded.runs
                   returning order_id)
               update orders set settled = true from run where id = run.order_id";
    pool.execute(sql, &[&orders]).await?;
    Ok(vec![(); orders.len()])
}

async fn book(pool: PgPool, transfers: Vec<i64>) -> Result<Vec<()>, PoolError> {
    let sql = "insert into ledger
               select id, from_user, -amount_cents from transfers where id = any($1)
               union all
               select id, to_user, amount_cents from transfers where id = any($1)
               on conflict do nothing";
    pool.execute(sql, &[&transfers]).await?;
    Ok(vec![(); transfers.len()])
}

pub(super) fn order_of(row: &Row) -> Order {
    Order {
        id: row.get(0),
        user: row.get(1),
        symbol: row.get(2),
        quantity: row.get(3),
        price_cents: row.get(4),
        cost_cents: row.get(5),
        settled: row.get(6),
    }
}
