//! What a machine without the servers is told.

use super::*;
use crate::{Nats, NginxBuilder, PatroniCluster, PgBouncer, PgBuilder, RabbitMq, RedisBuilder};

fn nowhere() -> Search {
    Search { folders: vec![PathBuf::from("/nonexistent")] }
}

#[test]
fn a_program_is_found_where_it_is_executable() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ls"), "not executable").unwrap();
    let search = Search::default().first_in(dir.path().to_owned());
    let found = search.find("ls", "coreutils").unwrap();
    assert!(found.is_file() && !found.starts_with(dir.path()), "{}", found.display());
}

#[tokio::test]
async fn a_missing_server_names_its_debian_package() {
    let missing = [
        PgBuilder::default().search(nowhere()).start().await.err(),
        RedisBuilder::default().search(nowhere()).start().await.err(),
        Nats::start_from(nowhere()).await.err(),
        RabbitMq::start_from(nowhere()).await.err(),
        NginxBuilder::default().search(nowhere()).start().await.err(),
        PgBouncer::builder(crate::ports::loopback(1)).search(nowhere()).start().await.err(),
        PatroniCluster::start_from(3, nowhere()).await.err(),
    ];
    let messages = missing.map(|error| {
        let error = error.expect("nothing can start");
        assert!(error.is_missing_binary());
        error.to_string()
    });
    assert_eq!(
        messages,
        [
            "postgres not found: install the Debian package postgresql",
            "redis-server not found: install the Debian package redis-server",
            "nats-server not found: install the Debian package nats-server",
            "rabbitmq-server not found: install the Debian package rabbitmq-server",
            "nginx not found: install the Debian package nginx",
            "pgbouncer not found: install the Debian package pgbouncer",
            "patroni not found: install the Debian package patroni",
        ]
    );
}
