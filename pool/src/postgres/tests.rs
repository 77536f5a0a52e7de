//! What the tap says of a real conversation, and that no other cut of its bytes says otherwise.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bb8::ManageConnection;
use parking_lot::Mutex;
use testkit::PgCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_postgres::{Client, CopyInSink, Statement};

use super::connection::PgConnection;
use super::manager::PgManager;
use super::tap::Session;
use super::wire::TransactionStatus::{Active, Failed, Idle};
use crate::PoolConfig;

async fn connect(url: impl Into<String>) -> PgConnection {
    PgManager::new(&PoolConfig::new(url)).unwrap().connect().await.unwrap()
}

async fn with_table() -> (PgCluster, PgConnection) {
    let pg = PgCluster::start(0).await.unwrap();
    let conn = connect(pg.primary().url()).await;
    conn.batch_execute("create table t (id int primary key)").await.unwrap();
    (pg, conn)
}

type Sink = Pin<Box<CopyInSink<&'static [u8]>>>;

async fn copy(client: &Client, statement: &Statement) -> Result<Sink, tokio_postgres::Error> {
    client.copy_in(statement).await.map(Box::pin)
}

/// Prepared once: closing a statement is one more request, which would tell what is in doubt.
async fn prepared(conn: &PgConnection) -> Statement {
    conn.client.prepare("copy t from stdin").await.unwrap()
}

async fn put(sink: &mut Sink, data: &'static [u8]) {
    use futures_util::SinkExt;
    sink.send(data).await.unwrap();
}

/// Ends when nothing is owed any more, which takes as long as a statement.
async fn quiet(conn: &PgConnection) {
    while conn.wire.is_busy() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn count(conn: &PgConnection) -> i64 {
    conn.query("select count(*) from t", &[]).await.unwrap()[0].get(0)
}

#[tokio::test]
async fn the_status_follows_every_answer() {
    let (_pg, conn) = with_table().await;
    let wire = &conn.wire;
    assert_eq!((wire.is_busy(), wire.transaction()), (false, Idle));
    assert_eq!(wire.state().in_hot_standby, Some(false));
    assert_eq!(wire.state().default_read_only, Some(false));
    conn.batch_execute("begin").await.unwrap();
    assert_eq!((wire.is_busy(), wire.transaction()), (false, Active));
    conn.execute("insert into t values (1), (1)", &[]).await.unwrap_err();
    assert_eq!((wire.is_busy(), wire.transaction()), (false, Failed));
    conn.execute("rollback", &[]).await.unwrap();
    assert_eq!((wire.is_busy(), wire.transaction()), (false, Idle));
    conn.batch_execute("set default_transaction_read_only = on").await.unwrap();
    assert_eq!(wire.state().default_read_only, Some(true));
    let answered = wire.answered();
    let mut sleeping = pin!(conn.client.batch_execute("select pg_sleep(0.2)"));
    assert!(timeout(Duration::from_millis(50), sleeping.as_mut()).await.is_err());
    assert!(wire.is_busy());
    wire.answered_all().await;
    assert_eq!((wire.is_busy(), wire.answered()), (false, answered + 1));
}

#[tokio::test]
async fn copies_of_all_outcomes_are_counted_right() {
    let (_pg, conn) = with_table().await;
    let statement = prepared(&conn).await;
    for (data, end, rows) in [
        (&b"1\n2\n"[..], true, Some(2)),
        (b"3\n", false, None),
        (b"oops\n", true, None),
        (b"oops\n", false, None),
        (b"4\n", true, Some(1)),
    ] {
        let mut sink = copy(&conn.client, &statement).await.unwrap();
        assert!(conn.wire.is_busy() && conn.is_dirty(), "it waits for data");
        put(&mut sink, data).await;
        if end {
            assert_eq!(sink.as_mut().finish().await.ok(), rows);
        }
        drop(sink);
        quiet(&conn).await;
        let state = conn.wire.state();
        assert_eq!((state.lost, state.doubtful), (false, rows.is_none()), "{data:?} {end}");
        // The next answer tells that it was right.
        conn.query("select 1", &[]).await.unwrap();
        assert!(!conn.is_dirty() && !conn.is_broken());
    }
    assert_eq!(count(&conn).await, 3);
    // To the client, whole and given up.
    for rows in [10, 1_000_000] {
        let sql = format!("copy (select generate_series(1, {rows})) to stdout");
        let _stream = conn.client.copy_out(&sql).await.unwrap();
        assert!(rows == 10 || conn.wire.is_busy());
    }
    quiet(&conn).await;
    assert_eq!(count(&conn).await, 3);
    assert!(!conn.is_dirty() && !conn.is_broken());
}

#[tokio::test]
async fn a_copy_given_up_before_it_began_is_counted_right() {
    let (_pg, conn) = with_table().await;
    let statement = prepared(&conn).await;
    for wait in (0..100).map(|i| i * 10) {
        drop(timeout(Duration::from_micros(wait), copy(&conn.client, &statement)).await);
        quiet(&conn).await;
        // The driver has perhaps not written all of it, so what comes now comes behind it.
        assert_eq!(count(&conn).await, 0, "after {wait} us");
        assert!(!conn.is_dirty() && !conn.is_broken());
    }
}

/// The driver takes one answer for it, the server would give two.
#[tokio::test]
async fn a_copy_that_is_refused_confuses_nobody() {
    let (_pg, conn) = with_table().await;
    for round in 0..100_i64 {
        let refused = conn.client.copy_in::<_, &[u8]>("copy missing from stdin").await;
        assert_eq!(refused.err().unwrap().code().unwrap().code(), "42P01");
        let rows = conn.query("select $1::int8", &[&round]).await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), round);
    }
    quiet(&conn).await;
    assert!(!conn.is_dirty() && !conn.is_broken());
}

