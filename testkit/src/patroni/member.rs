//! One member: a Patroni, and the PostgreSQL that it starts, stops and promotes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::greeting;
use crate::ports;
use crate::postgres::tools::Tools;
use crate::run_dir;
use crate::search::Search;
use crate::server::{Plan, Server, guarded};
use crate::shared_memory;
use crate::wait;

/// A member of a [`PatroniCluster`](crate::PatroniCluster).
#[derive(Debug)]
pub struct PatroniMember {
    /// Patroni, known by the address of its REST interface.
    server: Server,
    tools: Tools,
    addr: SocketAddr,
    data: PathBuf,
}

impl PatroniMember {
    /// The name that Patroni knows it by: `n0`, `n1`, ..
    #[must_use]
    pub fn name(&self) -> &str {
        self.server.name()
    }

    /// Where its PostgreSQL listens; it stays the same over restarts.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`: a superuser, no password, no TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.addr)
    }

    /// `http://127.0.0.1:PORT`, Patroni's REST interface.
    #[must_use]
    pub fn rest_url(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    pub(super) fn new(
        search: &Search,
        patroni: &Path,
        tools: &Tools,
        dir: &Path,
        i: usize,
        etcd: SocketAddr,
    ) -> Result<Self, Error> {
        let program = patroni.to_owned();
        let (name, addr) = (format!("n{i}"), ports::loopback(ports::free()?));
        let rest = ports::loopback(ports::free()?);
        let (data, file) = (dir.join(&name), dir.join(format!("{name}.yml")));
        let text = configuration(&name, rest, etcd, addr, &data, tools);
        let failed = Error::io(format!("write {}", file.display()));
        fs::write(&file, text).and_then(|()| tools.account().own(&file)).map_err(failed)?;
        let (runner, account, folder) = (search.clone(), tools.account(), dir.to_owned());
        let server = Server::new(Plan {
            name,
            addr: rest,
            log: dir.join(format!("n{i}.log")),
            patience: wait::PATIENCE,
            greeting: greeting::patroni,
            command: Box::new(move || {
                let mut command = guarded(&runner, account, &program)?;
                command.current_dir(&folder).env("HOME", &folder).arg(&file);
                Ok(command)
            }),
        });
        Ok(Self { server, tools: tools.clone(), addr, data })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn sql(&self, text: &str) -> Result<String, Error> {
        self.tools.sql(self.addr.port(), text)
    }

    /// Whether Patroni says that this is the primary, and PostgreSQL does: it takes a moment to be
    /// promoted.
    pub(super) fn leads(&self) -> bool {
        self.says("/primary") && self.answers("select pg_is_in_recovery()", "f")
    }

    /// Waits until the member leads, or streams from the one that does.
    pub(super) fn await_running(&self, patience: Duration) -> Result<(), Error> {
        let streams = || {
            let query = "select count(*) from pg_stat_wal_receiver where status = 'streaming'";
            self.says("/replica") && self.answers(query, "1")
        };
        if wait::until(patience, || Ok::<_, Error>(self.leads() || streams()))? {
            return Ok(());
        }
        Err(Error::Timeout { awaited: format!("{} to serve", self.name()), waited: patience })
    }

    /// Kills Patroni, then PostgreSQL, whose parent it no longer is.
    pub(super) fn kill(&self) -> Result<(), Error> {
        self.server.kill()?;
        let ended = || run_dir::kill_inhabitants(&self.data).map(|alive| alive == 0);
        if !wait::until(wait::PATIENCE, ended).map_err(Error::io("kill PostgreSQL"))? {
            let awaited = format!("the end of PostgreSQL of {}", self.name());
            return Err(Error::Timeout { awaited, waited: wait::PATIENCE });
        }
        shared_memory::free(&self.data);
        Ok(())
    }

    fn answers(&self, query: &str, wanted: &str) -> bool {
        self.sql(query).is_ok_and(|answer| answer == wanted)
    }

    fn says(&self, path: &str) -> bool {
        greeting::http_status(self.server.addr(), path).is_ok_and(|status| status == 200)
    }
}

/// The shortest times that Patroni takes, so that a failover is over in seconds; the rest as in
/// [`PgCluster`](crate::PgCluster).
fn configuration(
    name: &str,
    rest: SocketAddr,
    etcd: SocketAddr,
    postgres: SocketAddr,
    data: &Path,
    tools: &Tools,
) -> String {
    let (data, programs) = (data.display(), tools.folder().display());
    format!(
        "\
scope: escala
name: {name}
restapi: {{listen: '{rest}', connect_address: '{rest}'}}
etcd3: {{host: '{etcd}'}}
bootstrap:
  dcs:
    ttl: 5
    loop_wait: 1
    retry_timeout: 3
    postgresql:
      use_pg_rewind: true
      use_slots: false
      parameters: {{wal_log_hints: 'on', wal_keep_size: 64MB, max_connections: 120}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}, {{auth: trust}}, no-sync, {{wal-segsize: '1'}}]
postgresql:
  listen: '{postgres}'
  connect_address: '{postgres}'
  data_dir: '{data}'
  bin_dir: '{programs}'
  pgpass: '{data}.pgpass'
  authentication:
    superuser: {{username: postgres}}
    replication: {{username: postgres}}
    rewind: {{username: postgres}}
  pg_hba:
  - host all all 127.0.0.1/32 trust
  - host replication all 127.0.0.1/32 trust
  basebackup: [no-sync, {{checkpoint: fast}}]
  parameters:
    unix_socket_directories: ''
    shared_buffers: 16MB
    fsync: 'off'
    autovacuum: 'off'
    min_wal_size: 8MB
    max_wal_size: 64MB
    wal_retrieve_retry_interval: 200ms
    wal_receiver_timeout: 5s
    wal_sender_timeout: 5s
"
    )
}
