//! Why a server cannot be used.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// A cause of any type.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a server cannot be used.
///
/// [`source`](Error::source) is the cause: the driver's [`Error`](tokio_postgres::Error) with what
/// the server said, an [`io::Error`] of the socket or of TLS, or a few words. No password is in any
/// of them.
#[derive(Debug)]
pub struct ServerError {
    /// Address and name, as far as they are known.
    server: String,
    cause: BoxError,
}

/// What the driver does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is a standby")]
    Standby,
    #[error("it is no standby")]
    Primary,
    #[error("its sessions are read-only")]
    ReadOnly,
    #[error("its sessions are not read-only")]
    ReadWrite,
    #[error("it offers no TLS")]
    NoTls,
    #[error("it has no address")]
    NoAddress,
}

impl ServerError {
    pub(super) fn new(server: impl fmt::Display, cause: impl Into<BoxError>) -> Self {
        Self { server: server.to_string(), cause: cause.into() }
    }

    pub(super) fn silent(server: impl fmt::Display, waited: Duration) -> Self {
        let words = format!("it did not answer within {waited:?}");
        Self::new(server, io::Error::new(io::ErrorKind::TimedOut, words))
    }

    fn refusal(&self) -> Option<Refusal> {
        self.cause.downcast_ref().copied()
    }

    /// Other servers of the same string will say the same, as libpq sees it too: role, password or
    /// database are wrong. Trying them all would only count as more attempts to break in.
    pub(super) fn is_final(&self) -> bool {
        let code = self.cause.downcast_ref().and_then(tokio_postgres::Error::code);
        code.is_some_and(|code| {
            code.code().starts_with("28") || *code == SqlState::UNDEFINED_DATABASE
        })
    }

    /// Nothing changes by itself: how we come to the server, or as whom, is wrong.
    pub(crate) fn is_lasting(&self) -> bool {
        if let Some(error) = self.cause.downcast_ref::<tokio_postgres::Error>() {
            // Without a code and without a socket at fault, the driver did not accept the server.
            let io = error.source().is_some_and(|cause| cause.is::<io::Error>());
            return self.is_final() || error.code().is_none() && !error.is_closed() && !io;
        }
        // TLS calls by this kind what it does not accept of the peer.
        let kind = self.cause.downcast_ref().map(io::Error::kind);
        self.refusal() == Some(Refusal::NoTls) || kind == Some(io::ErrorKind::InvalidData)
    }

    /// The one of two failures that tells more, the later of equals.
    pub(super) fn worse(first: Option<Self>, second: Self) -> Self {
        match first {
            Some(first) if first.rank() > second.rank() => first,
            _ => second,
        }
    }

    /// A server that answers tells more than one that cannot be reached; that one of several has
    /// another role tells least.
    fn rank(&self) -> u8 {
        match self.refusal() {
            Some(Refusal::Standby | Refusal::Primary | Refusal::ReadOnly | Refusal::ReadWrite) => 1,
            Some(Refusal::NoAddress) => 0,
            Some(Refusal::NoTls) => 4,
            None if self.cause.is::<tokio_postgres::Error>() => 5,
            None => match self.cause.downcast_ref().map(io::Error::kind) {
                // Of the TLS library: a bad certificate.
                Some(io::ErrorKind::InvalidData) => 4,
                Some(io::ErrorKind::TimedOut) => 2,
                _ => 3,
            },
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server at {} cannot be used", self.server)
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}
