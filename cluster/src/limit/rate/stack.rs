//! The limits of one layer, asked one after the other: all of them, or nothing is taken. Limits in a
//! row that are in one store outside this process are asked in one step.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use smallvec::SmallVec;

use super::core::{Charge, Claimed, Core, Outcome, Taken};
#[cfg(feature = "redis")]
use super::remote::{Answer, Claim, Verdict, Verdicts};
use super::{Decision, Limit, RateLimitHeaders, RateLimited};
use crate::clock::Moment;

type Exempt<Req> = Arc<dyn Fn(&Req) -> bool + Send + Sync>;

/// What all services of one layer share.
pub struct Stack<Req> {
    pub(super) limits: Vec<Limit<Req>>,
    pub(super) exempt: Vec<Exempt<Req>>,
    pub(super) headers: RateLimitHeaders,
}

impl<Req> Stack<Req> {
    pub(super) fn is_exempt(&self, request: &Req) -> bool {
        self.exempt.iter().any(|exempt| exempt(request))
    }

    fn core(&self, limit: u32) -> Option<&Arc<Core>> {
        self.limits.get(limit as usize).map(Limit::core)
    }
}

impl<Req> Clone for Stack<Req> {
    fn clone(&self) -> Self {
        Self { limits: self.limits.clone(), exempt: self.exempt.clone(), headers: self.headers }
    }
}

impl<Req> Default for Stack<Req> {
    fn default() -> Self {
        Self { limits: Vec::new(), exempt: Vec::new(), headers: RateLimitHeaders::default() }
    }
}

impl<Req> fmt::Debug for Stack<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What a request has used, by limit.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Two limits, per address and per tenant, are the usual case.
    charges: SmallVec<[(u32, Charge); 2]>,
}

impl Ledger {
    pub(super) fn give_back<Req>(&self, stack: &Stack<Req>) {
        if self.charges.is_empty() {
            return;
        }
        let now = Moment::recent();
        for (limit, charge) in &self.charges {
            if let Some(core) = stack.core(*limit) {
                core.give_back(charge, now);
            }
        }
    }

    /// Each limit that has counted the request, with its decision and what the request cost.
    #[cfg(feature = "axum")]
    pub(super) fn entries<'a, Req>(
        &'a self,
        stack: &'a Stack<Req>,
    ) -> impl Iterator<Item = (&'a Core, Decision, u32)> {
        self.charges.iter().filter_map(|(limit, charge)| {
            stack.core(*limit).map(|core| (&**core, core.decision(charge), charge.cost()))
        })
    }
}

/// A request on its way through the limits. Dropped on the way, it gives back what it has taken.
pub(super) struct Passage<S, Req>
where
    S: Deref<Target = Stack<Req>>,
{
    stack: S,
    ledger: Ledger,
    /// The limit to be asked next, or whose answer is awaited.
    next: u32,
    /// Whether the ledger is wanted when the request has passed.
    keeps: bool,
}

/// A question to a store outside this process, under way.
#[cfg(feature = "redis")]
pub(super) struct Asked {
    pub(super) verdicts: std::pin::Pin<Box<dyn Future<Output = Verdicts> + Send>>,
    /// `Some` until there are verdicts.
    pub(super) question: Option<Question>,
}

/// Without such a store nothing is ever under way.
#[cfg(not(feature = "redis"))]
pub(super) enum Asked {}

/// What limits in a row ask of one store.
#[cfg(feature = "redis")]
#[derive(Debug, Default)]
pub(super) struct Question {
    claims: SmallVec<[Claim; 2]>,
    /// Whose they are.
    limits: SmallVec<[u32; 2]>,
    /// The limit behind them.
    end: u32,
}

/// Where a request stands.
pub(super) enum Step {
    /// Every limit lets it through.
    Passed,
    Refused(Refused),
    /// A store has to be waited for.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "nobody else is asked"))]
    Asking(Asked),
}

/// A refusal, with what there is to say about it.
#[derive(Debug)]
pub struct Refused {
    pub(super) error: RateLimited,
    /// The limit that refuses, and what it has decided: it may be that it could not decide.
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "for the headers of a response"))]
    pub(super) decided: Option<(Arc<Core>, Decision)>,
}

