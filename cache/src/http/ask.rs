//! One question to the origin, and what its answer is good for.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, response};
use http_body::Body as _;

use crate::http::engine::{
    Failure, Fate, Freshened, Fwd, StoredHead, UnixMs, Validation, admit, freshen, nominated, vary,
};
use crate::http::fill::{Escort, Fill};
use crate::http::growing::{Growing, Reader};
use crate::http::landing::{Landing, Live};
use crate::http::origin::{Origin, send_again};
use crate::http::respond::{Client, strip_conditions};
use crate::http::route::Route;
use crate::http::stats::raise;
use crate::http::store::{Fence, Found, Target};
use crate::http::stored::{StoredResponse, Whole};
use crate::load;

/// Why and how the origin is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) fwd: Fwd,
    /// Whether the answer may be stored at all.
    pub(crate) may_store: bool,
    pub(crate) flight_key: String,
    /// The stored responses whose validators are sent.
    pub(crate) candidates: Vec<Found>,
    /// Their validators.
    pub(crate) preconditions: Vec<(HeaderName, HeaderValue)>,
    /// With the stored response that the request selects, if there is one: the first candidate.
    pub(crate) validation: Option<Validation>,
}

impl Question {
    /// Of a request that changes something. Its answer is shown to the engine, which knows when
    /// it answers later reads as well.
    pub(crate) fn of_write(target: &Target) -> Self {
        Self {
            fwd: Fwd::Method,
            may_store: true,
            flight_key: target.primary.clone(),
            candidates: Vec::new(),
            preconditions: Vec::new(),
            validation: None,
        }
    }
}

/// A request on its way to the origin. `service` has to be ready.
pub(crate) struct Ask<S, B> {
    pub(crate) route: Arc<Route>,
    pub(crate) target: Target,
    pub(crate) client: Client,
    pub(crate) service: S,
    pub(crate) parts: Parts,
    pub(crate) body: B,
    pub(crate) question: Question,
    pub(crate) escort: Escort,
}

/// What the origin's answer is to the one who asked.
pub(crate) enum Asked<B> {
    /// For this request alone; and why it is not stored.
    Own(Response<B>, Option<&'static str>),
    /// Being stored.
    Live(response::Parts, Live, Reader),
    /// A stored response answers.
    Stored(Landing),
}

impl<S: Origin<B>, B: Default + Send + 'static> Ask<S, B> {
    /// Asks, and tells the followers. What is left to do with the answer is done by tasks of its
    /// own, which take the escort along.
    pub(crate) async fn run(mut self) -> Result<Asked<S::Body>, S::Failure> {
        let (route, target) = (Arc::clone(&self.route), self.target.clone());
        let mut fence = route.inner().store.fence(&target).await;
        self.catch_up().await;
        let mut asked_at = route.inner().now();
        let parts = std::mem::replace(&mut self.parts, Request::new(()).into_parts().0);
        let again = (!self.question.preconditions.is_empty()).then(|| parts.clone());
        let request = self.outgoing(parts);
        let mut response = match self.service.send(request).await {
            Ok(response) => response,
            Err(error) => return self.stand_in(Failure::Unreachable).ok_or(error),
        };
        if let Some(asked) = self.stand_in(Failure::Status(response.status())) {
            return Ok(asked);
        }
        if response.status() == StatusCode::NOT_MODIFIED
            && let Some(mut parts) = again
        {
            if let Some(asked) = self.confirm(response.headers(), asked_at, fence) {
                return Ok(asked);
            }
            // It confirms nothing we have (RFC 9111, section 4.3.4): ask for the whole.
            strip_conditions(&mut parts.headers);
            fence = route.inner().store.fence(&target).await;
            asked_at = route.inner().now();
            let request = Request::from_parts(parts, B::default());
            response = send_again(&mut self.service, request).await?;
        }
        Ok(self.receive(response, asked_at, fence))
    }

    /// What was found before the fence may have been removed or replaced until then, and nothing
    /// that the origin says now may bring it back.
    async fn catch_up(&mut self) {
        let question = &mut self.question;
        if question.preconditions.is_empty() && question.validation.is_none() {
            return;
        }
        for found in &mut question.candidates {
            if let Some(held) = self.route.inner().store.still(found).await {
                *found = held;
            } else {
                question.candidates.clear();
                question.preconditions.clear();
                question.validation = None;
                return;
            }
        }
    }

    fn outgoing(&mut self, mut parts: Parts) -> Request<B> {
        if let Some(validation) = &self.question.validation {
            validation.apply(&mut parts.headers);
        } else if self.escort.lead.is_some() {
            // The answer is for all followers, whatever this client has already.
            strip_conditions(&mut parts.headers);
        }
        for (name, value) in &self.question.preconditions {
            parts.headers.insert(name.clone(), value.clone());
        }
        Request::from_parts(parts, std::mem::take(&mut self.body))
    }

    /// The stored response in place of a failure, if the rules allow it.
    fn stand_in(&self, failure: Failure) -> Option<Asked<S::Body>> {
        let validation = self.question.validation.as_ref()?;
        let now = self.route.inner().now();
        let found = self.question.candidates.first()?;
        validation.may_serve_stale(failure, now).then(|| {
            let landing = Landing::StandIn(found.response.clone(), failure);
            self.share(&landing);
            Asked::Stored(landing)
        })
    }

