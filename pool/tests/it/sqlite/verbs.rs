//! The verbs: where a statement runs, what it returns, how it fails.

use std::error::Error;

use escala_pool::{PoolError, SqliteConfig, SqlitePool, SqliteRow};

use super::{block, file, open};
use crate::scripted::assert_adds_up;

async fn shop() -> (tempfile::TempDir, SqlitePool) {
    let (folder, path) = file();
    let pool = open(&path).await;
    let tables = "create table quotes (symbol text primary key, price integer, note blob); \
                  create table log (symbol text); \
                  create trigger seen after insert on quotes begin \
                  insert into log values (new.symbol); end";
    pool.batch_execute(tables).await.unwrap();
    (folder, pool)
}

#[tokio::test]
async fn verbs_answer_with_rows_that_have_left_their_connection() {
    let (_folder, pool) = shop().await;
    let insert = "insert into quotes values (?1, ?2, ?3), ('ETH', 7, null)";
    let changed = pool.execute(insert, &[&"BTC", &42_i64, &vec![1_u8, 2]]).await.unwrap();
    assert_eq!(changed, 2, "without what the trigger wrote");
    let select = "select symbol, price as cents, note from quotes order by symbol";
    let rows = pool.query(select, &[]).await.unwrap();
    assert_eq!(rows[0].columns().collect::<Vec<_>>(), ["symbol", "cents", "note"]);
    assert_eq!((rows[0].get::<String>("symbol"), rows[0].get::<i64>(1)), ("BTC".to_owned(), 42));
    assert_eq!(rows[0].get::<Option<Vec<u8>>>("NOTE"), Some(vec![1, 2]));
    assert_eq!(rows[1].get::<Option<Vec<u8>>>(2), None);
    let one = "select price from quotes where symbol = ?1";
    assert_eq!(pool.query_one(one, &[&"ETH"]).await.unwrap().get::<i32>(0), 7);
    assert!(pool.query_opt(one, &[&"XRP"]).await.unwrap().is_none());
    let error = pool.query_one(one, &[&"XRP"]).await.unwrap_err();
    assert!(matches!(error, PoolError::RowCount { found: 0 }), "{error}");
    let error = pool.query_opt("select * from quotes", &[]).await.unwrap_err();
    assert!(matches!(error, PoolError::RowCount { found: 2 }), "{error}");
    assert_eq!(pool.execute("delete from quotes where price > 100", &[]).await.unwrap(), 0);
    assert_eq!(pool.execute("create table other (id)", &[]).await.unwrap(), 0);
    assert_eq!(pool.execute("select * from quotes", &[]).await.unwrap(), 2);
    assert_adds_up(&pool.stats());
}

#[tokio::test]
async fn a_query_that_writes_runs_on_the_writer_and_one_that_reads_does_not_wait_for_it() {
    let (_folder, pool) = shop().await;
    let returning = "insert into quotes values ('BTC', 1, null) returning price + 1";
    assert_eq!(pool.query_one(returning, &[]).await.unwrap().get::<i64>(0), 2);
    // Its first word does not say that it writes.
    let with = "with new as (select 'ETH' as symbol) \
                insert into quotes select symbol, 5, null from new returning symbol";
    assert_eq!(pool.query_one(with, &[]).await.unwrap().get::<String>(0), "ETH");
    let hold = block(&pool, true).await;
    for count in
        ["select count(*) from quotes", "with q as (select * from quotes) select count(*) from q"]
    {
        assert_eq!(pool.query_one(count, &[]).await.unwrap().get::<i64>(0), 2);
    }
    drop(hold);
    let path = pool.read(|conn| Ok::<_, PoolError>(conn.path().unwrap().to_owned())).await;
    let reader = SqliteConfig::new(path.unwrap()).read_only();
    let reader = SqlitePool::open(reader).await.unwrap();
    for sql in [returning, with] {
        let error = reader.query(sql, &[]).await.unwrap_err();
        assert!(matches!(error, PoolError::ReadOnly), "{error:?}");
    }
    assert_eq!(reader.query("select 1 from log", &[]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_statement_that_fails_changes_nothing_and_says_why() {
    let (_folder, pool) = shop().await;
    let insert = "insert into quotes values (?1, 1, null)";
    pool.execute(insert, &[&"BTC"]).await.unwrap();
    let error = pool.execute(insert, &[&"BTC"]).await.unwrap_err();
    assert!(error.is_data() && !error.is_connection() && !error.is_retryable(), "{error:?}");
    let error = pool.query("selekt 1", &[]).await.unwrap_err();
    assert!(matches!(error, PoolError::Sqlite(_)) && !error.is_data(), "{error:?}");
    let error = pool.query("select ?1", &[]).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("parameter"), "{error:?}");
    let error = pool.query("select 1; select 2", &[]).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("statement"), "{error:?}");
    // Of several, all or none.
    let several =
        "insert into quotes values ('A', 1, null); insert into quotes values ('BTC', 1, null)";
    assert!(pool.batch_execute(several).await.unwrap_err().is_data());
    assert_eq!(pool.query("select 1 from quotes", &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_and_no_value_stands_in_debug() {
    let (_folder, pool) = shop().await;
    let row: SqliteRow = pool.query_one("select 'secret' as word, 300 as n", &[]).await.unwrap();
    assert!(row.try_get::<i64>("word").is_err() && row.try_get::<u8>("n").is_err());
    assert!(row.try_get::<i64>("nothing").is_err() && row.try_get::<i64>(2).is_err());
    assert_eq!((row.len(), row.is_empty()), (2, false));
    let debug = format!("{row:?}");
    assert!(debug.contains("word") && !debug.contains("secret"), "{debug}");
}

#[tokio::test]
async fn columns_are_those_of_the_table_as_it_is_now() {
    let (_folder, pool) = shop().await;
    pool.execute("insert into log values ('x')", &[]).await.unwrap();
    let select = "select * from log";
    assert_eq!(pool.query_one(select, &[]).await.unwrap().len(), 1);
    pool.batch_execute("alter table log add column more integer default 3").await.unwrap();
    for _ in 0..4 {
        let row = pool.query_one(select, &[]).await.unwrap();
        assert_eq!((row.len(), row.get::<i64>("more")), (2, 3));
    }
}

#[tokio::test]
async fn a_write_that_returns_another_number_of_rows_than_its_verb_promises_is_rolled_back() {
    let (_folder, pool) = shop().await;
    let two = "insert into quotes values ('BTC', 1, null), ('ETH', 2, null) returning symbol";
    // Its first word does not say that it writes.
    let with = "with new(symbol) as (values ('BTC'), ('ETH')) \
                insert into quotes select symbol, 5, null from new returning symbol";
    for sql in [two, with] {
        let error = pool.query_one(sql, &[]).await.unwrap_err();
        assert!(matches!(error, PoolError::RowCount { found: 2 }), "{error}");
        let error = pool.query_opt(sql, &[]).await.unwrap_err();
        assert!(matches!(error, PoolError::RowCount { found: 2 }), "{error}");
        assert!(pool.query("select * from quotes", &[]).await.unwrap().is_empty(), "{sql}");
    }
}
