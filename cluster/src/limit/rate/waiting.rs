//! A request that waits for a store outside this process.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::stack::{Asked, Ledger, Passage, Refused, Stack};

/// The request, the service that was ready for it, and the question under way. Dropped, it gives
/// back what earlier limits have taken.
#[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "nobody else is asked"))]
pub(super) struct Waiting<S, Req> {
    passage: Passage<Arc<Stack<Req>>, Req>,
    asked: Asked,
    /// `Some` until the request goes on.
    call: Option<(S, Req)>,
}

/// What the waiting has led to.
#[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "nobody else is asked"))]
pub(super) enum Waited<S, Req> {
    Passed { inner: S, request: Req, stack: Arc<Stack<Req>>, ledger: Ledger },
    Refused { refused: Refused, stack: Arc<Stack<Req>>, ledger: Ledger },
}

impl<S, Req> Waiting<S, Req> {
    pub(super) fn new(
        passage: Passage<Arc<Stack<Req>>, Req>,
        asked: Asked,
        inner: S,
        request: Req,
    ) -> Self {
        Self { passage, asked, call: Some((inner, request)) }
    }

    #[cfg(not(feature = "redis"))]
    pub(super) fn poll(&mut self, _: &mut Context<'_>) -> Poll<Waited<S, Req>> {
        match self.asked {}
    }

    #[cfg(feature = "redis")]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Waited<S, Req>> {
        use super::stack::Step;
        use crate::clock::Moment;

        loop {
            let verdicts = std::task::ready!(self.asked.verdicts.as_mut().poll(cx));
            let (inner, request) = self.call.take().expect("not polled after it has ended");
            let question = self.asked.question.take().expect("not polled after it has ended");
            let stack = self.passage.stack();
            let step = match self.passage.answered(question, &verdicts) {
                Some(refused) => Step::Refused(refused),
                // A new reading: the answer has taken its time.
                None => self.passage.advance(&request, &mut Moment::recent()),
            };
            match step {
                Step::Passed => {
                    let ledger = self.passage.go_on();
                    return Poll::Ready(Waited::Passed { inner, request, stack, ledger });
                }
                Step::Refused(refused) => {
                    let ledger = self.passage.turn_back();
                    return Poll::Ready(Waited::Refused { refused, stack, ledger });
                }
                Step::Asking(asked) => {
                    self.asked = asked;
                    self.call = Some((inner, request));
                }
            }
        }
    }
}
