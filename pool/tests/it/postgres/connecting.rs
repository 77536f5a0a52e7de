//! Hosts, addresses, roles: where a connection goes, and why it does not.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use escala_pool::{PgPool, PoolConfig, PoolError};
use testkit::{FaultProxy, PgCluster};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::{backend, chain, cluster};

/// A socket at whose address nobody listens, as long as it is held.
pub(super) fn nobody() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

/// The port of the server that a pool reaches.
async fn reached(url: &str) -> Result<String, PoolError> {
    let pool = PgPool::connect(PoolConfig::new(url).max_size(1).min_idle(0)).await?;
    Ok(pool.query_one("select current_setting('port')", &[]).await?.get(0))
}

#[tokio::test]
async fn hosts_are_tried_in_turn_until_one_answers() {
    let pg = cluster().await;
    let nobody = nobody();
    let (addr, dead) = (pg.primary().addr(), nobody.local_addr().unwrap());
    let port = addr.port().to_string();
    let found = reached(&format!("postgres://postgres@{dead},{addr}/postgres")).await.unwrap();
    assert_eq!(found, port);
    let pairs = format!(
        "user=postgres host=first.invalid,second.invalid hostaddr=127.0.0.1,127.0.0.1 \
         port={},{port} load_balance_hosts=random",
        dead.port()
    );
    assert_eq!(reached(&pairs).await.unwrap(), port);
    // One that accepts and never answers keeps no more than its share of the time.
    let silent = FaultProxy::start(addr).await.unwrap();
    silent.blackhole(true);
    let url = format!("postgres://postgres@{},{addr}/postgres", silent.addr());
    assert_eq!(reached(&url).await.unwrap(), port);
    let url = format!(
        "postgres://postgres@{addr}/postgres?connect_timeout=1&host=127.0.0.1,127.0.0.1&port={},{port}",
        silent.addr().port()
    );
    let began = Instant::now();
    assert_eq!(reached(&url).await.unwrap(), port);
    assert!(began.elapsed() < Duration::from_millis(2_400), "half of five seconds");
}

#[tokio::test]
async fn the_error_is_that_of_the_server_that_tells_most() {
    let pg = cluster().await;
    let nobody = nobody();
    let (addr, dead) = (pg.primary().addr(), nobody.local_addr().unwrap());
    for (url, telling) in [
        (format!("postgres://postgres@{addr},{dead}/missing"), "3D000"),
        (format!("postgres://nobody@{dead},{addr}/postgres"), "28000"),
    ] {
        let began = Instant::now();
        let error = reached(&url).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(telling), "{}", chain(&error));
        assert!(chain(&error).contains(&addr.to_string()), "{}", chain(&error));
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    let error = reached(&format!("postgres://postgres@{dead}/postgres")).await.unwrap_err();
    assert!(chain(&error).contains("refused") && error.is_connection(), "{}", chain(&error));
    let error = reached("postgres://postgres@nowhere.invalid/postgres").await.unwrap_err();
    assert!(chain(&error).contains("nowhere.invalid:5432"), "{}", chain(&error));
}

#[tokio::test]
async fn the_role_of_the_server_decides() {
    let pg = PgCluster::start(1).await.unwrap();
    let (primary, standby) = (pg.primary(), pg.standby(0));
    let hosts = format!("{},{}", standby.addr(), primary.addr());
    let ports = (primary.port().to_string(), standby.port().to_string());
    let attrs = |hosts: &str, attrs: &str| {
        format!("postgres://postgres@{hosts}/postgres?target_session_attrs={attrs}")
    };
    for (role, port) in [
        ("any", &ports.1),
        ("primary", &ports.0),
        ("read-write", &ports.0),
        ("standby", &ports.1),
        ("read-only", &ports.1),
        ("prefer-standby", &ports.1),
    ] {
        assert_eq!(&reached(&attrs(&hosts, role)).await.unwrap(), port, "{role}");
    }
    let alone = primary.addr().to_string();
    assert_eq!(reached(&attrs(&alone, "prefer-standby")).await.unwrap(), ports.0);
    let error = reached(&attrs(&alone, "standby")).await.unwrap_err();
    assert!(chain(&error).contains("it is no standby"), "{}", chain(&error));
    let error = reached(&attrs(&standby.addr().to_string(), "read-write")).await.unwrap_err();
    assert!(chain(&error).contains("it is a standby"), "{}", chain(&error));
    let read_only = "alter database postgres set default_transaction_read_only = on";
    pg.sql(primary, read_only).await.unwrap();
    let error = reached(&attrs(&alone, "read-write")).await.unwrap_err();
    assert!(chain(&error).contains("read-only"), "{}", chain(&error));
    assert_eq!(reached(&attrs(&alone, "read-only")).await.unwrap(), ports.0);
}

