//! Inserts in bulk: rows per second.

use std::time::Duration;

use anyhow::ensure;
use escala_pool::{BatchConfig, BatchWriter, PgPool, PoolConfig, PoolError};
use testkit::PgCluster;

use crate::Effort;
use crate::contest::{Contender, TASKS, compete, print};

const ROW: &str = "insert into orders (account, price) values ($1, $2)";
const ROWS: &str = "insert into orders (account, price) \
                    select * from unnest($1::int8[], $2::int8[])";
/// Rows in a statement that one task makes itself.
const AT_ONCE: i64 = 1_000;

pub(crate) async fn run(effort: Effort) -> anyhow::Result<()> {
    let cluster = PgCluster::start(0).await?;
    let pool = PgPool::connect(PoolConfig::new(cluster.primary().url()).max_size(10)).await?;
    let table = "create table orders (id int8 generated always as identity primary key, \
                 account int8 not null, price int8 not null)";
    pool.batch_execute(table).await?;
    let length = effort.of(Duration::from_millis(400), Duration::from_millis(20));
    let mut contenders = rows(&pool)?;
    compete(&mut contenders, effort.of(9, 1), length).await?;
    print("Inserts into PostgreSQL (testkit runs it without fsync): rows", &contenders, &[0, 1]);
    let (unnesting, copying) = (pool.clone(), pool.clone());
    let mut contenders = [
        Contender::new("escala execute, UNNEST", 1, move |_| unnest(unnesting.clone())),
        Contender::new("escala copy_in", 1, move |_| copy(copying.clone())),
    ];
    compete(&mut contenders, effort.of(9, 1), length).await?;
    print("A thousand rows at once by one task: thousands of rows", &contenders, &[0]);
    pool.close().await;
    Ok(())
}

/// Each operation is one row.
fn rows(pool: &PgPool) -> anyhow::Result<Vec<Contender>> {
    let (alone, together) = (pool.clone(), pool.clone());
    let writer = writer(pool)?;
    Ok(vec![
        Contender::new("escala execute, 1 task", 1, move |number| one(alone.clone(), number)),
        Contender::new("escala execute", TASKS, move |number| one(together.clone(), number)),
        Contender::new("escala BatchWriter, UNNEST", TASKS, move |number| {
            let (writer, number) = (writer.clone(), number as i64);
            async move { Ok(writer.write((number, number * 3)).await?) }
        }),
    ])
}

async fn one(pool: PgPool, number: u64) -> anyhow::Result<()> {
    let number = number as i64;
    ensure!(pool.execute(ROW, &[&number, &(number * 3)]).await? == 1);
    Ok(())
}

async fn unnest(pool: PgPool) -> anyhow::Result<()> {
    let accounts: Vec<i64> = (0..AT_ONCE).collect();
    ensure!(pool.execute(ROWS, &[&accounts, &accounts]).await? == AT_ONCE as u64);
    Ok(())
}

async fn copy(pool: PgPool) -> anyhow::Result<()> {
    let mut rows = pool.copy_in("copy orders (account, price) from stdin").await?;
    let text: String = (0..AT_ONCE).map(|number| format!("{number}\t{number}\n")).collect();
    rows.send(text).await?;
    ensure!(rows.finish().await? == AT_ONCE as u64);
    Ok(())
}

fn writer(pool: &PgPool) -> anyhow::Result<BatchWriter<(i64, i64), ()>> {
    let pool = pool.clone();
    let write = move |orders: Vec<(i64, i64)>| {
        let pool = pool.clone();
        async move {
            let (accounts, prices): (Vec<i64>, Vec<i64>) = orders.into_iter().unzip();
            let written = pool.execute(ROWS, &[&accounts, &prices]).await?;
            Ok::<_, PoolError>(vec![(); written as usize])
        }
    };
    Ok(BatchWriter::new(BatchConfig::new(), PoolError::is_data, write)?)
}
