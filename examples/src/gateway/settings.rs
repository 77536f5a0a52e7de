//! The command line: where the file is, and whether it is only to be checked.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

/// A reverse proxy that balances, splits and moves traffic, by routes from a TOML file.
///
/// SIGHUP reads the file again; SIGTERM ends it once the open requests are done.
#[derive(Clone, Debug, Parser)]
#[command(name = "gateway", version, next_line_help = false)]
pub struct Settings {
    /// The file with listener, groups of servers and routes.
    #[arg(long, env = "GATEWAY_CONFIG", value_name = "FILE", default_value = "gateway.toml")]
    pub config: PathBuf,
    /// Read the file, say what is wrong with it, and end.
    #[arg(long)]
    pub check: bool,
}

impl Settings {
    /// Reads arguments and environment.
    ///
    /// # Errors
    /// clap's, whose text names option, value and rule (also holds `--help` and `--version`).
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }
}
