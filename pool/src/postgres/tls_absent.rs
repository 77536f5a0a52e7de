//! TLS as it is without the feature `tls`: there is none.

use std::io;

use super::settings::{SslMode, TlsSettings};
use super::socket::Socket;
use super::stream::Stream;
use crate::config::ConfigError;

/// Nobody has one.
#[derive(Clone)]
pub(super) enum Tls {}

impl Tls {
    /// `None` where the connection string can do without.
    pub(super) fn new(settings: &TlsSettings) -> Result<Option<Self>, ConfigError> {
        if settings.mode < SslMode::Require {
            return Ok(None);
        }
        Err(ConfigError::new("url", "sslmode", "needs the feature `tls` of this crate"))
    }

    #[expect(clippy::unused_async, reason = "as its counterpart")]
    pub(super) async fn encrypt(&self, _socket: Socket, _name: &str) -> io::Result<Stream> {
        match *self {}
    }
}
