//! The System V segment that a killed PostgreSQL server leaves in the system.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process;
use crate::search::Search;

/// Frees the segment of the server that was killed on this data folder.
///
/// PostgreSQL holds 56 bytes per server to notice a second one on the same data. One that ends by
/// itself frees them; the system admits 4096 segments, so those of killed ones must not pile up.
pub(crate) fn free(data: &Path) {
    let pid_file = data.join("postmaster.pid");
    let Ok(lines) = fs::read_to_string(&pid_file) else { return };
    // Line 7 is the key and the id of the segment; it is missing early in a start.
    let id = lines.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
    if let Some(id) = id
        && let Ok(ipcrm) = Search::default().find("ipcrm", "util-linux")
    {
        // A segment that stays is no reason to fail a test.
        let _ = process::run("ipcrm", Command::new(ipcrm).args(["-m", id]));
    }
    // By the time of a second call the id may be that of another segment.
    let _ = fs::remove_file(pid_file);
}
