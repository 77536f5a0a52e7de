//! Rows in bulk: streamed, copied in, copied out, and dropped in the middle of each.

use std::time::Duration;

use escala_pool::PoolError;
use tokio::time::timeout;

use super::pipelines::all_idle;
use super::{backend, cluster, ids, pool, with_table};

#[test]
fn what_is_under_way_crosses_threads() {
    fn crosses<T: Send>() {}
    crosses::<escala_pool::postgres::RowStream<'static>>();
    crosses::<escala_pool::postgres::CopyIn<'static>>();
    crosses::<escala_pool::postgres::CopyOut<'static>>();
    crosses::<escala_pool::postgres::Listener>();
    crosses::<escala_pool::PgTransaction>();
    crosses::<escala_pool::postgres::PgSavepoint<'static>>();
}

const SERIES: &str = "select generate_series(1, $1::int8)";

#[tokio::test]
async fn rows_come_one_by_one_and_the_rest_may_be_left() {
    let pg = cluster().await;
    let pool = pool(&pg, 1).await;
    let process = backend(&pool).await;
    let mut rows = pool.query_stream(SERIES, &[&100_000_i64]).await.unwrap();
    let mut expected = 0;
    while let Some(row) = rows.next().await {
        expected += 1;
        assert_eq!(row.unwrap().get::<_, i64>(0), expected);
    }
    assert_eq!(expected, 100_000);
    // Its connection is back before the stream is dropped.
    assert_eq!(backend(&pool).await, process);
    assert!(rows.next().await.is_none());
    // More than fits into any buffer: the server is in the middle of it.
    let mut rows = pool.query_stream(SERIES, &[&1_000_000_000_i64]).await.unwrap();
    rows.next().await.unwrap().unwrap();
    drop(rows);
    assert_eq!(backend(&pool).await, process);
    assert_eq!(pool.stats().recovered_total, 1);
}

#[tokio::test]
async fn an_error_in_the_middle_of_rows_ends_them_and_the_transaction() {
    let pg = cluster().await;
    let pool = pool(&pg, 1).await;
    let broken = "select 1 / (50000 - g) from generate_series(1, 100000) g";
    let mut rows = pool.query_stream(broken, &[]).await.unwrap();
    let mut read = 0;
    let error = loop {
        match rows.next().await.unwrap() {
            Ok(_) => read += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((read, error.sqlstate()), (49_999, Some("22012")));
    assert!(rows.next().await.is_none());
    let mut tx = pool.begin().await.unwrap();
    let mut rows = tx.query_stream(broken, &[]).await.unwrap();
    while rows.next().await.unwrap().is_ok() {}
    drop(rows);
    assert_eq!(tx.commit().await.unwrap_err().sqlstate(), Some("25P02"));
    assert_eq!(pool.stats().recovered_total, 0);
}

#[tokio::test]
async fn an_answer_of_another_kind_is_an_error_and_no_wait() {
    let pg = cluster().await;
    let pool = pool(&pg, 1).await;
    let process = backend(&pool).await;
    let copy = "copy (select generate_series(1, 10000000)) to stdout";
    let mut lease = pool.acquire().await.unwrap();
    let mut rows = lease.query_stream(copy, &[]).await.unwrap();
    let first = timeout(Duration::from_secs(10), rows.next()).await.unwrap();
    assert!(first.unwrap().is_err());
    assert!(rows.next().await.is_none());
    drop(rows);
    drop(lease);
    let mut rows = pool.query_stream(copy, &[]).await.unwrap();
    assert!(timeout(Duration::from_secs(10), rows.next()).await.unwrap().unwrap().is_err());
    // Its connection is back before the stream is dropped.
    assert_eq!(backend(&pool).await, process);
}

#[tokio::test]
async fn a_lease_goes_on_after_its_stream_and_not_after_a_dropped_one() {
    let pg = cluster().await;
    let pool = pool(&pg, 1).await;
    let mut lease = pool.acquire().await.unwrap();
    let mut rows = lease.query_stream(SERIES, &[&3_i64]).await.unwrap();
    while rows.next().await.is_some() {}
    drop(rows);
    let mut rows = lease.query_stream(SERIES, &[&1_000_000_000_i64]).await.unwrap();
    rows.next().await.unwrap().unwrap();
    drop(rows);
    assert!(matches!(lease.query("select 1", &[]).await, Err(PoolError::Interrupted)));
}

#[tokio::test]
async fn what_is_copied_in_is_stored_when_it_is_finished_and_only_then() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    let process = backend(&pool).await;
    let into = "copy t from stdin";
    let mut copy = pool.copy_in(into).await.unwrap();
    copy.send("1\n2").await.unwrap();
    copy.send("\n3\n").await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 3);
    assert_eq!(ids(&pg).await, "1,2,3");
    let mut dropped = pool.copy_in(into).await.unwrap();
    dropped.send("4\n").await.unwrap();
    drop(dropped);
    // One that has sent more than fits into any buffer.
    let mut dropped = pool.copy_in(into).await.unwrap();
    for id in 100..100_000 {
        dropped.send(format!("{id}\n")).await.unwrap();
    }
    drop(dropped);
    let mut wrong = pool.copy_in(into).await.unwrap();
    wrong.send("5\nsix\n").await.unwrap();
    assert_eq!(wrong.finish().await.unwrap_err().sqlstate(), Some("22P02"));
    assert_eq!(backend(&pool).await, process, "the connection is as good as before");
    assert_eq!(ids(&pg).await, "1,2,3");
    assert_eq!(pool.stats().recovery_failures_total, 0);
}

