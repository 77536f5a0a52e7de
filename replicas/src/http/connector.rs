//! Connections that are open in time, the name's resolution included.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service as _;

use crate::BoxError;

/// hyper-util's, whose own time begins only when the name has been resolved.
#[derive(Clone)]
pub(super) struct Connector {
    inner: HttpConnector,
    patience: Duration,
}

impl Connector {
    pub(super) fn new(patience: Duration) -> Self {
        let mut inner = HttpConnector::new();
        inner.set_nodelay(true);
        inner.set_connect_timeout(Some(patience));
        Self { inner, patience }
    }

    pub(super) async fn open(&self, target: Uri) -> Result<TcpStream, BoxError> {
        let mut connector = self.inner.clone();
        let connected = async {
            poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(target).await
        };
        match timeout(self.patience, connected).await {
            Ok(connected) => Ok(connected?.into_inner()),
            Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}
