//! An answer that begins before its request is sent: both go on in a task, whether or not anybody takes
//! the answer meanwhile. A client may read only once it has sent all, and a server answer before it has
//! read all.

use std::future::{pending, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::UpstreamError;
use super::download::Download;

/// The end is told as well: a task that is gone must not look like it.
type Part = Result<Option<Frame<Bytes>>, UpstreamError>;

/// The answer, as it comes out of the task.
pub(super) struct Overlap {
    parts: mpsc::Receiver<Part>,
    /// What is to come of it, if that is known.
    left: Option<u64>,
}

impl Overlap {
    pub(super) fn start(runtime: &Handle, download: Download) -> Self {
        let left = download.size_hint().exact();
        let (sender, parts) = mpsc::channel(1);
        runtime.spawn(drive(download, sender));
        Self { parts, left }
    }

    /// The next part, `None` at the end.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        let part = ready!(self.parts.poll_recv(cx));
        let gone = || Err(UpstreamError::ResponseBody(io::ErrorKind::ConnectionAborted.into()));
        let part = part.unwrap_or_else(gone);
        if let Ok(Some(frame)) = &part {
            self.left = match frame.data_ref() {
                Some(data) => self.left.map(|left| left.saturating_sub(data.len() as u64)),
                // Trailers are the end.
                None => Some(0),
            };
        }
        Poll::Ready(part)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.left == Some(0)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Sends the rest of a request whose answer is whole.
pub(super) fn send_rest(runtime: &Handle, mut download: Download) {
    runtime.spawn(async move {
        if download.send_rest().await.is_ok() {
            download.finish();
        }
    });
}

async fn drive(mut download: Download, parts: mpsc::Sender<Part>) {
    loop {
        let part = tokio::select! {
            biased;
            // The client has gone, and with it the connection.
            () = parts.closed() => return,
            part = poll_fn(|cx| download.poll_frame(cx)) => part,
        };
        // Behind the last part nobody asks for the end.
        let ended = matches!(part, Ok(None)) || download.is_at_end();
        let failed = part.is_err();
        let place = tokio::select! {
            place = parts.reserve() => place,
            never = async {
                if !failed {
                    download.send_meanwhile().await;
                }
                pending().await
            } => never,
        };
        let Ok(place) = place else { return };
        place.send(part);
        if failed {
            return;
        }
        if ended {
            break;
        }
    }
    if download.send_rest().await.is_ok() {
        download.finish();
    }
}
