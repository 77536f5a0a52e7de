//! One address of a server and how to speak to it: enough for a second connection to the same.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::{BoxError, Refusal};
use super::socket::{Address, Socket, TcpOptions};
use super::stream::Stream;
use super::tls::Tls;

/// Asks whether the server speaks TLS: a length, and a code in place of a version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where a connection goes, encrypted or not.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    pub(super) tcp: Arc<TcpOptions>,
    pub(super) encryption: Encryption,
}

/// Whether and how to encrypt.
#[derive(Clone)]
pub(super) enum Encryption {
    None,
    Tls {
        tls: Tls,
        /// What the certificate must be for.
        name: Arc<str>,
        /// A server that refuses TLS is refused.
        required: bool,
        /// Without asking the server first.
        direct: bool,
    },
}

impl Endpoint {
    /// Opens a stream on which the protocol can begin; with the [port](Socket::port) it has.
    pub(super) async fn open(&self) -> Result<(Stream, Option<u16>), BoxError> {
        let socket = Socket::connect(&self.address, &self.tcp).await?;
        let port = socket.port();
        Ok((self.encrypt(socket).await?, port))
    }

    async fn encrypt(&self, mut socket: Socket) -> Result<Stream, BoxError> {
        let Encryption::Tls { tls, name, required, direct } = &self.encryption else {
            return Ok(Stream::Plain(socket));
        };
        if !direct && !offers_tls(&mut socket).await? {
            return if *required { Err(Refusal::NoTls.into()) } else { Ok(Stream::Plain(socket)) };
        }
        Ok(tls.encrypt(socket, name).await?)
    }
}

/// Reads one byte and not more: what follows in the clear is not to be taken for encrypted.
async fn offers_tls(socket: &mut Socket) -> Result<bool, BoxError> {
    socket.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    socket.read_exact(&mut answer).await?;
    match &answer {
        b"S" => Ok(true),
        b"N" => Ok(false),
        // An error message in the clear, which anybody may have sent: not worth showing.
        _ => Err(io::Error::other("the server answered the request for TLS by an error").into()),
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encrypted = matches!(self.encryption, Encryption::Tls { .. });
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("encrypted", &encrypted)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
