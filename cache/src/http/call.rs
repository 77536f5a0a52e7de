//! One request that memory could not answer at once.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use tokio::task::JoinError;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use crate::http::ask::{Ask, Asked, Question};
use crate::http::body::Body;
use crate::http::engine::{
    CacheStatus, Decision, Failure, Forward, Fwd, Served, UnixMs, Validation, vary,
};
use crate::http::fill::Escort;
use crate::http::finish::{finish, joined, revalidate, update_by_head};
use crate::http::flight::{Join, Lead};
use crate::http::key;
use crate::http::landing::Landing;
use crate::http::origin::Origin;
use crate::http::respond::Client;
use crate::http::route::{Route, Selection};
use crate::http::stats::{Outcome, Token, raise};
use crate::http::store::{Found, Target};
use crate::http::stored::StoredResponse;
use crate::load;

/// A `GET` or `HEAD` with a ready service.
pub(crate) struct Call<S, B> {
    pub(crate) route: Arc<Route>,
    pub(crate) target: Target,
    pub(crate) client: Client,
    pub(crate) service: S,
    pub(crate) parts: Parts,
    pub(crate) body: B,
    pub(crate) token: Token,
}

type Answered<S, B> = Result<Response<Body<<S as Origin<B>>::Body>>, <S as Origin<B>>::Failure>;

/// What a follower found.
enum Followed<B> {
    Answer(Response<Body<B>>, Outcome),
    /// Another key is right: the leader's answer is for other request fields.
    Elsewhere(String),
    Nothing,
}

