//! SQLite behind an async call: how long a point read takes, and what grouping is worth to writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use escala_pool::sqlite::rusqlite::{self, Connection};
use escala_pool::{PoolError, SqliteConfig, SqlitePool, Synchronous};
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use crate::Effort;
use crate::contest::{Contender, TASKS, Timed, compete, print, time};

const ROWS: i64 = 10_000;
const SQL: &str = "select price from quotes where id = ?1";
const INSERT: &str = "insert into orders (price) values (?1)";

pub(crate) async fn run(effort: Effort) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bench.db");
    let pool = SqlitePool::open(SqliteConfig::new(&path)).await?;
    pool.batch_execute(&format!(
        "create table quotes (id integer primary key, price integer not null); \
         create table orders (id integer primary key, price integer not null); \
         with recursive ids(id) as (select 0 union all select id + 1 from ids where id < {ROWS}) \
         insert into quotes select id, id * 3 from ids"
    ))
    .await?;
    point_read(effort, &pool, &path).await?;
    crowded_reads(effort, &pool, &path).await?;
    writes(effort, &pool, &path).await
}

fn key(number: u64) -> i64 {
    (number * 7_919 % ROWS as u64) as i64
}

fn price(conn: &Connection, id: i64) -> rusqlite::Result<i64> {
    conn.prepare_cached(SQL)?.query_row([id], |row| row.get(0))
}

/// One task, one read after the other.
async fn point_read(effort: Effort, pool: &SqlitePool, path: &Path) -> anyhow::Result<()> {
    let conn = Arc::new(Mutex::new(Connection::open(path)?));
    let (blocking, reading, querying, echo) =
        (Arc::clone(&conn), pool.clone(), pool.clone(), echo());
    let mut contenders = [
        Timed::new("rusqlite, on the task itself", 1, move |number| {
            let (conn, id) = (Arc::clone(&conn), key(number));
            async move { check(id, price(&conn.lock(), id)?) }
        }),
        Timed::new("rusqlite in spawn_blocking", 1, move |number| {
            let (conn, id) = (Arc::clone(&blocking), key(number));
            async move { check(id, spawn_blocking(move || price(&conn.lock(), id)).await??) }
        }),
        Timed::new("a thread that only echoes", 1, move |number| {
            let (echo, id) = (echo.clone(), key(number));
            async move {
                let (answer, answered) = tokio::sync::oneshot::channel();
                echo.send((id * 3, answer))?;
                check(id, answered.await?)
            }
        }),
        Timed::new("escala read(closure)", 1, move |number| {
            let (pool, id) = (reading.clone(), key(number));
            async move {
                check(id, pool.read(move |conn| price(conn, id)).await.map_err(PoolError::from)?)
            }
        }),
        Timed::new("escala query_one", 1, move |number| {
            let (pool, id) = (querying.clone(), key(number));
            async move { check(id, pool.query_one(SQL, &[&id]).await?.get(0)) }
        }),
    ];
    let text = "Point read in SQLite, one task: median";
    time(text, &mut contenders, effort.of(25, 1), effort.of(2_000, 10)).await
}

fn check(id: i64, price: i64) -> anyhow::Result<()> {
    ensure!(price == id * 3, "{id} has {price}");
    Ok(())
}

type Echo = std::sync::mpsc::Sender<(i64, tokio::sync::oneshot::Sender<i64>)>;

/// What any thread behind an async call costs.
fn echo() -> Echo {
    let (sender, calls) = std::sync::mpsc::channel::<(i64, tokio::sync::oneshot::Sender<i64>)>();
    std::thread::spawn(move || {
        for (value, answer) in calls {
            // The caller has gone at the end only.
            let _gone = answer.send(value);
        }
    });
    sender
}

async fn crowded_reads(effort: Effort, pool: &SqlitePool, path: &Path) -> anyhow::Result<()> {
    let conns: Vec<_> =
        (0..2).map(|_| Connection::open(path).map(Mutex::new)).collect::<Result<_, _>>()?;
    let conns = Arc::new(conns);
    let (reading, querying) = (pool.clone(), pool.clone());
    let mut contenders = [
        Contender::new("rusqlite in spawn_blocking", TASKS, move |number| {
            let (conns, id) = (Arc::clone(&conns), key(number));
            async move {
                let read = move || price(&conns[number as usize % 2].lock(), id);
                check(id, spawn_blocking(read).await??)
            }
        }),
        Contender::new("escala read(closure)", TASKS, move |number| {
            let (pool, id) = (reading.clone(), key(number));
            async move {
                let read = pool.read(move |conn| price(conn, id)).await;
                check(id, read.map_err(PoolError::from)?)
            }
        }),
        Contender::new("escala query_one", TASKS, move |number| {
            let (pool, id) = (querying.clone(), key(number));
            async move { check(id, pool.query_one(SQL, &[&id]).await?.get(0)) }
        }),
    ];
    let length = effort.of(Duration::from_millis(300), Duration::from_millis(5));
    compete(&mut contenders, effort.of(9, 1), length).await?;
    print("Point reads in SQLite, 64 tasks, 2 connections", &contenders, &[0]);
    Ok(())
}

async fn writes(effort: Effort, pool: &SqlitePool, path: &Path) -> anyhow::Result<()> {
    let full = SqlitePool::open(SqliteConfig::new(path).synchronous(Synchronous::Full)).await?;
    let conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.execute_batch("pragma synchronous = normal")?;
    let conn = Arc::new(Mutex::new(conn));
    let execute = |pool: &SqlitePool| {
        let pool = pool.clone();
        move |number: u64| {
            let pool = pool.clone();
            async move {
                ensure!(pool.execute(INSERT, &[&(number as i64)]).await? == 1);
                Ok(())
            }
        }
    };
    let mut contenders = [
        Contender::new("rusqlite, on the task itself, 1 task", 1, move |number| {
            let conn = Arc::clone(&conn);
            async move {
                ensure!(conn.lock().prepare_cached(INSERT)?.execute([number as i64])? == 1);
                Ok(())
            }
        }),
        Contender::new("escala execute, 1 task", 1, execute(pool)),
        Contender::new("escala execute, grouped", TASKS, execute(pool)),
        Contender::new("escala execute, synchronous full, 1 task", 1, execute(&full)),
        Contender::new("escala execute, synchronous full, grouped", TASKS, execute(&full)),
    ];
    let length = effort.of(Duration::from_millis(300), Duration::from_millis(5));
    compete(&mut contenders, effort.of(9, 1), length).await?;
    print("Inserts into SQLite, each acknowledged after its commit", &contenders, &[0, 1]);
    Ok(())
}