/// The same at a moment when nobody can tell: whoever used the connection next would be given the
/// answers of others.
#[tokio::test]
async fn a_copy_that_is_answered_twice_costs_the_connection() {
    let (_pg, conn) = with_table().await;
    let function = "create function refuse() returns trigger language plpgsql \
                    as $$ begin perform pg_sleep(0.1); raise 'no'; end $$; \
                    create trigger refuse before insert on t \
                    for each statement execute function refuse()";
    conn.batch_execute(function).await.unwrap();
    let statement = prepared(&conn).await;
    let mut sink = copy(&conn.client, &statement).await.unwrap();
    put(&mut sink, b"1\n").await;
    sink.as_mut().finish().await.unwrap_err();
    let seen = async {
        while !conn.wire.state().lost {
            // Doubt is dispelled by the next answer.
            drop(conn.client.batch_execute("").await);
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), seen).await.unwrap();
    assert!(conn.is_broken());
}

#[tokio::test]
async fn a_copy_in_a_batch_is_stuck() {
    let (_pg, conn) = with_table().await;
    conn.batch_execute("copy t from stdin").await.unwrap_err();
    assert!(conn.wire.state().stuck && conn.is_dirty());
}

/// What passed, in the order in which it passed; `true` is from the client.
type Record = Arc<Mutex<Vec<(bool, Vec<u8>)>>>;

/// Relays one connection to the server and writes down what passes.
async fn record(listener: TcpListener, server: std::net::SocketAddr, record: Record) {
    let (client, _) = listener.accept().await.unwrap();
    let server = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let forth = async {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            record.lock().push((true, bytes[..count].to_vec()));
            to_server.write_all(&bytes[..count]).await.unwrap();
        }
    };
    let back = async {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            record.lock().push((false, bytes[..count].to_vec()));
            to_client.write_all(&bytes[..count]).await.unwrap();
        }
    };
    tokio::select! { () = forth => {}, () = back => {} }
}

#[tokio::test]
async fn a_real_session_reads_the_same_however_it_is_cut() {
    let pg = PgCluster::start(0).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url =
        format!("postgres://postgres@{}/postgres?sslmode=disable", listener.local_addr().unwrap());
    let seen = Record::default();
    let relay = tokio::spawn(record(listener, pg.primary().addr(), Arc::clone(&seen)));
    let conn = connect(url).await;
    conn.batch_execute("create table t (id int primary key)").await.unwrap();
    let insert = "insert into t select generate_series(1, $1)";
    conn.execute(insert, &[&400]).await.unwrap();
    conn.execute(insert, &[&1]).await.unwrap_err();
    conn.batch_execute("begin; savepoint s; select 1/0").await.unwrap_err();
    conn.batch_execute("rollback").await.unwrap();
    let statement = prepared(&conn).await;
    for data in [&b"3000\n"[..], b"3000\n"] {
        let mut sink = copy(&conn.client, &statement).await.unwrap();
        put(&mut sink, data).await;
        drop(sink.as_mut().finish().await);
    }
    drop(statement);
    conn.query("select id, repeat('x', id) from t order by id", &[]).await.unwrap();
    let last = (conn.wire.state(), conn.wire.answered());
    drop(conn);
    relay.await.unwrap();

    let seen = seen.lock();
    let (mut whole, mut random) = (Session::new(), fastrand::Rng::with_seed(1));
    let mut cut = [1, 2, 3, 64].map(|size| (size, Session::new()));
    for (client, bytes) in seen.iter() {
        if *client {
            whole.sent(bytes);
        } else {
            whole.received(bytes);
        }
        for (most, session) in &mut cut {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let piece;
                (piece, rest) = rest.split_at(random.usize(1..=*most).min(rest.len()));
                if *client { session.sent(piece) } else { session.received(piece) }
            }
            assert_eq!(session.state(), whole.state());
        }
    }
    assert_eq!((whole.state(), whole.answered()), last);
    assert!(seen.len() > 30 && !whole.state().lost && whole.state().outstanding == 0);
}
