//! Exchange rates from a service outside: asked over HTTP, behind a breaker, and answered with what it
//! said last while it is away.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use escala_cluster::{Breaker, BreakerLayer, Classify as _, Open, ServerErrorsFail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use super::problem::Problem;
use super::reads::now_ms;

/// What the accounts are kept in.
const BASE: &str = "USD";
/// How long a client waits for the service: head and body.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection is kept without a request: shorter than servers keep theirs.
const KEPT: Duration = Duration::from_secs(4);
/// Longest answer that is read: one rate has a hundred bytes, all of them some thousands.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How old a rate may be that stands in for a service that is away: a day, the interval at which
/// central banks publish theirs.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Currencies whose last rate is remembered: there are 180.
const MOST_REMEMBERED: usize = 256;

/// A rate, and since when it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rate {
    /// What the base is worth.
    pub rate: f64,
    /// When the service said so, in milliseconds since 1970.
    pub read_ms: u64,
    /// Whether it is what was last known, since the service does not answer.
    pub stale: bool,
}

/// A rate of the accounts' currency in another one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Quoted {
    base: &'static str,
    currency: Currency,
    #[serde(flatten)]
    rate: Rate,
}

/// Three capital letters, as ISO 4217 has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub(super) struct Currency(String);

impl Currency {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let letters = text.bytes().all(|byte| byte.is_ascii_uppercase());
        if letters && text.len() == 3 {
            return Ok(Self(text.to_owned()));
        }
        Err(Problem::invalid("currency", text, "must be three capital letters, like EUR"))
    }
}

/// What the service says of all currencies it was asked for; nothing unless its status is 200.
type Answer = Response<HashMap<String, f64>>;

/// Why there is no rate.
#[derive(Debug, thiserror::Error)]
enum RateError {
    #[error("the service for exchange rates answered with status {0}")]
    Refused(StatusCode),
    #[error("the service for exchange rates answered with something else")]
    Malformed(#[source] serde_json::Error),
    #[error("the service for exchange rates gave a rate that cannot be")]
    Senseless,
    #[error("the service for exchange rates did not answer in time")]
    TimedOut,
}

/// The service, and what it said last. Clones share both.
#[derive(Clone)]
pub(super) struct Rates {
    service: BoxCloneSyncService<Currency, Answer, BoxError>,
    known: Arc<Mutex<HashMap<Currency, Rate>>>,
}

impl Rates {
    /// Asks the service at `url`, which answers `?base=USD&symbols=EUR` with
    /// `{"rates": {"EUR": 0.92}}`, as those that republish the European Central Bank's rates do.
    pub(super) fn new(url: &Uri, breaker: &Breaker) -> Self {
        let (client, url) = (client(), url.clone());
        let ask = move |currency: Currency| {
            let request = request(&url, &currency);
            let client = client.clone();
            async move {
                let answer = tokio::time::timeout(PATIENCE, exchange(&client, request?)).await;
                answer.unwrap_or_else(|_| Err(RateError::TimedOut.into()))
            }
        };
        // By the head, Retry-After included. The body has been read within the call: one that
        // breaks off, or is something else, is an error.
        let judge = |result: Result<&Answer, &BoxError>| ServerErrorsFail.classify(result);
        let service = ServiceBuilder::new()
            .layer(BreakerLayer::new(breaker.clone()).classify(judge))
            .service_fn(ask);
        Self { service: BoxCloneSyncService::new(service), known: Arc::default() }
    }

    /// What one unit of the accounts' currency is worth in `currency`: as the service says, or said
    /// at most a day ago if it does not answer.
    pub(super) async fn quote(&self, currency: Currency) -> Result<Quoted, Problem> {
        let answer = self.service.clone().oneshot(currency.clone()).await;
        let rate = match answer.and_then(|answer| read(&answer, &currency).map_err(Into::into)) {
            Ok(Some(rate)) => self.learn(&currency, rate),
            Ok(None) => return Err(Problem::absent("currency", &currency.0)),
            Err(error) => self.last_known(&currency, &*error)?,
        };
        Ok(Quoted { base: BASE, currency, rate })
    }

    fn learn(&self, currency: &Currency, rate: f64) -> Rate {
        let rate = Rate { rate, read_ms: now_ms(), stale: false };
        let mut known = self.known.lock();
        if known.len() < MOST_REMEMBERED || known.contains_key(currency) {
            known.insert(currency.clone(), rate);
        }
        rate
    }

    fn last_known(
        &self,
        currency: &Currency,
        error: &(dyn std::error::Error + Send + Sync + 'static),
    ) -> Result<Rate, Problem> {
        let rate = self.known.lock().get(currency).copied();
        let left_alone = error.downcast_ref::<Open>();
        if left_alone.is_none() {
            tracing::warn!(error = error as &dyn std::error::Error, "no exchange rate");
        }
        match rate {
            Some(rate) if Duration::from_millis(now_ms().saturating_sub(rate.read_ms)) < OLDEST => {
                Ok(Rate { stale: true, ..rate })
            }
            _ => Err(Problem::left_alone(
                "the service for exchange rates is away",
                left_alone.map(|open| open.retry_after),
            )),
        }
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Document {
    rates: HashMap<String, f64>,
}

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(PATIENCE));
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(KEPT)
        .pool_timer(TokioTimer::new())
        .build(connector)
}

fn request(url: &Uri, currency: &Currency) -> Result<Request<Empty<Bytes>>, BoxError> {
    let url = format!("{url}?base={BASE}&symbols={}", currency.0);
    Ok(Request::get(url).header(header::ACCEPT, "application/json").body(Empty::new())?)
}

/// Head and body.
async fn exchange(client: &HttpClient, request: Request<Empty<Bytes>>) -> Result<Answer, BoxError> {
    let (head, body) = client.request(request).await?.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await?.to_bytes();
    let rates = match head.status {
        StatusCode::OK => {
            let document: Document = serde_json::from_slice(&body).map_err(RateError::Malformed)?;
            document.rates
        }
        _ => HashMap::new(),
    };
    Ok(Response::from_parts(head, rates))
}

/// `None`: the service knows no such currency.
fn read(answer: &Answer, currency: &Currency) -> Result<Option<f64>, RateError> {
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => {
            return Ok(None);
        }
        status => return Err(RateError::Refused(status)),
    }
    match answer.body().get(&currency.0) {
        None => Ok(None),
        Some(rate) if rate.is_finite() && *rate > 0.0 => Ok(Some(*rate)),
        Some(_) => Err(RateError::Senseless),
    }
}
