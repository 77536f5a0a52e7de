//! Cancels the query of a connection, and knows when the request was carried out.
//!
//! A cancel request reaches the server on a connection of its own and hits whatever the backend
//! does when it arrives. The server closes that connection after it has signalled the backend, so
//! who waits for the end of it can be sure that a later query is not hit.

use tokio::io::AsyncReadExt;
use tokio_postgres::CancelToken;

use super::endpoint::Endpoint;
use super::error::BoxError;
use super::stream::Done;

/// Returns when the backend was signalled.
pub(super) async fn cancel(endpoint: &Endpoint, token: &CancelToken) -> Result<(), BoxError> {
    let mut stream = endpoint.open().await?;
    token.cancel_query_raw(&mut stream, Done).await?;
    // Nothing is ever answered: this ends with the connection, orderly or not.
    while stream.read(&mut [0; 16]).await.is_ok_and(|count| count > 0) {}
    Ok(())
}
