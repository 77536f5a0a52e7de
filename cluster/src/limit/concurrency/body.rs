//! A response's body that holds a place until it has ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::ConcurrencyPermit;

/// A body that is empty or already at its end holds nothing, and is not wrapped.
pub(super) fn hold(response: Response, permit: Option<ConcurrencyPermit>) -> Response {
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| Body::new(Held { body, permit }))
}

struct Held {
    body: Body,
    /// `None` from the end on, which may be long before the body is dropped.
    permit: Option<ConcurrencyPermit>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Taken out while the inner body runs: if that panics, the place is given back by the panic
        // itself, and not later by whoever caught it.
        let permit = self.permit.take();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let ended = match &frame {
            Poll::Pending => false,
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
        };
        if !ended {
            self.permit = permit;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
