//! The body of a response whose call ends when the body does.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Judgement, Outcome, Permit};

pin_project! {
    /// The body of a response behind
    /// [`BreakerLayer::judge_at_end_of_body`](crate::BreakerLayer::judge_at_end_of_body).
    ///
    /// When it has ended, the call counts as its head was judged; when it breaks off, or ends before
    /// what `Content-Length` has promised, as a failure. Dropped before that, the call is given up: see [`Permit`](crate::Permit).
    pub struct JudgedBody<B> {
        #[pin]
        inner: B,
        // `Some` until the call has been judged.
        call: Option<Call>,
    }
}

#[derive(Debug)]
struct Call {
    permit: Permit,
    judgement: Judgement,
    /// Bytes to come, where the head has said it: who has them all need not ask for the end.
    left: Option<u64>,
}

impl<B: Body> JudgedBody<B> {
    pub(super) fn new(
        inner: B,
        head: &Parts,
        mut permit: Permit,
        judgement: Judgement,
        bare: bool,
    ) -> Self {
        // What is not well already does not become so by its body.
        let decided = judgement.outcome != Outcome::Success;
        let length = head.headers.get(CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        // Servers do not ask for the end of a body that has no bytes.
        let unread = bare || has_no_body(head.status) || left == Some(0) || is_over(&inner);
        if decided || unread {
            permit.judged(judgement);
            return Self::unjudged(inner);
        }
        // From here on it may wait for the next byte.
        permit.start_age();
        Self { inner, call: Some(Call { permit, judgement, left }) }
    }
}

impl<B> JudgedBody<B> {
    pub(super) fn unjudged(inner: B) -> Self {
        Self { inner, call: None }
    }
}

/// Servers drop the body of such a response unread.
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        )
}

/// Whether nobody needs to ask for the next frame to know that there is none.
fn is_over<B: Body>(body: &B) -> bool {
    body.is_end_stream() || body.size_hint().upper() == Some(0)
}

impl<B: Body> Body for JudgedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        // Taken out while the inner body runs: if that panics, the permit is dropped by the panic
        // itself, and not later by whoever caught it.
        let Some(mut call) = this.call.take() else { return this.inner.poll_frame(cx) };
        let answer = this.inner.as_mut().poll_frame(cx);
        match &answer {
            Poll::Pending => *this.call = Some(call),
            Poll::Ready(None) => call.ended(),
            Poll::Ready(Some(Err(_))) => call.permit.judged(Outcome::Failure),
            Poll::Ready(Some(Ok(frame))) => {
                call.read(frame);
                if call.left == Some(0) || is_over(&*this.inner) {
                    call.ended();
                } else {
                    *this.call = Some(call);
                }
            }
        }
        answer
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Call {
    fn read<D: Buf>(&mut self, frame: &Frame<D>) {
        if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
            *left = left.saturating_sub(data.remaining() as u64);
        }
    }

    /// The body has no more to give.
    fn ended(self) {
        match self.left {
            Some(1..) => self.permit.judged(Outcome::Failure),
            _ => self.permit.judged(self.judgement),
        }
    }
}

impl<B> fmt::Debug for JudgedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JudgedBody").field("call", &self.call).finish_non_exhaustive()
    }
}