#[tokio::test]
async fn a_primary_serves_who_prefers_a_standby_that_is_down() {
    let pg = cluster().await;
    let nobody = nobody();
    let (addr, dead) = (pg.primary().addr(), nobody.local_addr().unwrap());
    let silent = FaultProxy::start(addr).await.unwrap();
    silent.blackhole(true);
    for hosts in
        [format!("{addr},{dead}"), format!("{dead},{addr}"), format!("{addr},{}", silent.addr())]
    {
        let url =
            format!("postgres://postgres@{hosts}/postgres?target_session_attrs=prefer-standby");
        let config = PoolConfig::new(url).max_size(1).min_idle(0);
        let pool = PgPool::connect(config.connect_timeout(Duration::from_secs(8))).await.unwrap();
        assert!(backend(&pool).await > 0, "{hosts}");
    }
}

#[tokio::test]
async fn a_unix_socket_serves_and_cancels() {
    let folder = tempfile::tempdir().unwrap();
    // The server may run as another user.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().to_str().unwrap();
    let builder = PgCluster::builder().setting("unix_socket_directories", path);
    let pg = builder.start().await.unwrap();
    let port = pg.primary().port();
    for url in [
        format!("host={path} port={port} user=postgres dbname=postgres"),
        format!("postgres://postgres@{}:{port}/postgres", path.replace('/', "%2F")),
        // There is no TLS to require.
        format!("postgres:///postgres?user=postgres&host={path}&port={port}"),
    ] {
        let pool = PgPool::connect(PoolConfig::new(url).max_size(1).min_idle(0)).await.unwrap();
        let process = backend(&pool).await;
        let sleeping = pool.query("select pg_sleep(60)", &[]);
        assert!(timeout(Duration::from_millis(100), sleeping).await.is_err());
        assert_eq!(backend(&pool).await, process);
        let client =
            "select client_addr is null from pg_stat_activity where pid = pg_backend_pid()";
        assert!(pool.query_one(client, &[]).await.unwrap().get::<_, bool>(0));
    }
}

#[tokio::test]
async fn a_connection_apart_has_the_settings_of_the_pool_and_is_none_of_its_own() {
    let pg = cluster().await;
    let config = PoolConfig::new(pg.primary().url()).max_size(1).application_name("apart");
    let pool = PgPool::connect(config.statement_timeout(Duration::from_secs(7))).await.unwrap();
    let lease = pool.acquire().await.unwrap();
    let before = pool.stats();
    let client = pool.connect_apart().await.unwrap();
    for (setting, value) in [("application_name", "apart"), ("statement_timeout", "7s")] {
        let row = client.query_one(&format!("show {setting}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value);
    }
    assert_eq!(
        (pool.stats().size, pool.stats().connects_total),
        (before.size, before.connects_total)
    );
    drop(client);
    let sessions = "select count(*) from pg_stat_activity where application_name = 'apart'";
    while lease.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) > 1 {}
    pg.stop(pg.primary()).await.unwrap();
    let error = pool.connect_apart().await.unwrap_err();
    assert!(matches!(error, PoolError::Connect(_)) && error.is_connection(), "{error:?}");
}

/// Stands before a server as one before PostgreSQL 14 would look: it does not tell its role. Whatever
/// is asked for it is never answered. Sends a word when a question was met, and one when its client
/// has gone.
async fn tells_no_role(
    server: SocketAddr,
    told: mpsc::UnboundedSender<&'static str>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut upstream, told) = (TcpStream::connect(server).await.unwrap(), told.clone());
            tokio::spawn(async move {
                let (mut asked, mut answer) = (vec![0; 4096], vec![0; 4096]);
                loop {
                    tokio::select! {
                        read = client.read(&mut asked) => {
                            let read = read.unwrap_or(0);
                            if read == 0 {
                                break;
                            }
                            // A simple query; the handshake before it has no letter or another.
                            if asked[0] == b'Q' {
                                told.send("asked").unwrap();
                                continue;
                            }
                            upstream.write_all(&asked[..read]).await.unwrap();
                        }
                        read = upstream.read(&mut answer) => {
                            let Ok(read @ 1..) = read else { break };
                            for name in [&b"in_hot_standby"[..], b"default_transaction_read_only"] {
                                let ends = answer[..read].windows(name.len());
                                if let Some(at) = ends.clone().position(|part| part == name) {
                                    answer[at] = b'x';
                                }
                            }
                            client.write_all(&answer[..read]).await.unwrap();
                        }
                    }
                }
                told.send("gone").unwrap();
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_connect_that_ends_while_it_asks_for_the_role_leaves_nothing_behind() {
    let pg = cluster().await;
    let (told, mut tells) = mpsc::unbounded_channel();
    let addr = tells_no_role(pg.primary().addr(), told).await;
    let url = format!("postgres://postgres@{addr}/postgres?target_session_attrs=primary");
    let config = PoolConfig::new(url).max_size(1).min_idle(0);
    let config = config.connect_timeout(Duration::from_secs(3));
    let error = PgPool::connect(config).await.unwrap_err();
    assert!(error.is_connection() && error.is_timeout(), "{}", chain(&error));
    // The task that moves the bytes waits for an answer, and would do so for ever.
    let told = timeout(Duration::from_secs(30), async { (tells.recv().await, tells.recv().await) });
    assert_eq!(told.await.unwrap(), (Some("asked"), Some("gone")));
}
