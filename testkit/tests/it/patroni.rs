//! A Patroni cluster: its start, a failover, the return of the old leader, its end.

use testkit::{PatroniCluster, PatroniMember};

#[tokio::test]
async fn a_dead_leader_is_replaced_and_comes_back_as_a_replica() {
    let cluster = PatroniCluster::start(3).await.unwrap();
    let first = cluster.leader(&[]).await.unwrap();
    assert_eq!(cluster.member(first).name(), format!("n{first}"));
    cluster.sql(first, "create table t (id int)").await.unwrap();
    // Replication is asynchronous: what no replica has got dies with the leader.
    for replica in (0..3).filter(|member| *member != first) {
        while cluster.sql(replica, "select count(*) from t").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    cluster.kill(first).await.unwrap();
    tokio::net::TcpStream::connect(cluster.member(first).addr()).await.unwrap_err();
    let second = cluster.leader(&[first]).await.unwrap();
    cluster.sql(second, "insert into t values (1)").await.unwrap();

    cluster.restart(first).await.unwrap();
    assert_eq!(cluster.leader(&[]).await.unwrap(), second);
    assert_eq!(cluster.sql(first, "select pg_is_in_recovery()").await.unwrap(), "t");
}

#[tokio::test]
async fn dropping_a_cluster_ends_what_patroni_started() {
    let cluster = PatroniCluster::start(1).await.unwrap();
    let (postgres, rest) = (cluster.member(0).addr(), cluster.member(0).rest_url());
    let rest = rest.strip_prefix("http://").unwrap();
    assert!(PatroniMember::url(cluster.member(0)).contains(&postgres.to_string()));
    tokio::net::TcpStream::connect(rest).await.unwrap();
    drop(cluster);
    tokio::net::TcpStream::connect(postgres).await.unwrap_err();
    tokio::net::TcpStream::connect(rest).await.unwrap_err();
}
