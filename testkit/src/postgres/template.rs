//! The data folder that every node is a copy of, made once per machine, user and version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::postgres::tools::Tools;
use crate::run_dir;

/// Changes when what a template holds changes, so that an older one is not used.
const FORMAT: u32 = 1;

/// What `initdb` leaves out: standbys may stream without a password from this machine.
const REPLICATION: &str = "host replication all 127.0.0.1/32 trust\n";

/// The folder of the template, made now if this machine has none yet.
///
/// Several processes may come at once: one makes it, the others wait for its lock. It appears
/// under its final name only when it is whole, so a test that is killed leaves no half of one.
pub(crate) fn folder(tools: &Tools) -> Result<PathBuf, Error> {
    let base = run_dir::base().map_err(Error::io("create a temporary folder"))?;
    let name = format!("postgres-{}-format-{FORMAT}", tools.version()?);
    let parent = base.join(&name);
    let template = parent.join("data");
    if parent.exists() {
        return Ok(template);
    }
    let failed = || Error::io(format!("make the template {}", parent.display()));
    let _lock = run_dir::lock(&base.join(format!("{name}.lock"))).map_err(failed())?;
    if parent.exists() {
        return Ok(template);
    }
    let draft = base.join(format!("{name}.draft"));
    clear(&draft).map_err(failed())?;
    make(tools, &draft)?;
    fs::rename(&draft, &parent).map_err(failed())?;
    Ok(template)
}

/// Makes a data folder in a new folder: one with a `system_identifier` of its own.
pub(crate) fn make(tools: &Tools, parent: &Path) -> Result<PathBuf, Error> {
    let failed = || Error::io(format!("make {}", parent.display()));
    fs::create_dir(parent).and_then(|()| tools.account().own(parent)).map_err(failed())?;
    let data = parent.join("data");
    tools.initdb(&data)?;
    tools.shrink(&data)?;
    let access = data.join("pg_hba.conf");
    let mut rules = fs::read_to_string(&access).map_err(failed())?;
    rules.push_str(REPLICATION);
    fs::write(&access, rules).map_err(failed())?;
    Ok(data)
}

/// Removes what a killed test left of its draft.
fn clear(draft: &Path) -> io::Result<()> {
    match fs::remove_dir_all(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
