//! What is left to do once a question has its answer, and questions that nobody waits for.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use tokio::task::JoinError;
use tokio::time::timeout;

use crate::http::ask::{Ask, Asked, Question};
use crate::http::body::Body;
use crate::http::engine::{CacheStatus, Failure, Fate, Fwd, HeadUpdate, UnixMs, head_update, vary};
use crate::http::fill::{Escort, Fill};
use crate::http::flight::Join;
use crate::http::landing::Landing;
use crate::http::origin::Origin;
use crate::http::respond::Client;
use crate::http::route::Route;
use crate::http::stats::{Outcome, Token, raise};
use crate::http::store::{Fence, Found, Target};
use crate::load;

/// The outcome of a task. The inner service's panic goes on in the request that caused it, as if
/// there were no task between them.
pub(crate) async fn joined<T>(task: Result<T, JoinError>) -> T {
    match task {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is shutting down, and with it goes whoever would hear of it.
            Err(_) => pending().await,
        },
    }
}

/// The response to the one who asked.
pub(crate) fn finish<S: Origin<B>, B>(
    route: &Route,
    client: &Client,
    fwd: Fwd,
    asked: Result<Asked<S::Body>, S::Failure>,
    token: Token,
) -> Result<Response<Body<S::Body>>, S::Failure> {
    let status = route.forwarded(fwd);
    let now = route.inner().now();
    let (response, outcome) = match asked {
        Ok(Asked::Own(response, detail)) => {
            let (parts, body) = response.into_parts();
            let status = CacheStatus { fwd_status: Some(parts.status), detail, ..status };
            (route.passed(parts, Body::inner(body), status), Outcome::Miss)
        }
        Ok(Asked::Live(parts, live, reader)) => {
            let status = CacheStatus { fwd_status: Some(parts.status), stored: true, ..status };
            let response = if client.has_conditions() {
                // They were kept from the origin, and are the cache's to judge.
                route.of_live(client, &live, reader, now, status)
            } else {
                route.passed(parts, Body::live(reader), status)
            };
            (response, Outcome::Miss)
        }
        Ok(Asked::Stored(landing)) => from_landing(route, client, &landing, status, now),
        Err(error) => {
            token.settle(Outcome::Failed);
            return Err(error);
        }
    };
    token.settle(outcome);
    Ok(response)
}

fn from_landing<B>(
    route: &Route,
    client: &Client,
    landing: &Landing,
    status: CacheStatus<'_>,
    now: UnixMs,
) -> (Response<Body<B>>, Outcome) {
    let (response, fwd_status, outcome) = match landing {
        Landing::Confirmed(response) => {
            (response, Some(StatusCode::NOT_MODIFIED), Outcome::Revalidated)
        }
        Landing::StandIn(response, Failure::Status(code)) => {
            (response, Some(*code), Outcome::Stale)
        }
        Landing::StandIn(response, Failure::Unreachable) => (response, None, Outcome::Stale),
        Landing::Live(_) => return (no_response(route), Outcome::Miss),
    };
    let status = CacheStatus { fwd_status, ..status };
    match response.as_whole() {
        Some(whole) => (route.of_stored(&client.view(), whole, now, status), outcome),
        None => (no_response(route), Outcome::Miss),
    }
}

/// Where the types allow what never is: an index in place of a response.
fn no_response<B>(route: &Route) -> Response<Body<B>> {
    route.own(StatusCode::BAD_GATEWAY, "no stored response", route.hit())
}

/// Has a stale response revalidated by a task of its own, unless that is under way or done, or
/// too many others are. `service` has to be ready.
pub(crate) fn revalidate<S: Origin<B>, B: Default + Send + 'static>(
    route: &Arc<Route>,
    target: Target,
    client: Client,
    service: S,
    parts: Parts,
    found: Found,
    flight_key: String,
) {
    let inner = route.inner();
    let now = inner.now();
    let Some(validation) = route.validation(&client.view(), &found, now) else { return };
    // Another's may have ended since this one was found.
    let recheck = || route.fresh(&target, &client.view(), now);
    let join = inner.flights.join(&flight_key, |_| true, recheck);
    let Join::Lead(lead) = join else { return };
    let Ok(permit) = Arc::clone(&inner.background).try_acquire_owned() else {
        raise(&inner.counts.revalidations_skipped);
        return;
    };
    raise(&inner.counts.revalidations);
    let ask = Ask {
        route: Arc::clone(route),
        target,
        client,
        service,
        parts,
        body: B::default(),
        question: Question {
            fwd: Fwd::Stale,
            may_store: true,
            flight_key,
            candidates: vec![found],
            preconditions: validation.preconditions.clone(),
            validation: Some(validation),
        },
        escort: Escort { lead: Some(lead), _permit: Some(permit) },
    };
    let limit = inner.config.revalidation_timeout;
    load::spawn(async move {
        // Whatever comes of it: a failure leaves the stale response where it is.
        drop(timeout(limit, ask.run()).await);
    });
}

/// What the answer to a `HEAD` says about a stored response (RFC 9111, section 4.3.5).
pub(crate) async fn update_by_head(
    route: &Arc<Route>,
    target: &Target,
    client: &Client,
    found: Found,
    answer: (StatusCode, &HeaderMap),
    asked_at: UnixMs,
    fence: Fence,
) {
    let inner = route.inner();
    let Some(found) = inner.store.still(&found).await else { return };
    let Some(whole) = found.response.as_whole() else { return };
    let stored = (&whole.head, whole.body.len() as u64);
    let view = client.view();
    match head_update(&route.policy, &view, stored, answer, asked_at, inner.now()) {
        HeadUpdate::Update(mut freshened) if freshened.fate == Fate::Replace => {
            let tags = match target.tags(answer.1) {
                Some(tags) if tags.is_empty() => whole.tags.clone(),
                Some(tags) => tags,
                None => return raise(&inner.counts.untaggable),
            };
            route.strip_surrogate_key(&mut freshened.head);
            let names = freshened.head.vary_names();
            let fill = Fill {
                route: Arc::clone(route),
                target: target.clone(),
                secondary: vary::secondary_key(&names, &client.headers),
                names,
                head: Arc::new(freshened.head),
                tags,
                fence,
                flight_key: found.key,
                escort: Escort::default(),
            };
            fill.store(whole.body.clone()).await;
        }
        HeadUpdate::Update(freshened) => {
            if let Fate::Remove(refusal) = freshened.fate {
                inner.counts.refused(refusal);
                drop(inner.store.remove_key(&found.key, false).await);
            }
        }
        HeadUpdate::Stale => drop(inner.store.remove_key(&found.key, true).await),
        HeadUpdate::Unrelated => {}
    }
}