impl<S, Req> Passage<S, Req>
where
    S: Deref<Target = Stack<Req>>,
{
    pub(super) fn new(stack: S, keeps: bool) -> Self {
        Self { stack, ledger: Ledger::default(), next: 0, keeps }
    }

    /// Asks limit after limit, as far as none has to be waited for.
    #[inline]
    pub(super) fn advance(&mut self, request: &Req, now: &mut Moment) -> Step {
        while let Some(limit) = self.stack.limits.get(self.next as usize) {
            // No later limit can refuse what the last one has let through.
            let taken = if self.keeps || (self.next as usize) + 1 < self.stack.limits.len() {
                limit.take(request, now)
            } else {
                let Some(taken) = limit.take_for_good(request, now) else {
                    return Step::Passed;
                };
                taken
            };
            match taken {
                Taken::Known(Outcome::Charged(charge)) => self.book(charge),
                Taken::Known(outcome) => {
                    if let Some(refused) = self.settle(outcome) {
                        return Step::Refused(refused);
                    }
                }
                Taken::Claimed(claimed) => {
                    if let Some(step) = self.ask(claimed, request, now) {
                        return step;
                    }
                }
            }
        }
        Step::Passed
    }

    #[cfg(not(feature = "redis"))]
    fn ask(&mut self, claimed: Claimed, _: &Req, _: &mut Moment) -> Option<Step> {
        match claimed {}
    }

    /// Asks the store of the next limit, for those behind it as well that have it too. `None` if
    /// they let the request through.
    #[cfg(feature = "redis")]
    fn ask(&mut self, claimed: Claimed, request: &Req, now: &mut Moment) -> Option<Step> {
        let Claimed { store, claim } = claimed;
        let mut question = Question::default();
        question.claims.push(claim);
        question.limits.push(self.next);
        question.end = self.next + 1;
        while let Some(limit) = self.stack.limits.get(question.end as usize)
            && limit.core().asks(&store)
        {
            match limit.take(request, now) {
                Taken::Claimed(Claimed { claim, .. }) => {
                    question.claims.push(claim);
                    question.limits.push(question.end);
                }
                Taken::Known(Outcome::Uncounted) => {}
                // A shadow limit that has nothing to ask for: the others have.
                Taken::Known(Outcome::Charged(charge)) => {
                    self.ledger.charges.push((question.end, charge));
                }
                // A refusal that is known needs no question.
                Taken::Known(outcome @ Outcome::Refused(..)) => {
                    self.next = question.end;
                    return self.settle(outcome).map(Step::Refused);
                }
            }
            question.end += 1;
        }
        match store.check(&question.claims) {
            Answer::Now(verdicts) => self.answered(question, &verdicts).map(Step::Refused),
            Answer::Later(verdicts) => {
                Some(Step::Asking(Asked { verdicts, question: Some(question) }))
            }
        }
    }

    /// Books what has become of the claims.
    #[cfg(feature = "redis")]
    pub(super) fn answered(&mut self, question: Question, verdicts: &[Verdict]) -> Option<Refused> {
        let Question { claims, limits, end } = question;
        let mut answers = claims.iter().zip(verdicts);
        let taken = !answers.any(|(claim, verdict)| !claim.shadow && verdict.is_refusal());
        for ((claim, limit), verdict) in claims.into_iter().zip(limits).zip(verdicts) {
            self.next = limit;
            let outcome = self.core()?.conclude(claim, *verdict, taken);
            if let Some(refused) = self.settle(outcome) {
                return Some(refused);
            }
        }
        self.next = end;
        None
    }

    /// Books what the limit asked last has said.
    fn settle(&mut self, outcome: Outcome) -> Option<Refused> {
        match outcome {
            Outcome::Charged(charge) => self.book(charge),
            Outcome::Uncounted => self.next += 1,
            Outcome::Refused(refusal, decision) => {
                let core = self.core()?;
                let retry_after = match decision {
                    Some(Decision::Limited { retry_after, .. }) => retry_after,
                    _ => None,
                };
                let error = RateLimited { limit: Arc::clone(core.name()), refusal, retry_after };
                let decided = decision.map(|decision| (Arc::clone(core), decision));
                return Some(Refused { error, decided });
            }
        }
        None
    }

    /// Books what the limit asked last has taken.
    #[inline]
    fn book(&mut self, charge: Charge) {
        self.ledger.charges.push((self.next, charge));
        self.next += 1;
    }

    /// The limit asked last.
    fn core(&self) -> Option<&Arc<Core>> {
        self.stack.core(self.next)
    }

    /// The request goes on, and nobody will ask what it has used.
    pub(super) fn forget(mut self) {
        self.ledger.charges.clear();
    }

    /// The request goes on to the service: from here on it has used what it took.
    pub(super) fn go_on(&mut self) -> Ledger {
        std::mem::take(&mut self.ledger)
    }

    /// The request is refused: it has used nothing. What it would have is left for the headers.
    pub(super) fn turn_back(&mut self) -> Ledger {
        self.ledger.give_back(&self.stack);
        self.go_on()
    }
}

impl<Req> Passage<&Stack<Req>, Req> {
    /// The same with a stack of its own, to wait with.
    pub(super) fn owned(mut self, stack: &Arc<Stack<Req>>) -> Passage<Arc<Stack<Req>>, Req> {
        let (next, keeps) = (self.next, self.keeps);
        Passage { stack: Arc::clone(stack), ledger: self.go_on(), next, keeps }
    }
}

#[cfg(feature = "redis")]
impl<Req> Passage<Arc<Stack<Req>>, Req> {
    pub(super) fn stack(&self) -> Arc<Stack<Req>> {
        Arc::clone(&self.stack)
    }
}

impl<S, Req> Drop for Passage<S, Req>
where
    S: Deref<Target = Stack<Req>>,
{
    fn drop(&mut self) {
        self.ledger.give_back(&self.stack);
    }
}
