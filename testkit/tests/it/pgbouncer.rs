//! A PgBouncer in front of a PostgreSQL server.

use testkit::{PgBouncer, PgCluster};
use tokio_postgres::NoTls;

#[tokio::test]
async fn clients_share_the_sessions_of_the_server() {
    let pg = PgCluster::start(0).await.unwrap();
    let bouncer = PgBouncer::builder(pg.primary().addr()).start().await.unwrap();
    assert!(bouncer.pid().is_some());
    let mut backends = Vec::new();
    for _ in 0..2 {
        let (client, connection) = tokio_postgres::connect(&bouncer.url(), NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let rows = client.simple_query("select pg_backend_pid()").await.unwrap();
        backends.extend(rows.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }));
        drop(client);
        connection.await.unwrap().unwrap();
    }
    assert_eq!(backends.len(), 2);
    assert_eq!(backends[0], backends[1]);
}
