//! TLS by rustls, with the certificates that the connection string names.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::{Roots, SslMode, TlsSettings};
use super::socket::Socket;
use super::stream::Stream;
use crate::config::ConfigError;

/// A socket with TLS, which knows its channel binding.
pub(super) type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Encrypts sockets. Clones share the certificates, and the sessions that a server lets resume.
#[derive(Clone)]
pub(super) struct Tls(Arc<Shared>);

struct Shared {
    settings: TlsSettings,
    loaded: Mutex<Loaded>,
}

/// What stood in the files when they were last read.
struct Loaded {
    written: Vec<Option<SystemTime>>,
    connect: MakeRustlsConnect,
}

impl Tls {
    /// Reads the files of certificates and keys, so a mistake in them is found at the start.
    pub(super) fn new(settings: &TlsSettings) -> Result<Option<Self>, ConfigError> {
        let loaded = Loaded { written: written(settings), connect: load(settings)? };
        let shared = Shared { settings: settings.clone(), loaded: Mutex::new(loaded) };
        Ok(Some(Self(Arc::new(shared))))
    }

    /// Does the handshake. `name` is that of the host, or its address.
    pub(super) async fn encrypt(&self, socket: Socket, name: &str) -> io::Result<Stream> {
        let mut current = self.0.current();
        let Ok(connect) = MakeTlsConnect::<Socket>::make_tls_connect(&mut current, name);
        Ok(Stream::Tls(Box::new(connect.connect(socket).await?)))
    }
}

impl Shared {
    /// Certificates may live for hours only. Files that were written since are read again; while
    /// that fails, as it does between the writing of a certificate and of its key, the old ones
    /// serve.
    fn current(&self) -> MakeRustlsConnect {
        let written = written(&self.settings);
        let mut loaded = self.loaded.lock();
        if loaded.written != written
            && let Ok(connect) = load(&self.settings)
        {
            *loaded = Loaded { written, connect };
        }
        loaded.connect.clone()
    }
}

/// When each of the files was last written.
fn written(settings: &TlsSettings) -> Vec<Option<SystemTime>> {
    let roots = match &settings.roots {
        Some(Roots::File(path)) => Some(path),
        _ => None,
    };
    let client = settings.client.iter().flat_map(|(certificate, key)| [certificate, key]);
    let modified = |path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    roots.into_iter().chain(client).map(modified).collect()
}

fn load(settings: &TlsSettings) -> Result<MakeRustlsConnect, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let roots = trusted(settings)?;
    let name = settings.mode == SslMode::VerifyFull;
    let verifier = Verifier { provider: Arc::clone(&provider), roots, name };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| refuse("sslmode", "cannot be met by the TLS library"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &settings.client {
        Some((certificate, key)) => {
            let chain = certificates("sslcert", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|_| refuse("sslkey", "must be a file with a key in PEM"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|_| refuse("sslkey", "must fit the certificate of sslcert"))?
        }
        None => builder.with_no_client_auth(),
    };
    // What PostgreSQL calls its protocol; asked for with sslnegotiation=direct, else ignored.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

/// Whom a server must be vouched for by; `None` where nobody is asked.
fn trusted(settings: &TlsSettings) -> Result<Option<Trusted>, ConfigError> {
    if settings.mode < SslMode::VerifyCa {
        return Ok(None);
    }
    let found = match &settings.roots {
        Some(Roots::File(path)) => certificates("sslrootcert", path)?,
        // Without a file libpq looks into the home directory. A service has none.
        Some(Roots::System) | None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    // The system's store may hold some that rustls does not take.
    let (added, _ignored) = roots.add_parsable_certificates(found.iter().cloned());
    if added == 0 {
        return Err(refuse("sslrootcert", "holds no certificate that can be used"));
    }
    Ok(Some(Trusted { roots, found }))
}

fn certificates(
    parameter: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found = fs::read(path)
        .ok()
        .and_then(|pem| CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().ok());
    found
        .filter(|found| !found.is_empty())
        .ok_or_else(|| refuse(parameter, "must be a file with certificates in PEM"))
}

fn refuse(parameter: &'static str, rule: &'static str) -> ConfigError {
    ConfigError::new("url", parameter, rule)
}

#[derive(Debug)]
struct Trusted {
    roots: RootCertStore,
    found: Vec<CertificateDer<'static>>,
}

/// Checks as much of a server's certificate as the `sslmode` asks for. That the server has the key
/// of the certificate it shows is always checked.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Option<Trusted>,
    name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &trusted.roots,
            intermediates,
            now,
            algorithms,
        ) {
            // A certificate that signed itself, as many servers of PostgreSQL have, is its own
            // authority, which rustls does not take from a server. It is the very one that was
            // handed out, and its dates were checked before this error.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if trusted.found.iter().any(|root| root == end_entity) => {}
            result => result?,
        }
        if self.name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