impl<S: Origin<B>, B: Default + Send + 'static> Call<S, B> {
    /// Answers the request.
    pub(crate) async fn run(self) -> Answered<S, B> {
        let route = Arc::clone(&self.route);
        let selection = route.find(&self.target, &self.client.view()).await;
        let now = route.inner().now();
        let decision = route.decide(&self.client.view(), &selection, now);
        let flight_key = selection.flight_key(&self.target, &self.client.view());
        let question = match decision {
            Decision::Serve(served) => return Ok(self.serve(selection, served, flight_key)),
            Decision::Unsatisfiable => {
                let title = "no stored response";
                self.token.settle(Outcome::Unsatisfiable);
                return Ok(route.own(StatusCode::GATEWAY_TIMEOUT, title, route.hit()));
            }
            Decision::Validate(validation) => Question {
                fwd: validation.fwd,
                may_store: true,
                flight_key,
                candidates: selection.found.into_iter().nth(validation.index).into_iter().collect(),
                preconditions: validation.preconditions.clone(),
                validation: Some(validation),
            },
            Decision::Forward(Forward { fwd, may_store, preconditions }) => Question {
                fwd,
                may_store,
                flight_key,
                candidates: selection.found,
                preconditions,
                validation: None,
            },
        };
        self.ask(question).await
    }

    /// Serves a stored response, and has it revalidated in the background if that is due.
    fn serve(
        self,
        selection: Selection,
        served: Served,
        flight_key: String,
    ) -> Response<Body<S::Body>> {
        let route = Arc::clone(&self.route);
        let now = route.inner().now();
        let outcome = if served.remaining_ms > 0 { Outcome::Hit } else { Outcome::Stale };
        let found = selection.found.into_iter().nth(served.index);
        let Some(whole) = found.as_ref().and_then(|found| found.response.as_whole()) else {
            // The engine chooses among whole responses only.
            let title = "no stored response";
            return route.own(StatusCode::GATEWAY_TIMEOUT, title, route.hit());
        };
        let response = route.of_stored(&self.client.view(), whole, now, route.hit());
        let Self { target, client, service, parts, body: _, token, .. } = self;
        token.settle(outcome);
        if let Some(found) = found.filter(|_| served.revalidate) {
            revalidate::<S, B>(&route, target, client, service, parts, found, flight_key);
        }
        response
    }

    /// Asks the origin, or waits for one who does.
    async fn ask(self, mut question: Question) -> Answered<S, B> {
        // Twice: the first leader's answer may show that one's own is under another key.
        for _ in 0..2 {
            if !self.may_collapse(&question) {
                break;
            }
            let route = Arc::clone(&self.route);
            let inner = route.inner();
            let now = inner.now();
            let recheck = || route.fresh(&self.target, &self.client.view(), now);
            let suits = |landing: &Landing| self.may_reuse(landing, now);
            match inner.flights.join(&question.flight_key, suits, recheck) {
                Join::Hit(response) => return Ok(self.hit(&response)),
                Join::Lead(lead) => return self.lead(question, lead).await,
                Join::Follow(follow) => {
                    let news = timeout(inner.config.collapse_wait, follow.news()).await;
                    match self.followed(&question, news) {
                        Followed::Answer(response, outcome) => {
                            self.token.settle(outcome);
                            return Ok(response);
                        }
                        Followed::Elsewhere(key) => question.flight_key = key,
                        Followed::Nothing => break,
                    }
                }
            }
        }
        // Another's may have been stored meanwhile.
        let (route, now) = (&self.route, self.route.inner().now());
        if question.fwd != Fwd::Request
            && let Some(response) = route.fresh(&self.target, &self.client.view(), now)
        {
            return Ok(self.hit(&response));
        }
        self.alone(question).await
    }

    /// Whether the answer may be shared with others who ask now. What asks for a part only, or
    /// wants to be sure, asks for itself.
    fn may_collapse(&self, question: &Question) -> bool {
        let inner = self.route.inner();
        inner.config.collapse
            && question.may_store
            && question.fwd != Fwd::Request
            && self.client.method == Method::GET
            && (question.validation.is_some() || !self.client.headers.contains_key(header::RANGE))
            && !inner.marks.is_set(&question.flight_key, Instant::now())
    }

    fn hit(self, response: &StoredResponse) -> Response<Body<S::Body>> {
        let route = &self.route;
        let Some(whole) = response.as_whole() else {
            return route.own(StatusCode::GATEWAY_TIMEOUT, "no stored response", route.hit());
        };
        let now = route.inner().now();
        let response = route.of_stored(&self.client.view(), whole, now, route.hit());
        self.token.settle(Outcome::Hit);
        response
    }

    /// Asks in a task of its own, for all who follow: it goes on if this request goes away.
    async fn lead(self, question: Question, lead: Lead<Landing>) -> Answered<S, B> {
        let Self { route, target, client, service, parts, body, token } = self;
        let fwd = question.fwd;
        let stale = stale_copy(&question);
        let _attendant = lead.attend();
        let over = lead.unattended(route.inner().config.fill_timeout);
        let ask = Ask {
            route: Arc::clone(&route),
            target,
            client: client.clone(),
            service,
            parts,
            body,
            question,
            escort: Escort { lead: Some(lead), _permit: None },
        };
        let inner = route.inner();
        let mut task = load::spawn(while_attended(ask.run(), over));
        let asked = match stale {
            Some((validation, found)) => {
                match timeout(inner.config.collapse_wait, &mut task).await {
                    Ok(asked) => answered(asked).await,
                    Err(_) if validation.may_serve_stale(Failure::Unreachable, inner.now()) => {
                        // The task goes on: the origin may still answer, for those who come then.
                        raise(&inner.counts.wait_timeouts);
                        let landing = Landing::StandIn(found.response, Failure::Unreachable);
                        Ok(Asked::Stored(landing))
                    }
                    Err(_) => answered(task.await).await,
                }
            }
            None => answered(task.await).await,
        };
        finish::<S, B>(&route, &client, fwd, asked, token)
    }

    /// What came of waiting for another's answer.
    fn followed(
        &self,
        question: &Question,
        news: Result<Option<Landing>, Elapsed>,
    ) -> Followed<S::Body> {
        let inner = self.route.inner();
        match news {
            Ok(Some(landing)) => self.share(question, &landing),
            Ok(None) => Followed::Nothing,
            Err(_) => {
                raise(&inner.counts.wait_timeouts);
                let stand_in = stale_copy(question)
                    .map(|(_, found)| Landing::StandIn(found.response, Failure::Unreachable));
                match stand_in.map(|landing| self.share(question, &landing)) {
                    Some(answer @ Followed::Answer(..)) => answer,
                    _ => {
                        // Nobody else shall wait that long.
                        inner.mark(&question.flight_key);
                        Followed::Nothing
                    }
                }
            }
        }
    }

    /// Whether an answer that was there before this request may serve it without the origin, as
    /// if it were stored already. Which request it fits is looked at by who shares it.
    fn may_reuse(&self, landing: &Landing, now: UnixMs) -> bool {
        let head = match landing {
            Landing::Live(live) => Some(&*live.head),
            Landing::Confirmed(response) => response.as_whole().map(|whole| &whole.head),
            // Has rules of its own.
            Landing::StandIn(..) => return true,
        };
        let view = self.client.view();
        head.is_some_and(|head| {
            let fits = head.matches(&self.client.headers);
            !fits || self.route.would_serve(&view, head, now)
        })
    }

    /// Answers with another's answer, if it fits this request too.
    fn share(&self, question: &Question, landing: &Landing) -> Followed<S::Body> {
        let (route, client) = (&self.route, &self.client);
        let now = route.inner().now();
        let status = CacheStatus { collapsed: true, ..route.forwarded(question.fwd) };
        match landing {
            Landing::Live(live) if !live.head.matches(&client.headers) => {
                let names = live.head.vary_names();
                let secondary = vary::secondary_key(&names, &client.headers);
                let key = key::variant(&self.target.primary, secondary);
                Followed::Elsewhere(key::flight(key, &client.headers))
            }
            Landing::Live(live) => match live.body.reader() {
                Some(reader) => {
                    let response = route.of_live(client, live, reader, now, status);
                    Followed::Answer(response, Outcome::Coalesced)
                }
                None => Followed::Nothing,
            },
            Landing::Confirmed(response) => match response.as_whole() {
                Some(whole) if whole.head.matches(&client.headers) => {
                    let response = route.of_stored(&client.view(), whole, now, status);
                    Followed::Answer(response, Outcome::Coalesced)
                }
                _ => Followed::Nothing,
            },
            Landing::StandIn(response, failure) => {
                let allowed = question
                    .validation
                    .as_ref()
                    .is_some_and(|validation| validation.may_serve_stale(*failure, now));
                match response.as_whole() {
                    Some(whole) if allowed && whole.head.matches(&client.headers) => {
                        let response = route.of_stored(&client.view(), whole, now, status);
                        Followed::Answer(response, Outcome::Stale)
                    }
                    _ => Followed::Nothing,
                }
            }
        }
    }

    /// Asks for this request only: if it goes away, so does the question.
    async fn alone(self, question: Question) -> Answered<S, B> {
        let Self { route, target, client, service, parts, body, token } = self;
        let fwd = question.fwd;
        // Fenced before the origin is asked: a purge meanwhile wins over what it says.
        let updatable = match selected(&question, &client) {
            Some(found) if client.method == Method::HEAD => {
                Some((found, route.inner().store.fence(&target).await))
            }
            _ => None,
        };
        let asked_at = route.inner().now();
        let ask = Ask {
            route: Arc::clone(&route),
            target: target.clone(),
            client: client.clone(),
            service,
            parts,
            body,
            question,
            escort: Escort::default(),
        };
        let asked = ask.run().await;
        // Taken out: a response may not be shared between threads, and this waits.
        let answer = match &asked {
            Ok(Asked::Own(response, _)) => Some((response.status(), response.headers().clone())),
            _ => None,
        };
        if let (Some((status, headers)), Some((found, fence))) = (answer, updatable) {
            let answer = (status, &headers);
            update_by_head(&route, &target, &client, found, answer, asked_at, fence).await;
        }
        finish::<S, B>(&route, &client, fwd, asked, token)
    }
}

/// Runs a question unless it is `over` first: nobody waits for its answer any more, and an origin
/// that hangs must not keep it for ever.
async fn while_attended<T>(
    question: impl Future<Output = T>,
    over: impl Future<Output = ()>,
) -> Option<T> {
    let (mut question, mut over) = (pin!(question), pin!(over));
    poll_fn(|context| match question.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => over.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// The answer of a task of [`while_attended`], to one who attends.
async fn answered<T>(task: Result<Option<T>, JoinError>) -> T {
    match joined(task).await {
        Some(answer) => answer,
        // Not while somebody waits here.
        None => pending().await,
    }
}

/// The stored response that the request selects.
fn selected(question: &Question, client: &Client) -> Option<Found> {
    let fits = |found: &&Found| {
        found.response.as_whole().is_some_and(|whole| whole.head.matches(&client.headers))
    };
    question.candidates.iter().find(fits).cloned()
}

/// The stored response that may stand in, should the origin take too long.
fn stale_copy(question: &Question) -> Option<(Validation, Found)> {
    Some((question.validation.clone()?, question.candidates.first()?.clone()))
}
