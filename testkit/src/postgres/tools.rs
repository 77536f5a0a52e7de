//! The programs of one PostgreSQL installation, run as the right account.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;
use crate::account::Account;
use crate::process;
use crate::search::Search;
use crate::server;

/// The Debian package of the server and its tools.
const PACKAGE: &str = "postgresql";

/// Where Debian keeps one folder per major version, none of them in `PATH`.
const VERSIONS: &str = "/usr/lib/postgresql";

/// An installation of PostgreSQL.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    search: Search,
    account: Account,
    server: PathBuf,
}

impl Tools {
    /// Takes the server in the search path, or else Debian's newest, and its own tools.
    pub(crate) fn find(search: &Search) -> Result<Self, Error> {
        let server = search.find("postgres", PACKAGE)?;
        // Through links to the installation: in PATH, Debian's `psql` is a slow wrapper, and
        // a tool of another version would not understand the data.
        let server = server.canonicalize().map_err(Error::io("resolve the path of postgres"))?;
        let folder = server.parent().map(Path::to_owned).unwrap_or_default();
        let search = search.clone().first_in(folder);
        Ok(Self { search, account: Account::for_postgres()?, server })
    }

    pub(crate) fn account(&self) -> Account {
        self.account
    }

    /// Where the programs of this installation are.
    pub(crate) fn folder(&self) -> &Path {
        self.server.parent().unwrap_or(Path::new("/"))
    }

    /// The version in full, such as `15.18`.
    pub(crate) fn version(&self) -> Result<String, Error> {
        let text = process::run("postgres", Command::new(&self.server).arg("--version"))?;
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
        Ok(text.split_whitespace().nth(2).unwrap_or("unknown").to_owned())
    }

    /// The command that runs a server on a data folder in the foreground.
    pub(crate) fn postgres(&self, data: &Path) -> Result<Command, Error> {
        let mut command = self.command(&self.server)?;
        command.current_dir(data).arg("-D").arg(data);
        Ok(command)
    }

    /// Makes a data folder whose superuser `postgres` needs no password from this machine.
    pub(crate) fn initdb(&self, data: &Path) -> Result<(), Error> {
        // 1 MB segments of WAL make a node 28 MB instead of 75 MB.
        let options = ["--username=postgres", "--auth=trust", "--no-sync", "--no-instructions"];
        let format = ["--wal-segsize=1", "--encoding=UTF8", "--locale=C"];
        let initdb = self.search.find("initdb", PACKAGE)?;
        let mut command = self.command(&initdb)?;
        command.args(options).args(format).arg("-D").arg(data);
        process::run("initdb", &mut command).map(drop)
    }

    /// Records the smallest sizes in a fresh data folder.
    ///
    /// A standby does not start with smaller sizes than its data was last used with, and
    /// `initdb` uses 100 connections: without this, no cluster could have fewer.
    pub(crate) fn shrink(&self, data: &Path) -> Result<(), Error> {
        let mut command = self.command(&self.server)?;
        command.arg("--single").arg("-D").arg(data).args(["-c", "max_connections=4"]);
        command.args(["-c", "max_wal_senders=0", "-c", "max_worker_processes=0"]);
        command.args(["-c", "max_locks_per_transaction=10", "-c", "fsync=off", "postgres"]);
        process::run("postgres", command.stdin(Stdio::null())).map(drop)
    }

    /// Copies a data folder as its owner.
    pub(crate) fn copy(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let mut command = self.command(&self.search.find("cp", "coreutils")?)?;
        command.arg("-a").arg(from).arg(to);
        process::run("cp", &mut command).map(drop)
    }

    /// Turns the stopped old data folder back to where it and the source parted.
    pub(crate) fn rewind(&self, data: &Path, source_port: u16) -> Result<(), Error> {
        let mut command = self.command(&self.search.find("pg_rewind", PACKAGE)?)?;
        command.arg("--no-sync").arg("-D").arg(data).arg(format!(
            "--source-server=host=127.0.0.1 port={source_port} user=postgres dbname=postgres"
        ));
        process::run("pg_rewind", &mut command).map(drop)
    }

    /// Runs SQL by `psql`; the rows come back as lines, their columns parted by `|`.
    pub(crate) fn sql(&self, port: u16, text: &str) -> Result<String, Error> {
        let psql = self.search.find("psql", "postgresql-client")?;
        let mut command = self.command(&psql)?;
        command.env("PGCONNECT_TIMEOUT", "5").args(["-h", "127.0.0.1", "-U", "postgres"]);
        command.args(["-d", "postgres", "-XqAt", "-v", "ON_ERROR_STOP=1", "-p"]);
        command.arg(port.to_string()).arg("-c").arg(text);
        process::run("psql", &mut command).map(|output| output.trim_end().to_owned())
    }

    /// A command run as the account that owns the data.
    fn command(&self, program: &Path) -> Result<Command, Error> {
        server::guarded(&self.search, self.account, program)
    }
}

/// The folders of Debian's versions, the highest first.
pub(crate) fn version_folders() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(VERSIONS) else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, folder)| folder).collect()
}
