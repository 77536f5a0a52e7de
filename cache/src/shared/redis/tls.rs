//! The certificates of a connection by TLS.

use std::fmt;
#[cfg(feature = "redis-tls")]
use std::io;

use super::config::Hidden;
use crate::config::{ConfigError, check};

/// Certificates for a connection to Redis by TLS.
///
/// Each is the path of a PEM file, read when the store connects, or the PEM text itself. The
/// server's certificate and name are always checked.
#[derive(Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RedisTls {
    /// The authorities that may have signed the server's certificate. Default: the system's.
    pub authority: Option<String>,
    /// The certificate by which this client shows who it is. Default: none.
    pub certificate: Option<String>,
    /// The key to [`certificate`](Self::certificate). Never shown, nor serialised.
    #[cfg_attr(feature = "serde", serde(skip_serializing))]
    pub key: Option<String>,
}

impl RedisTls {
    /// Trusts the authorities in this PEM file or text, and no others.
    #[must_use]
    pub fn authority(mut self, pem: impl Into<String>) -> Self {
        self.authority = Some(pem.into());
        self
    }

    /// Shows this certificate to the server; both are PEM files or texts.
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.certificate = Some(certificate.into());
        self.key = Some(key.into());
        self
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let paired = self.certificate.is_some() == self.key.is_some();
        check("tls.key", Hidden, paired, "must be given with tls.certificate and only then")
    }
}

impl fmt::Debug for RedisTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, certificate, key } = self;
        f.debug_struct("RedisTls")
            .field("authority", authority)
            .field("certificate", certificate)
            .field("key", &key.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// What the client library takes, with all files read.
#[cfg(feature = "redis-tls")]
pub(super) fn certificates(tls: &RedisTls) -> io::Result<::redis::TlsCertificates> {
    let client_tls = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let client_cert = pem("tls.certificate", certificate)?;
            Some(::redis::ClientTlsConfig { client_cert, client_key: pem("tls.key", key)? })
        }
        _ => None,
    };
    let root_cert =
        tls.authority.as_deref().map(|source| pem("tls.authority", source)).transpose()?;
    Ok(::redis::TlsCertificates { client_tls, root_cert })
}

/// rustls panics when it finds no provider of cryptography, or two. The application's choice
/// comes first.
#[cfg(feature = "redis-tls")]
pub(super) fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may have been faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Names the setting and not its value, which may be a key without its first line.
#[cfg(feature = "redis-tls")]
fn pem(setting: &str, source: &str) -> io::Result<Vec<u8>> {
    if source.contains("-----BEGIN ") {
        return Ok(source.as_bytes().to_vec());
    }
    std::fs::read(source)
        .map_err(|error| io::Error::new(error.kind(), format!("{setting}: {error}")))
}
