//! The memory in which Patroni's members agree on their leader.

use std::path::Path;

use crate::Error;
use crate::account::Account;
use crate::greeting;
use crate::ports;
use crate::search::Search;
use crate::server::{Plan, Server, guarded};
use crate::wait;

/// Starts an etcd of one member on free ports; its files go into the folder.
pub(super) fn start(search: &Search, dir: &Path) -> Result<Server, Error> {
    let program = search.find("etcd", "etcd-server")?;
    let peers = format!("http://{}", ports::loopback(ports::free()?));
    let server = Server::start_on_free_port(|port| {
        let clients = format!("http://{}", ports::loopback(port));
        let (search, program) = (search.clone(), program.clone());
        let (folder, peers) = (dir.to_owned(), peers.clone());
        Plan {
            name: "etcd".to_owned(),
            addr: ports::loopback(port),
            log: dir.join("etcd.log"),
            patience: wait::PATIENCE,
            greeting: greeting::etcd,
            command: Box::new(move || {
                let mut command = guarded(&search, Account::Own, &program)?;
                command.current_dir(&folder).arg("--data-dir").arg(folder.join("etcd"));
                command.args(["--name", "etcd", "--unsafe-no-fsync"]);
                command.args(["--listen-client-urls", &clients]);
                command.args(["--advertise-client-urls", &clients]);
                command.args(["--listen-peer-urls", &peers]);
                command.args(["--initial-advertise-peer-urls", &peers]);
                command.arg("--initial-cluster").arg(format!("etcd={peers}"));
                Ok(command)
            }),
        }
    })?;
    Ok(server)
}
