//! A lookup by primary key: 64 tasks, ten connections, and the ways to share them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bb8_postgres::PostgresConnectionManager;
use escala_pool::{BatchConfig, Batcher, PgPool, PoolConfig, PoolError};
use testkit::PgCluster;
use tokio_postgres::{Client, NoTls, Statement};

use crate::Effort;
use crate::contest::{Contender, TASKS, compete, print};

const CONNECTIONS: usize = 10;
const ROWS: i64 = 100_000;
/// The row of `query_one`.
const QUERY: usize = 8;
const SQL: &str = "select price from quotes where id = $1";

pub(crate) async fn run(effort: Effort) -> anyhow::Result<()> {
    let cluster = PgCluster::start(0).await?;
    let url = cluster.primary().url();
    let pool = PgPool::connect(PoolConfig::new(&url).max_size(CONNECTIONS)).await?;
    pool.batch_execute(&format!(
        "create table quotes (id int8 primary key, price int8 not null); \
         insert into quotes select id, id * 3 from generate_series(0, {ROWS}::int8 - 1) id; \
         analyze quotes"
    ))
    .await?;
    let mut contenders = rivals(&url).await?;
    contenders.extend(pipelined(&url).await?);
    contenders.extend(ours(&pool)?);
    let length = effort.of(Duration::from_millis(400), Duration::from_millis(20));
    compete(&mut contenders, effort.of(15, 1), length).await?;
    let text = "Lookup by key in PostgreSQL, 64 tasks, 10 connections";
    print(text, &contenders, &[0, 1, QUERY]);
    pool.close().await;
    Ok(())
}

/// The key of a call: scattered, and different for all 64.
fn key(number: u64) -> i64 {
    (number * 7_919 % ROWS as u64) as i64
}

fn check(id: i64, price: i64) -> anyhow::Result<()> {
    ensure!(price == id * 3, "{id} has {price}");
    Ok(())
}

async fn rivals(url: &str) -> anyhow::Result<Vec<Contender>> {
    let manager = PostgresConnectionManager::new_from_stringlike(url, NoTls)?;
    let usual = bb8::Pool::builder().max_size(CONNECTIONS as u32).build(manager).await?;
    let manager = Prepared(PostgresConnectionManager::new_from_stringlike(url, NoTls)?);
    let prepared = bb8::Pool::builder().max_size(CONNECTIONS as u32).test_on_check_out(false);
    let prepared = prepared.build(manager).await?;
    let manager = deadpool_postgres::Manager::from_config(
        url.parse()?,
        NoTls,
        deadpool_postgres::ManagerConfig {
            recycling_method: deadpool_postgres::RecyclingMethod::Fast,
        },
    );
    let deadpool = deadpool_postgres::Pool::builder(manager).max_size(CONNECTIONS).build()?;
    let sqlx = sqlx::postgres::PgPoolOptions::new()
        .max_connections(CONNECTIONS as u32)
        .test_before_acquire(false)
        .connect(url)
        .await?;
    Ok(vec![
        Contender::new("bb8-postgres, defaults", TASKS, move |number| {
            let (pool, id) = (usual.clone(), key(number));
            async move { check(id, pool.get().await?.query_one(SQL, &[&id]).await?.get(0)) }
        }),
        Contender::new("bb8-postgres, prepared, no test", TASKS, move |number| {
            let (pool, id) = (prepared.clone(), key(number));
            async move {
                let conn = pool.get().await?;
                check(id, conn.client.query_one(&conn.statement, &[&id]).await?.get(0))
            }
        }),
        Contender::new("deadpool-postgres, fast, prepared", TASKS, move |number| {
            let (pool, id) = (deadpool.clone(), key(number));
            async move {
                let conn = pool.get().await?;
                let statement = conn.prepare_cached(SQL).await?;
                check(id, conn.query_one(&statement, &[&id]).await?.get(0))
            }
        }),
        Contender::new("sqlx, no test", TASKS, move |number| {
            let (pool, id) = (sqlx.clone(), key(number));
            async move {
                let price: i64 = sqlx::query_scalar(SQL).bind(id).fetch_one(&pool).await?;
                check(id, price)
            }
        }),
    ])
}

/// bb8-postgres with what everyone adds to it: a statement that is prepared once per connection.
struct Prepared(PostgresConnectionManager<NoTls>);

struct PreparedClient {
    client: Client,
    statement: Statement,
}

impl bb8::ManageConnection for Prepared {
    type Connection = PreparedClient;
    type Error = tokio_postgres::Error;

    async fn connect(&self) -> Result<PreparedClient, tokio_postgres::Error> {
        let client = self.0.connect().await?;
        let statement = client.prepare(SQL).await?;
        Ok(PreparedClient { client, statement })
    }

    async fn is_valid(&self, conn: &mut PreparedClient) -> Result<(), tokio_postgres::Error> {
        self.0.is_valid(&mut conn.client).await
    }

    fn has_broken(&self, conn: &mut PreparedClient) -> bool {
        self.0.has_broken(&mut conn.client)
    }
}

/// Connections that all tasks share, without a pool.
async fn pipelined(url: &str) -> anyhow::Result<Vec<Contender>> {
    let mut contenders = Vec::new();
    for (name, connections) in [
        ("tokio-postgres, 1 connection for all", 1),
        ("tokio-postgres, 2 connections for all", 2),
        ("tokio-postgres, 10 connections for all", 10),
    ] {
        let mut clients = Vec::new();
        for _ in 0..connections {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            let statement = client.prepare(SQL).await?;
            clients.push(PreparedClient { client, statement });
        }
        let clients = Arc::new(clients);
        contenders.push(Contender::new(name, TASKS, move |number| {
            let (clients, id) = (Arc::clone(&clients), key(number));
            async move {
                let conn = &clients[number as usize % connections];
                check(id, conn.client.query_one(&conn.statement, &[&id]).await?.get(0))
            }
        }));
    }
    Ok(contenders)
}

fn ours(pool: &PgPool) -> anyhow::Result<Vec<Contender>> {
    let (querying, leasing) = (pool.clone(), pool.clone());
    let (one, two) = (batcher(pool, 1)?, batcher(pool, 2)?);
    let looking_up = |batcher: Batcher<i64, i64>| {
        move |number| {
            let (batcher, id) = (batcher.clone(), key(number));
            async move { check(id, batcher.get(id).await?.context("there is such a row")?) }
        }
    };
    Ok(vec![
        Contender::new("escala acquire + query_one", TASKS, move |number| {
            let (pool, id) = (leasing.clone(), key(number));
            async move { check(id, pool.acquire().await?.query_one(SQL, &[&id]).await?.get(0)) }
        }),
        Contender::new("escala query_one", TASKS, move |number| {
            let (pool, id) = (querying.clone(), key(number));
            async move { check(id, pool.query_one(SQL, &[&id]).await?.get(0)) }
        }),
        Contender::new("escala Batcher, = any($1)", TASKS, looking_up(two)),
        Contender::new("escala Batcher, 1 batch at a time", TASKS, looking_up(one)),
    ])
}

fn batcher(pool: &PgPool, at_a_time: usize) -> anyhow::Result<Batcher<i64, i64>> {
    let pool = pool.clone();
    let load = move |ids: Vec<i64>| {
        let pool = pool.clone();
        async move {
            let rows =
                pool.query("select id, price from quotes where id = any($1)", &[&ids]).await?;
            Ok::<_, PoolError>(rows.into_iter().map(|row| (row.get(0), row.get(1))))
        }
    };
    Ok(Batcher::new(BatchConfig::new().max_in_flight(at_a_time), load)?)
}
