//! The body of a long answer: the request ends when it does.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::series::Token;

pin_project! {
    /// A response body that counts its request out when it ends, fails or is dropped.
    #[derive(Debug)]
    pub struct ObservedBody {
        #[pin]
        inner: Body,
        // `Some` until the request was counted out.
        token: Option<Token>,
        status: StatusCode,
        // Bytes still to come, where the length is known. A server stops polling once it has
        // written them, so the end has to be seen without a last poll.
        remaining: Option<u64>,
    }
}

impl ObservedBody {
    pub(super) fn new(inner: Body, token: Token, status: StatusCode) -> Self {
        let remaining = http_body::Body::size_hint(&inner).exact();
        Self { inner, token: Some(token), status, remaining }
    }
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut this = self.project();
        if let Some(token) = this.token {
            token.enter();
        }
        let polled = this.inner.as_mut().poll_frame(cx);
        if let Some(token) = this.token {
            token.leave();
        }
        let frame = ready!(polled);
        let ended = match &frame {
            None => true,
            Some(Err(_)) => {
                if let Some(token) = this.token.take() {
                    token.errored();
                }
                false
            }
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let left = this.remaining.map(|left| left.saturating_sub(length));
                *this.remaining = left;
                left == Some(0) || this.inner.is_end_stream()
            }
        };
        if ended && let Some(token) = this.token.take() {
            token.answered(*this.status);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
