//! An origin that can be held up and told what to answer, and the cache in front of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::Request;
use escala_cache::Cache;
use escala_cache::http::{
    HttpCache, HttpCacheConfig, HttpCacheLayer, HttpCacheStats, StoredResponse,
};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::ServiceExt;

/// 2026-01-01; the paused clock of the test goes on from there.
const START: u64 = 1_767_225_600;

/// A cache in memory whose clock is the test's.
pub(crate) fn cache(config: HttpCacheConfig) -> HttpCache {
    over(HttpCache::storage("pages").build().unwrap(), config)
}

pub(crate) fn over(cache: Cache<String, StoredResponse>, config: HttpCacheConfig) -> HttpCache {
    let start = Instant::now();
    let clock = move || UNIX_EPOCH + Duration::from_secs(START) + start.elapsed();
    HttpCache::with_clock(cache, config, clock).unwrap()
}

/// A clock at one of whose looks something happens on another thread, to its end.
#[derive(Default)]
pub(crate) struct Interrupted {
    seconds: AtomicU64,
    looks: AtomicU64,
    waiting: Mutex<Option<(u64, Event)>>,
}

type Event = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Interrupted {
    /// The clock of a cache in memory.
    pub(crate) fn cache() -> (Arc<Self>, HttpCache) {
        let clock = Arc::new(Self::default());
        let storage = HttpCache::storage("pages").build().unwrap();
        let now = {
            let clock = Arc::clone(&clock);
            move || clock.now()
        };
        let cache = HttpCache::with_clock(storage, HttpCacheConfig::default(), now).unwrap();
        (clock, cache)
    }

    pub(crate) fn forward(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn back(&self, seconds: u64) {
        self.seconds.fetch_sub(seconds, Ordering::SeqCst);
    }

    /// At the `look`-th look from now on `event` happens.
    pub(crate) fn interrupt(&self, look: u64, event: impl Future<Output = ()> + Send + 'static) {
        self.looks.store(0, Ordering::SeqCst);
        *self.waiting.lock() = Some((look, Box::pin(event)));
    }

    pub(crate) fn has_interrupted(&self) -> bool {
        self.waiting.lock().is_none()
    }

    fn now(&self) -> SystemTime {
        let look = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
        let due = self.waiting.lock().take_if(|(at, _)| *at == look);
        if let Some((_, event)) = due {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            std::thread::spawn(move || runtime.block_on(event)).join().unwrap();
        }
        UNIX_EPOCH + Duration::from_secs(START + self.seconds.load(Ordering::SeqCst))
    }
}

/// The date `seconds` after the start, as HTTP writes it.
pub(crate) fn date(seconds: i64) -> String {
    let at = START.saturating_add_signed(seconds);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at))
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

type Script = dyn Fn(&Parts, usize) -> Response<AxumBody> + Send + Sync;

/// Answers by its script, which is told the request and how many came before it.
#[derive(Clone)]
pub(crate) struct Origin {
    inner: Arc<OriginInner>,
}

struct OriginInner {
    script: Mutex<Arc<Script>>,
    requests: Mutex<Vec<Parts>>,
    begun: Semaphore,
    gate: Mutex<Option<Arc<Semaphore>>>,
    ended: AtomicUsize,
}

impl Origin {
    pub(crate) fn new(
        script: impl Fn(&Parts, usize) -> Response<AxumBody> + Send + Sync + 'static,
    ) -> Self {
        let inner = OriginInner {
            script: Mutex::new(Arc::new(script)),
            requests: Mutex::default(),
            begun: Semaphore::new(0),
            gate: Mutex::default(),
            ended: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers every request with these fields and a body that numbers it.
    pub(crate) fn counting(fields: &'static [(&'static str, &'static str)]) -> Self {
        Self::new(move |_, n| respond(fields, &format!("answer {n}")))
    }

    pub(crate) fn set(
        &self,
        script: impl Fn(&Parts, usize) -> Response<AxumBody> + Send + Sync + 'static,
    ) {
        *self.inner.script.lock() = Arc::new(script);
    }

    /// Requests wait from now on until they are let through.
    pub(crate) fn close(&self) {
        *self.inner.gate.lock() = Some(Arc::new(Semaphore::new(0)));
    }

    pub(crate) fn let_through(&self, requests: usize) {
        self.inner.gate.lock().as_ref().unwrap().add_permits(requests);
    }

    /// No gate from now on, for those that wait as well.
    pub(crate) fn open(&self) {
        if let Some(gate) = self.inner.gate.lock().take() {
            gate.add_permits(Semaphore::MAX_PERMITS / 2);
        }
    }

    /// Waits until one more request has come.
    pub(crate) async fn begun(&self) {
        self.inner.begun.acquire().await.unwrap().forget();
    }

    pub(crate) fn requests(&self) -> usize {
        self.inner.requests.lock().len()
    }

    /// Requests that got their answer: the others wait, or were dropped.
    pub(crate) fn ended(&self) -> usize {
        self.inner.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn last(&self) -> Parts {
        self.inner.requests.lock().last().unwrap().clone()
    }

    async fn handle(self, request: Request) -> Response<AxumBody> {
        let (parts, _) = request.into_parts();
        let number = {
            let mut requests = self.inner.requests.lock();
            requests.push(parts.clone());
            requests.len() - 1
        };
        self.inner.begun.add_permits(1);
        let gate = self.inner.gate.lock().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        let script = Arc::clone(&self.inner.script.lock());
        self.inner.ended.fetch_add(1, Ordering::SeqCst);
        script(&parts, number)
    }

    /// A router that answers every path and method.
    pub(crate) fn router(&self) -> Router {
        let origin = self.clone();
        Router::new().fallback(move |request: Request| origin.clone().handle(request))
    }

    /// The router behind a layer.
    pub(crate) fn behind(&self, layer: HttpCacheLayer) -> Router {
        self.router().layer(layer)
    }
}

/// 200 with these fields.
pub(crate) fn respond(fields: &[(&str, &str)], body: &str) -> Response<AxumBody> {
    answer(200, fields, body)
}

pub(crate) fn answer(status: u16, fields: &[(&str, &str)], body: &str) -> Response<AxumBody> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(AxumBody::from(body.to_owned())).unwrap()
}

/// What a client got.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// How the cache says it handled the request, with a space after each semicolon.
    pub(crate) fn how(&self) -> String {
        let how = self.field("cache-status").strip_prefix("escala;").unwrap_or_default();
        how.replace(';', "; ")
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.how().starts_with("hit")
    }
}

pub(crate) fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Request {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(AxumBody::empty()).unwrap()
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(app: &Router, request: Request) -> Got {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    settle().await;
    Got {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

pub(crate) async fn get(app: &Router, uri: &str) -> Got {
    get_with(app, uri, &[]).await
}

pub(crate) async fn get_with(app: &Router, uri: &str, fields: &[(&str, &str)]) -> Got {
    send(app, request("GET", uri, fields)).await
}

/// Lets the tasks that fill the store run as far as they can.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// The sum of the outcomes, which is the number of requests at every moment.
pub(crate) fn assert_adds_up(stats: &HttpCacheStats) {
    let ended = stats.hits
        + stats.stale
        + stats.revalidated
        + stats.coalesced
        + stats.misses
        + stats.bypassed
        + stats.unsatisfiable
        + stats.purges
        + stats.failed
        + stats.cancelled;
    assert_eq!(stats.requests, ended + stats.in_flight, "{stats:?}");
}