#[tokio::test]
async fn copies_are_part_of_their_transaction() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    let mut tx = pool.begin().await.unwrap();
    let mut copy = tx.copy_in("copy t from stdin").await.unwrap();
    copy.send("1\n").await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 1);
    let mut out = tx.copy_out("copy t to stdout").await.unwrap();
    assert_eq!(out.next().await.unwrap().unwrap(), "1\n");
    assert!(out.next().await.is_none());
    drop(out);
    tx.execute("insert into t values (2)", &[]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    tx.execute("insert into t values (3)", &[]).await.unwrap();
    let mut copy = tx.copy_in("copy t from stdin").await.unwrap();
    copy.send("4\n").await.unwrap();
    drop(copy);
    assert!(matches!(tx.commit().await, Err(PoolError::Interrupted)));
    pool.execute("insert into t values (5)", &[]).await.unwrap();
    assert_eq!(ids(&pg).await, "1,2,5");
}

#[tokio::test]
async fn what_is_copied_out_may_be_left_in_the_middle() {
    let pg = cluster().await;
    let pool = pool(&pg, 1).await;
    let process = backend(&pool).await;
    let mut out = pool.copy_out("copy (select generate_series(1, 1000)) to stdout").await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = out.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    let lines = String::from_utf8(bytes).unwrap();
    assert_eq!(lines.lines().count(), 1000);
    assert_eq!(lines.lines().last(), Some("1000"));
    let endless = "copy (select generate_series(1, 1000000000)) to stdout";
    let mut out = pool.copy_out(endless).await.unwrap();
    out.next().await.unwrap().unwrap();
    drop(out);
    let back = timeout(Duration::from_secs(3), backend(&pool)).await;
    assert_eq!(back, Ok(process));
}

#[tokio::test]
async fn a_statement_of_another_kind_harms_nobody() {
    let pg = cluster().await;
    let pool = with_table(&pg, 1).await;
    for other in ["select 1", "copy t to stdout", "insert into t values (1) returning id"] {
        assert!(pool.copy_in(other).await.is_err(), "{other}");
        for value in 0..5_i64 {
            let row = pool.query_one("select $1::int8", &[&value]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), value, "after {other}");
        }
    }
    for other in ["select 1", "copy t from stdin", "select generate_series(1, 100000)"] {
        assert!(pool.copy_out(other).await.is_err(), "{other}");
        for value in 0..5_i64 {
            let row = pool.query_one("select $1::int8", &[&value]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), value, "after {other}");
        }
    }
    assert_eq!(
        pool.copy_in("copy nowhere from stdin").await.unwrap_err().sqlstate(),
        Some("42P01")
    );
    all_idle(&pool).await;
}
