//! What can go wrong when a real server is started, disturbed or asked.

use std::io;
use std::time::Duration;

/// A failure of a server, of one of its tools or of the machine it runs on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not installed.
    #[error("{binary} not found: install the Debian package {package}")]
    MissingBinary {
        /// The program that was looked for.
        binary: String,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// A server did not answer in time; it has been stopped.
    #[error("{server} did not answer within {} s; its log ends with:\n{log}", waited.as_secs())]
    StartTimeout {
        /// The server's name.
        server: String,
        /// How long it was waited for.
        waited: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// A server ended by itself while it was waited for.
    #[error("{server} ended with {status}; its log ends with:\n{log}")]
    Exited {
        /// The server's name.
        server: String,
        /// How it ended, as the system says it.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// A helper program (`initdb`, `psql`, `pg_rewind`, ..) failed.
    #[error("{tool} ended with {status}:\n{output}")]
    Tool {
        /// The program.
        tool: String,
        /// How it ended, as the system says it.
        status: String,
        /// The last lines it wrote to its standard error.
        output: String,
    },
    /// Something was waited for and did not come.
    #[error("waited {} s in vain for {awaited}", waited.as_secs())]
    Timeout {
        /// What was waited for.
        awaited: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The server must run for this, and does not.
    #[error("{server} is not running")]
    NotRunning {
        /// The server's name.
        server: String,
    },
    /// The server must be down for this, and runs.
    #[error("{server} is running already")]
    Running {
        /// The server's name.
        server: String,
    },
    /// A call of the operating system failed.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Whether a program is not installed; the message names the Debian package.
    #[must_use]
    pub fn is_missing_binary(&self) -> bool {
        matches!(self, Self::MissingBinary { .. })
    }

    /// Whether something took longer than it was given.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::StartTimeout { .. } | Self::Timeout { .. })
    }

    /// Whether the server found its port taken, so that another port may do.
    pub(crate) fn is_port_taken(&self) -> bool {
        let (Self::Exited { log, .. } | Self::StartTimeout { log, .. }) = self else {
            return false;
        };
        let log = log.to_lowercase();
        log.contains("address already in use") || log.contains("eaddrinuse")
    }

    /// Wraps an I/O error with what was tried.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
