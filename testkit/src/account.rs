//! Who the servers run as: PostgreSQL refuses to run as root.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::Error;

/// The account that owns the data and runs the programs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Account {
    /// Whoever runs the tests.
    Own,
    /// The tests run as root: these ids instead.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// The account for PostgreSQL: the own one, or `postgres` (which the Debian package
    /// creates) for root.
    pub(crate) fn for_postgres() -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        let table = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
        table.lines().find_map(postgres_ids).ok_or_else(|| {
            let why = io::Error::new(io::ErrorKind::NotFound, "no user postgres");
            Error::io("drop the rights of root")(why)
        })
    }

    /// Adds the options of `setpriv` that change to this account.
    pub(crate) fn apply(self, setpriv: &mut Command) {
        if let Self::Other { uid, gid } = self {
            setpriv.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
            setpriv.args(["--clear-groups", "--no-new-privs"]);
        }
    }

    /// Hands a file or folder over to this account.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid)),
        }
    }
}

/// The ids in a line of `/etc/passwd` (`name:password:uid:gid:..`) if it is that of `postgres`.
fn postgres_ids(line: &str) -> Option<Account> {
    let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
    Some(Account::Other { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}
