//! Certificates by an authority of one's own.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

use crate::Error;

/// An authority, and a certificate by it for a server on loopback and for a client; all in PEM.
#[derive(Clone)]
#[non_exhaustive]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: String,
    /// The server's certificate, for `127.0.0.1` and `localhost`.
    pub server: String,
    /// The server's key.
    pub server_key: String,
    /// A client's certificate.
    pub client: String,
    /// The client's key.
    pub client_key: String,
}

/// Where a server finds them in its folder.
pub(super) const OPTIONS: [&str; 6] = [
    "--tls-cert-file",
    "server.pem",
    "--tls-key-file",
    "server.key",
    "--tls-ca-cert-file",
    "authority.pem",
];

impl Certificates {
    /// Makes a new authority and two certificates by it.
    ///
    /// # Errors
    /// When no keys can be made.
    pub fn new() -> Result<Self, Error> {
        Self::make().map_err(|error| Error::io("make certificates")(io::Error::other(error)))
    }

    /// The same with a server that has no authority: its certificate is signed by itself, and is
    /// one of an authority, as `openssl req -x509` makes them.
    ///
    /// # Errors
    /// When no keys can be made.
    pub fn self_signed() -> Result<Self, Error> {
        let failed = |error| Error::io("make certificates")(io::Error::other(error));
        let mut params = named("server", hosts()).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(failed)?;
        let server = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { server, server_key: key.serialize_pem(), ..Self::new()? })
    }

    fn make() -> Result<Self, rcgen::Error> {
        let mut params = named("authority", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let issue = |name, hosts| {
            let key = KeyPair::generate()?;
            let certificate = named(name, hosts)?.signed_by(&key, &issuer)?;
            Ok::<_, rcgen::Error>((certificate.pem(), key.serialize_pem()))
        };
        let (server, server_key) = issue("server", hosts())?;
        let (client, client_key) = issue("client", Vec::new())?;
        Ok(Self { authority, server, server_key, client, client_key })
    }

    /// Writes what a server needs into its folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let files = [
            ("authority.pem", &self.authority),
            ("server.pem", &self.server),
            ("server.key", &self.server_key),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).map_err(Error::io(format!("write {name}")))?;
        }
        Ok(())
    }
}

fn hosts() -> Vec<String> {
    vec!["127.0.0.1".to_owned(), "localhost".to_owned()]
}

/// The names must differ: one that is its issuer's name too is taken for self-signed.
fn named(name: &str, hosts: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}
