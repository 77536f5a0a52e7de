//! The task that drives an origin's body to its end, for the readers and for the store.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use crate::BoxError;
use crate::http::engine::StoredHead;
use crate::http::flight::Lead;
use crate::http::growing::{BodyError, Filler, Keep};
use crate::http::landing::Landing;
use crate::http::route::Route;
use crate::http::stats::raise;
use crate::http::store::{Fence, Target, Terms};
use crate::http::stored::Whole;

/// What a request to the origin holds until its answer is stored, or will not be.
#[derive(Default)]
pub(crate) struct Escort {
    /// Followers join as long as this is there.
    pub(crate) lead: Option<Lead<Landing>>,
    /// One of the revalidations in the background.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// A response about to be stored, but for its body.
pub(crate) struct Fill {
    pub(crate) route: Arc<Route>,
    pub(crate) target: Target,
    pub(crate) head: Arc<StoredHead>,
    pub(crate) tags: Vec<String>,
    pub(crate) names: Vec<HeaderName>,
    pub(crate) secondary: u128,
    pub(crate) fence: Fence,
    pub(crate) flight_key: String,
    pub(crate) escort: Escort,
}

impl Fill {
    /// Drives `body` to its end, then stores it. Ends early if the body breaks, if nobody reads
    /// it and it cannot be stored, or if it takes too long with nobody reading.
    pub(crate) async fn run<B>(mut self, body: B, filler: Filler)
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        match self.drain(body, filler).await {
            Ok(Some(whole)) => self.store(whole).await,
            // Counted when it was given up.
            Ok(None) => {}
            Err(()) => raise(&self.route.inner().counts.incomplete),
        }
    }

    /// Stores what has come. The flight ends only after it, so that nobody finds neither.
    pub(crate) async fn store(self, body: Bytes) {
        let Self { route, target, head, tags, names, secondary, fence, flight_key, escort } = self;
        let inner = route.inner();
        let now = inner.now();
        let policy = &route.policy;
        let terms = Terms {
            life: head.retention(policy, now),
            now,
            max_variants: policy.max_variants,
            names: &names,
            secondary,
        };
        let whole = Whole { head: (*head).clone(), body, tags };
        if inner.store.insert(&target, whole, terms, fence).await {
            raise(&inner.counts.stored);
            inner.marks.clear(&flight_key);
        } else {
            raise(&inner.counts.discarded);
        }
        drop(escort);
    }

    async fn drain<B>(&mut self, body: B, filler: Filler) -> Result<Option<Bytes>, ()>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let config = &self.route.inner().config;
        let mut pump = Pump {
            body: pin!(body),
            filler,
            quiet: pin!(sleep(config.collapse_wait)),
            alone: pin!(sleep(config.fill_timeout)),
            since: None,
            wait: config.collapse_wait,
            timeout: config.fill_timeout,
        };
        let mut trailers: Option<HeaderMap> = None;
        loop {
            match poll_fn(|context| pump.poll(context)).await {
                Step::Frame(frame) => match frame.into_data() {
                    Ok(bytes) => {
                        if pump.filler.push(bytes) == Keep::GivenUp {
                            self.give_up();
                        }
                    }
                    Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
                },
                Step::End => return pump.filler.finish(trailers).map_err(drop),
                Step::Failed(error) => {
                    pump.filler.fail(BodyError::Origin(error.into()));
                    return Err(());
                }
                Step::Quiet => {
                    // Who comes now would hang on a body that may never go on.
                    self.escort.lead.iter().for_each(Lead::detach);
                    pump.filler.cut_slowest();
                }
                Step::Abandoned => {
                    let kept = pump.filler.is_keeping();
                    pump.filler.fail(BodyError::Abandoned);
                    return if kept { Err(()) } else { Ok(None) };
                }
            }
        }
    }

    /// The body is too long to be stored: nobody joins it any more, nor waits for the next one.
    fn give_up(&mut self) {
        let inner = self.route.inner();
        raise(&inner.counts.too_large);
        inner.mark(&self.flight_key);
        self.escort.lead = None;
    }
}

/// Takes from the origin as fast as it may.
struct Pump<'a, B> {
    body: Pin<&'a mut B>,
    filler: Filler,
    /// Ends when nothing has come for a while.
    quiet: Pin<&'a mut Sleep>,
    /// Ends when nobody has read for a while.
    alone: Pin<&'a mut Sleep>,
    /// Since when nobody reads.
    since: Option<Instant>,
    wait: Duration,
    timeout: Duration,
}

enum Step {
    Frame(Frame<Bytes>),
    End,
    Failed(BoxError),
    /// Neither the origin nor the slowest reader has moved for a while.
    Quiet,
    /// Nobody reads, and it is not worth to go on.
    Abandoned,
}

impl<B> Pump<'_, B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.filler.poll_alone(context).is_ready() {
            if !self.filler.is_keeping() {
                return Poll::Ready(Step::Abandoned);
            }
            if self.since.is_none() {
                let now = Instant::now();
                self.since = Some(now);
                self.alone.as_mut().reset(now + self.timeout);
            }
            if self.alone.as_mut().poll(context).is_ready() {
                return Poll::Ready(Step::Abandoned);
            }
        } else {
            self.since = None;
        }
        if self.filler.poll_room(context).is_ready()
            && let Poll::Ready(frame) = self.body.as_mut().poll_frame(context)
        {
            self.quiet.as_mut().reset(Instant::now() + self.wait);
            return Poll::Ready(match frame {
                Some(Ok(frame)) => Step::Frame(frame),
                Some(Err(error)) => Step::Failed(error.into()),
                None => Step::End,
            });
        }
        if self.quiet.as_mut().poll(context).is_ready() {
            self.quiet.as_mut().reset(Instant::now() + self.wait);
            return Poll::Ready(Step::Quiet);
        }
        Poll::Pending
    }
}
