//! Where the log stood after a commit, and whose fault errors are, on real servers.

use escala_replicas::session::postgres::{self, POSITION};
use escala_replicas::{Fault, Token};
use testkit::{FaultProxy, PgCluster, PgNode};
use tokio_postgres::{Client, Error, NoTls};

async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

async fn client(node: &PgNode) -> Client {
    connect(&node.url()).await.unwrap()
}

async fn with_table(cluster: &PgCluster) -> Client {
    let client = client(cluster.primary()).await;
    client.batch_execute("create table t (id int primary key)").await.unwrap();
    client
}

async fn ids(client: &Client) -> String {
    let sql = "select coalesce(string_agg(id::text, ',' order by id), '') from t";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// What a node has in its log, or shows of it.
async fn lsn(client: &Client, function: &str) -> u64 {
    let sql = format!("select ({function}() - '0/0'::pg_lsn)::int8");
    client.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0).cast_unsigned()
}

#[tokio::test]
async fn a_token_is_where_the_commit_ends() {
    let cluster = PgCluster::start(1).await.unwrap();
    let primary = with_table(&cluster).await;
    let standby = client(cluster.standby(0)).await;
    let system: i64 = primary
        .query_one("select system_identifier from pg_control_system()", &[])
        .await
        .unwrap()
        .get(0);
    let insert = primary.prepare("insert into t values ($1) returning id").await.unwrap();
    for asynchronous in ["off", "on"] {
        primary.batch_execute("truncate t").await.unwrap();
        primary.batch_execute(&format!("set synchronous_commit = {asynchronous}")).await.unwrap();
        // What the standby has shown so far is not enough, and when it has come so far, it is.
        for id in 1..=30 {
            let before = lsn(&primary, "pg_current_wal_insert_lsn").await;
            let token = match id % 3 {
                0 => {
                    primary
                        .batch_execute(&format!("begin; insert into t values ({id})"))
                        .await
                        .unwrap();
                    postgres::commit(&primary).await.unwrap()
                }
                1 => {
                    let (rows, token) = postgres::execute(&primary, &insert, &[&id]).await.unwrap();
                    assert_eq!(rows, 1);
                    token
                }
                _ => {
                    let (rows, token) = postgres::query(&primary, &insert, &[&id]).await.unwrap();
                    assert_eq!(rows[0].get::<_, i32>(0), id);
                    token
                }
            };
            assert_eq!((token.system(), token.timeline()), (system.cast_unsigned(), 1));
            assert!(token.position() > before, "a commit takes room");
            while lsn(&standby, "pg_last_wal_replay_lsn").await < token.position() {}
            let expected: Vec<String> = (1..=id).map(|id| id.to_string()).collect();
            assert_eq!(ids(&standby).await, expected.join(","));
        }
    }
}

