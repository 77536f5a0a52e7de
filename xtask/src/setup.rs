//! Installs what the tests need and the machine does not have.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::invocation::Invocation;
use crate::session::Session;

/// A Debian package, how to see that it is there, and why the tests want it.
struct Package {
    name: &'static str,
    binaries: &'static [&'static str],
    reason: &'static str,
}

/// Everything the tests need beyond Rust. A test that finds a binary missing fails and names
/// the package; it is never skipped.
const PACKAGES: [Package; 10] = [
    Package {
        name: "postgresql",
        binaries: &["initdb", "postgres", "pg_rewind", "psql"],
        reason: "pool, replicas and `thousand-users --database postgres` run against a primary \
                 with streaming standbys",
    },
    Package {
        name: "redis-server",
        binaries: &["redis-server"],
        reason: "cache runs its shared layer against a real Redis",
    },
    Package {
        name: "nats-server",
        binaries: &["nats-server"],
        reason: "testkit starts NATS with JetStream for the queue",
    },
    Package {
        name: "rabbitmq-server",
        binaries: &["rabbitmq-server"],
        reason: "testkit starts RabbitMQ for the queue",
    },
    Package {
        name: "nginx",
        binaries: &["nginx"],
        reason: "cache-proxy is measured beside its `proxy_cache`",
    },
    Package {
        name: "prometheus",
        binaries: &["promtool"],
        reason: "promtool judges what /metrics says",
    },
    Package {
        name: "pgbouncer",
        binaries: &["pgbouncer"],
        reason: "pool runs its unnamed statements through it, in transaction mode",
    },
    Package {
        name: "patroni",
        binaries: &["patroni"],
        reason: "replicas follows a PostgreSQL cluster that fails over by itself",
    },
    Package { name: "wrk", binaries: &["wrk"], reason: "cluster restarts servers under its load" },
    Package { name: "etcd-server", binaries: &["etcd"], reason: "Patroni keeps in it who leads" },
];

/// Who we are to apt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Root,
    Sudo,
    None,
}

pub(crate) fn run(session: &Session) -> anyhow::Result<()> {
    install_packages(session)?;
    if session.succeeds(&Invocation::new("cargo nextest --version")) {
        session.say("cargo-nextest is there");
        return Ok(());
    }
    session.say("cargo-nextest, which runs the tests, is missing: building it takes some minutes");
    session.run(&Invocation::new("cargo install --locked cargo-nextest"))
}

fn install_packages(session: &Session) -> anyhow::Result<()> {
    let absent = missing(&binary_folders(), Path::is_file);
    if absent.is_empty() {
        session.say("all servers are there");
        return Ok(());
    }
    for package in &absent {
        session.say(&format!("{} is missing: {}", package.name, package.reason));
    }
    let rights = rights(session);
    let commands = installation(rights, &absent, has_lists());
    if rights == Rights::None {
        let line = pasted(&commands);
        bail!("installing needs root or a sudo without password; run this yourself:\n  {line}");
    }
    let run_all = |commands: &[Invocation]| commands.iter().try_for_each(|c| session.run(c));
    if run_all(&commands).is_err() {
        // Old lists name files that the mirror no longer has.
        session.say("that failed; once more with fresh lists");
        run_all(&installation(rights, &absent, false))?;
    }
    let names: Vec<_> = missing(&binary_folders(), Path::is_file).iter().map(|p| p.name).collect();
    if !names.is_empty() {
        bail!("installed, and still without the expected binaries: {}", names.join(", "));
    }
    Ok(())
}

/// The packages of which some binary is in none of the folders.
fn missing(folders: &[PathBuf], exists: impl Fn(&Path) -> bool) -> Vec<&'static Package> {
    let found = |binary: &str| folders.iter().any(|folder| exists(&folder.join(binary)));
    PACKAGES.iter().filter(|package| !package.binaries.iter().copied().all(found)).collect()
}

/// `PATH`, and where Debian puts servers that it does not put into an ordinary user's `PATH`.
fn binary_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/bin", "/usr/lib/rabbitmq/bin"].map(PathBuf::from));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders
}

fn rights(session: &Session) -> Rights {
    if rustix::process::geteuid().is_root() {
        return Rights::Root;
    }
    // `-n` fails where a password would be asked for.
    if session.succeeds(&Invocation::new("sudo -n true")) { Rights::Sudo } else { Rights::None }
}

/// What installs the packages, after fetching apt's lists if there are none.
fn installation(rights: Rights, packages: &[&Package], has_lists: bool) -> Vec<Invocation> {
    // `env`, since sudo does not hand variables on.
    let sudo = if rights == Rights::Root { "" } else { "sudo" };
    let apt = format!("{sudo} env DEBIAN_FRONTEND=noninteractive apt-get");
    let install = Invocation::new(&format!("{apt} install -y --no-install-recommends"));
    let install = packages.iter().fold(install, |command, package| command.arg(package.name));
    let update = (!has_lists).then(|| Invocation::new(&format!("{apt} update")));
    update.into_iter().chain([install]).collect()
}

/// The commands as one line for a shell.
fn pasted(commands: &[Invocation]) -> String {
    commands.iter().map(ToString::to_string).collect::<Vec<_>>().join(" && ")
}

/// Whether apt has ever fetched its lists here; a fresh container has none.
fn has_lists() -> bool {
    let entries = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    entries.map(|e| e.file_name()).any(|name| name.to_string_lossy().contains("_Packages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(packages: &[&Package]) -> Vec<&'static str> {
        packages.iter().map(|p| p.name).collect()
    }

    #[test]
    fn a_package_is_missing_unless_all_its_binaries_are_there() {
        let folders = [PathBuf::from("/a"), PathBuf::from("/b")];
        assert_eq!(missing(&folders, |_| true).len(), 0);
        assert_eq!(missing(&folders, |_| false).len(), PACKAGES.len());
        let no_rewind = |path: &Path| path.starts_with("/b") && !path.ends_with("pg_rewind");
        assert_eq!(names(&missing(&folders, no_rewind)), ["postgresql"]);
        assert_eq!(missing(&[], |_| true).len(), PACKAGES.len());
    }

    #[test]
    fn the_install_line_can_be_pasted() {
        let packages: Vec<&Package> = PACKAGES.iter().take(2).collect();
        let line = |rights, has_lists| pasted(&installation(rights, &packages, has_lists));
        let apt = "env DEBIAN_FRONTEND=noninteractive apt-get";
        let install = format!("{apt} install -y --no-install-recommends postgresql redis-server");
        assert_eq!(line(Rights::Root, true), install);
        assert_eq!(line(Rights::Root, false), format!("{apt} update && {install}"));
        assert_eq!(line(Rights::None, true), format!("sudo {install}"));
    }
}