    /// What a 304 makes of the stored responses; `None` if it is about none of them.
    fn confirm(
        &mut self,
        headers: &http::HeaderMap,
        asked_at: UnixMs,
        fence: Fence,
    ) -> Option<Asked<S::Body>> {
        let wholes: Vec<&Whole> =
            self.question.candidates.iter().filter_map(|found| found.response.as_whole()).collect();
        let heads: Vec<&StoredHead> = wholes.iter().map(|whole| &whole.head).collect();
        let now = self.route.inner().now();
        let at = *nominated(&heads, headers, now).last()?;
        let (old, key) = (*wholes.get(at)?, self.question.candidates.get(at)?.key.clone());
        let view = self.client.view();
        let Freshened { mut head, fate } =
            freshen(&self.route.policy, &view, &old.head, headers, asked_at, now);
        self.route.strip_surrogate_key(&mut head);
        let (tags, fate) = match self.target.tags(headers) {
            Some(tags) if tags.is_empty() => (old.tags.clone(), fate),
            Some(tags) => (tags, fate),
            // No purge would find it: what is stored stays as it is.
            None => {
                raise(&self.route.inner().counts.untaggable);
                (Vec::new(), if fate == Fate::Replace { Fate::Leave } else { fate })
            }
        };
        let whole = Whole { head, body: old.body.clone(), tags };
        let body = whole.body.clone();
        let mut fill = self.fill(Arc::new(whole.head.clone()), whole.tags.clone(), fence);
        let landing = Landing::Confirmed(StoredResponse::whole(whole));
        match fate {
            Fate::Replace => {
                if let Some(lead) = &fill.escort.lead {
                    lead.share(landing.clone());
                }
                load::spawn(fill.store(body));
            }
            Fate::Leave => {}
            Fate::Remove(refusal) => {
                self.route.inner().counts.refused(refusal);
                // The followers ask for themselves, but not before it is gone.
                let lead = fill.escort.lead.take();
                load::spawn(async move {
                    drop(fill.route.inner().store.remove_key(&key, false).await);
                    drop(lead);
                });
            }
        }
        Some(Asked::Stored(landing))
    }

    /// A whole answer: stored while it is streamed, or handed on.
    pub(crate) fn receive(
        mut self,
        response: Response<S::Body>,
        asked_at: UnixMs,
        fence: Fence,
    ) -> Asked<S::Body> {
        let (parts, body) = response.into_parts();
        let (head, tags) = match self.admit(&parts, body.size_hint().lower(), asked_at) {
            Ok(admitted) => admitted,
            Err(reason) => return Asked::Own(Response::from_parts(parts, body), Some(reason)),
        };
        let config = &self.route.inner().config;
        let expected = length(&parts).or(body.size_hint().exact());
        let (growing, filler) = Growing::new(config.max_body_bytes, config.window_bytes, expected);
        let Some(reader) = growing.reader() else {
            return Asked::Own(Response::from_parts(parts, body), None);
        };
        let live = Live { head: Arc::new(head), body: growing };
        self.share(&Landing::Live(live.clone()));
        let fill = self.fill(Arc::clone(&live.head), tags, fence);
        load::spawn(fill.run(body, filler));
        Asked::Live(parts, live, reader)
    }

    /// Whether an answer may be stored, and with which tags.
    fn admit(
        &self,
        parts: &response::Parts,
        least: u64,
        asked_at: UnixMs,
    ) -> Result<(StoredHead, Vec<String>), &'static str> {
        let inner = self.route.inner();
        if !self.question.may_store || self.client.method == Method::HEAD {
            return Err("request");
        }
        let view = self.client.view();
        let (policy, now) = (&self.route.policy, inner.now());
        let mut head = admit(policy, &view, parts.status, &parts.headers, asked_at, now).map_err(
            |refusal| {
                inner.counts.refused(refusal);
                if refusal.is_lasting() && view.is_lookup() {
                    inner.mark(&self.question.flight_key);
                }
                refusal.as_str()
            },
        )?;
        if length(parts).unwrap_or(0).max(least) > inner.config.max_body_bytes as u64 {
            raise(&inner.counts.too_large);
            inner.mark(&self.question.flight_key);
            return Err("too-large");
        }
        // A stream of events is one client's, however long it is said to be fresh, and has no end.
        if parts.headers.get(header::CONTENT_TYPE).is_some_and(is_event_stream) {
            raise(&inner.counts.too_large);
            inner.mark(&self.question.flight_key);
            return Err("event-stream");
        }
        let Some(tags) = self.target.tags(&parts.headers) else {
            raise(&inner.counts.untaggable);
            inner.mark(&self.question.flight_key);
            return Err("surrogate-key");
        };
        self.route.strip_surrogate_key(&mut head);
        Ok((head, tags))
    }

    fn fill(&mut self, head: Arc<StoredHead>, tags: Vec<String>, fence: Fence) -> Fill {
        let names = head.vary_names();
        Fill {
            route: Arc::clone(&self.route),
            target: self.target.clone(),
            secondary: vary::secondary_key(&names, &self.client.headers),
            names,
            head,
            tags,
            fence,
            flight_key: self.question.flight_key.clone(),
            escort: std::mem::take(&mut self.escort),
        }
    }

    fn share(&self, landing: &Landing) {
        if let Some(lead) = &self.escort.lead {
            lead.share(landing.clone());
        }
    }
}

fn is_event_stream(value: &HeaderValue) -> bool {
    let kind = b"text/event-stream";
    value.as_bytes().get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

fn length(parts: &response::Parts) -> Option<u64> {
    parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