#[tokio::test]
async fn a_commit_that_was_none_gives_no_token() {
    let cluster = PgCluster::start(0).await.unwrap();
    let client = with_table(&cluster).await;
    client
        .batch_execute("create table d (id int references t deferrable initially deferred)")
        .await
        .unwrap();
    let code = |result: Result<Token, Error>| result.unwrap_err().code().unwrap().code().to_owned();

    assert_eq!(code(postgres::commit(&client).await), "25P01", "no transaction");
    client.batch_execute("begin; insert into t values (1)").await.unwrap();
    client.batch_execute("select nonsense").await.unwrap_err();
    assert_eq!(code(postgres::commit(&client).await), "25P02", "a failed one");
    client
        .batch_execute("begin; insert into t values (2); insert into d values (7)")
        .await
        .unwrap();
    assert_eq!(code(postgres::commit(&client).await), "23503", "refused by the commit itself");
    let insert = client.prepare("insert into t values ($1)").await.unwrap();
    postgres::execute(&client, &insert, &[&3]).await.unwrap();
    let error = postgres::execute(&client, &insert, &[&3]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    assert_eq!(postgres::fault(&error), Fault::Operation);
    assert_eq!(ids(&client).await, "3", "and the connection is fit");
}

#[tokio::test]
async fn a_position_that_cannot_be_read_hides_no_commit() {
    let cluster = PgCluster::start(0).await.unwrap();
    let owner = with_table(&cluster).await;
    owner
        .batch_execute(
            "create role app login; grant all on t to app;
             revoke execute on function pg_control_system() from public",
        )
        .await
        .unwrap();
    let app = connect(&cluster.primary().url().replace("postgres@", "app@")).await.unwrap();
    app.batch_execute("begin; insert into t values (1)").await.unwrap();
    assert!(postgres::commit(&app).await.unwrap().is_unplaced());
    let insert = app.prepare("insert into t values ($1)").await.unwrap();
    let (rows, token) = postgres::execute(&app, &insert, &[&2]).await.unwrap();
    assert!(rows == 1 && token.is_unplaced());
    assert_eq!(ids(&app).await, "1,2");
    assert!(postgres::token(None).is_unplaced());
    let row = owner.query_one(POSITION, &[]).await.unwrap();
    assert!(!postgres::token(Some(&row)).is_unplaced());
    let other = owner.query_one("select 7", &[]).await.unwrap();
    assert!(postgres::token(Some(&other)).is_unplaced());
}

#[tokio::test]
async fn a_promotion_shows_in_the_next_token() {
    let cluster = PgCluster::start(1).await.unwrap();
    drop(with_table(&cluster).await);
    cluster.sql(cluster.primary(), "select pg_switch_wal()").await.unwrap();
    // Replication is asynchronous: what the standby has not got dies with the primary.
    while cluster.sql(cluster.standby(0), "select from t").await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    cluster.kill_primary().unwrap();
    cluster.promote(0).await.unwrap();
    let promoted = client(cluster.standby(0)).await;
    let insert = promoted.prepare("insert into t values ($1)").await.unwrap();
    let (_, token) = postgres::execute(&promoted, &insert, &[&1]).await.unwrap();
    assert_eq!(token.timeline(), 2);
}

#[tokio::test]
async fn errors_tell_whose_fault_they_are() {
    let cluster = PgCluster::start(1).await.unwrap();
    let primary = with_table(&cluster).await;
    let standby = client(cluster.standby(0)).await;
    let fault = |result: Result<(), Error>| postgres::fault(&result.unwrap_err());
    let write = "insert into t values (1)";
    while standby.query("select id from t", &[]).await.is_err() {}
    assert_eq!(fault(standby.batch_execute(write).await), Fault::NotPrimary);
    assert_eq!(fault(primary.batch_execute("select 1 / 0").await), Fault::Operation);
    // What the driver refuses before it sends anything.
    let statement = primary.prepare("select $1::int").await.unwrap();
    assert_eq!(fault(primary.execute(&statement, &[&"x"]).await.map(drop)), Fault::Operation);
    assert_eq!(
        fault(primary.query_one("select 1 where false", &[]).await.map(drop)),
        Fault::Operation
    );

    let proxy = FaultProxy::start(cluster.primary().addr()).await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    let cut = connect(&url).await.unwrap();
    let sleep = async { cut.batch_execute("select pg_sleep(30)").await };
    let (slept, ()) = tokio::join!(sleep, async { proxy.cut() });
    assert_eq!(fault(slept), Fault::Node);
    assert_eq!(fault(cut.batch_execute(write).await), Fault::Node);
    assert_eq!(fault(connect(&url).await.map(drop)), Fault::NotSent, "refused");
    let encrypted = format!("{}?sslmode=require", cluster.primary().url());
    assert_eq!(fault(connect(&encrypted).await.map(drop)), Fault::NotSent, "speaks no TLS");

    let pid: i32 = primary.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let other = client(cluster.primary()).await;
    let sleep = primary.batch_execute("select pg_sleep(30)");
    let terminate = async {
        let sql = "select pg_terminate_backend($1) from pg_stat_activity
                   where pid = $1 and wait_event = 'PgSleep'";
        while other.execute(sql, &[&pid]).await.unwrap() == 0 {}
    };
    let (slept, ()) = tokio::join!(sleep, terminate);
    assert_eq!(fault(slept), Fault::Node);
}
