//! The handle that everything hangs on, and its builder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::alerts::{Alert, Sink};
use crate::health::{Check, Checks, Document, Group};
use crate::monitor::Monitor;
use crate::page::Page;
use crate::score::Score;
use crate::source::{Emit, Sources};
use crate::system::Reader;
use crate::traffic::{HttpLayer, HttpSeries};
use crate::{ConfigError, Credentials, ObservabilityConfig, Signal, quiet, routes, snapshot, task};

/// Longest service name, version or environment.
const MAX_NAME: usize = 128;

/// One place that knows how the whole is doing: give it to the router, tell it of the parts, run
/// it. See the [crate page](crate) for an example.
///
/// Clones are handles to the same thing. Nothing is global: several live in one process, each with
/// series of its own.
#[derive(Debug, Clone)]
pub struct Observability {
    pub(crate) inner: Arc<Inner>,
}

type Gate = dyn Fn() -> bool + Send + Sync;
type Gauge = dyn Fn() -> f64 + Send + Sync;

/// What the handle, the routes and the background task share.
pub(crate) struct Inner {
    pub(crate) service: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) environment: Arc<str>,
    pub(crate) config: ObservabilityConfig,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) started: Instant,
    pub(crate) http: Arc<HttpSeries>,
    pub(crate) sources: Sources,
    pub(crate) checks: Checks,
    pub(crate) system: Reader,
    pub(crate) page: Page,
    pub(crate) monitor: Mutex<Monitor>,
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) scrape: tokio::sync::Mutex<crate::scrape::Cached>,
    /// When the background task last came round; none before its start and after its end.
    pub(crate) heartbeat: Mutex<Option<Instant>>,
    pub(crate) running: AtomicBool,
    gates: RwLock<Vec<Arc<Gate>>>,
    signals: RwLock<[Option<Arc<Gauge>>; 6]>,
}

/// Sets up an [`Observability`].
#[derive(Debug)]
#[must_use]
pub struct ObservabilityBuilder {
    service: String,
    version: String,
    environment: String,
    config: ObservabilityConfig,
    credentials: Option<Credentials>,
    sinks: Sinks,
}

struct Sinks(Vec<Box<dyn Sink>>);

impl Observability {
    /// Starts the setup of a service of this name: it appears in `build_info`, in the health
    /// document and in the page's title.
    pub fn builder(service: impl Into<String>) -> ObservabilityBuilder {
        ObservabilityBuilder {
            service: service.into(),
            version: String::new(),
            environment: "development".to_owned(),
            config: ObservabilityConfig::default(),
            credentials: None,
            sinks: Sinks(Vec::new()),
        }
    }

    /// The layer that counts and times requests; its clones share this handle's series.
    #[must_use]
    pub fn http_layer(&self) -> HttpLayer {
        HttpLayer::new(Arc::clone(&self.inner.http))
    }

    /// Shows the figures of another part as metrics (`escala_<source>_<name>`) and on the
    /// dashboard. A second source of the same name replaces the first.
    ///
    /// A figure whose name already begins with the source's does not say it twice.
    ///
    /// `visit` runs at each scrape and each poll of the dashboard, so it should be a look at
    /// counters; it must not block. A panic in it is logged and costs its own figures only.
    ///
    /// ```
    /// # let obs = escala_observability::Observability::builder("shop").build().unwrap();
    /// obs.source("pool", |emit| {
    ///     emit("size", &[], 10.0);
    ///     emit("acquired_total", &[("lane", "main")], 1_724.0);
    /// });
    /// ```
    pub fn source<F>(&self, name: &str, visit: F)
    where
        F: Fn(&mut Emit<'_>) + Send + Sync + 'static,
    {
        self.inner.sources.add(name, Arc::new(visit));
    }

    /// Adds a health check. It runs as soon as [`run`](Self::run) does, then by its interval; a
    /// second check of the same name replaces the first.
    pub fn check(&self, check: Check) {
        self.inner.checks.add(check, Instant::now());
    }

    /// Adds a readiness gate: `/readyz` passes only while every gate says `true`. A gate that
    /// panics is closed.
    pub fn ready_when<F>(&self, gate: F)
    where
        F: Fn() -> bool + Send + Sync + 'static,
    {
        self.inner.gates.write().push(Arc::new(gate));
    }

    /// Gives a signal its value, instead of what this crate measures by itself. Sampled by the
    /// background task; in the signal's unit.
    pub fn signal<F>(&self, signal: Signal, value: F)
    where
        F: Fn() -> f64 + Send + Sync + 'static,
    {
        self.inner.signals.write()[signal.index()] = Some(Arc::new(value));
    }

    /// The endpoints, to be merged into the application's router or served on a port of their
    /// own; the [crate page](crate) lists them.
    pub fn router(&self) -> axum::Router {
        routes::router(self)
    }

    /// Puts an application's own status routes behind the credentials of the dashboard; open if
    /// none are configured. Covers the routes added so far, not the fallback.
    ///
    /// # Panics
    /// If there is no route to cover.
    pub fn protect<S>(&self, routes: axum::Router<S>) -> axum::Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        routes::protect(self, routes)
    }

    /// Starts the background task: samples, checks and alerts, until `shutdown` ends or the last
    /// handle (with its routers) is gone.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn run<F>(&self, shutdown: F) -> task::Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        task::Task::spawn(Arc::downgrade(&self.inner), shutdown)
    }

    /// The score as of now, from the latest sample and the checks.
    #[must_use]
    pub fn health_score(&self) -> Score {
        self.inner.score(Instant::now())
    }

    /// The alerts that are active, worst first.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        self.inner.monitor.lock().alerts()
    }

    /// What the dashboard shows, as JSON.
    #[must_use]
    pub fn snapshot(&self) -> serde_json::Value {
        snapshot::whole(&self.inner, Instant::now())
    }
}

impl Inner {
    pub(crate) fn score(&self, now: Instant) -> Score {
        let checks = self.checks.views(now);
        self.monitor.lock().score(now, &self.config.thresholds, &checks)
    }

    fn gates_open(&self) -> bool {
        let gates = self.gates.read().clone();
        gates.iter().all(|gate| quiet::call("readiness gate", "", || gate()).unwrap_or(false))
    }

    /// The application's value for a signal; the outer `None` means it gave no closure.
    pub(crate) fn given(&self, signal: Signal) -> Option<Option<f64>> {
        let gauge = self.signals.read()[signal.index()].clone()?;
        Some(quiet::call("signal", signal.name(), || gauge()))
    }

    /// Whether the background task's heart beats, as far as it was ever started.
    pub(crate) fn alive(&self, now: Instant) -> bool {
        // Ten rounds, but no less than half a minute: a busy machine is not a dead process.
        let most = (self.config.metrics_interval * 10).max(std::time::Duration::from_secs(30));
        self.heartbeat.lock().is_none_or(|at| now.saturating_duration_since(at) <= most)
    }

    /// Whether the answer is good, and its document.
    pub(crate) fn health(&self, group: Group, detailed: bool) -> (bool, serde_json::Value) {
        let now = Instant::now();
        let checks = self.checks.views(now);
        let score = self.monitor.lock().score(now, &self.config.thresholds, &checks);
        let document = Document {
            service: &self.service,
            version: &self.version,
            uptime: now.saturating_duration_since(self.started),
            checks: &checks,
            score: &score,
            gates_open: self.gates_open(),
        };
        let json = if detailed { document.detailed(group) } else { document.brief(group) };
        (document.status(group) != crate::Status::Fail, json)
    }
}

impl ObservabilityBuilder {
    /// The service's own version, for `build_info` and the health document.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Where it runs, such as `production`; `development` unless set.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = environment.into();
        self
    }

    /// Intervals, thresholds and bounds.
    pub fn config(mut self, config: ObservabilityConfig) -> Self {
        self.config = config;
        self
    }

    /// What `/metrics`, `/dashboard` and the health details ask for. `None` leaves them open to
    /// everybody: for development, or behind a port that only operators reach.
    pub fn credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Adds a receiver of alert events besides the log.
    pub fn sink(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.0.push(Box::new(sink));
        self
    }

    /// Checks everything and makes the handle. Starts nothing.
    ///
    /// # Errors
    /// The first broken rule, with the field and its value.
    pub fn build(self) -> Result<Observability, ConfigError> {
        self.config.validate()?;
        for (field, value, empty_allowed) in [
            ("service", &self.service, false),
            ("version", &self.version, true),
            ("environment", &self.environment, false),
        ] {
            let empty = value.is_empty() && !empty_allowed;
            if empty || value.len() > MAX_NAME || value.contains(char::is_control) {
                let rule = "must be 1 to 128 bytes without control characters";
                return Err(ConfigError::new(field, format!("{value:?}"), rule));
            }
        }
        if let Some(credentials) = &self.credentials {
            credentials.validate()?;
        }
        let started = Instant::now();
        let http = Arc::new(HttpSeries::new(self.config.max_routes));
        let inner = Inner {
            service: self.service.into(),
            version: self.version.into(),
            environment: self.environment.into(),
            credentials: self.credentials,
            started,
            http,
            sources: Sources::default(),
            checks: Checks::default(),
            system: Reader::new(),
            page: Page::new(),
            monitor: Mutex::new(Monitor::new(&self.config, started)),
            sinks: self.sinks.0,
            scrape: tokio::sync::Mutex::default(),
            heartbeat: Mutex::new(None),
            running: AtomicBool::new(false),
            gates: RwLock::default(),
            signals: RwLock::default(),
            config: self.config,
        };
        Ok(Observability { inner: Arc::new(inner) })
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("service", &self.service)
            .field("version", &self.version)
            .field("environment", &self.environment)
            .field("config", &self.config)
            .field("credentials", &self.credentials)
            .field("sources", &self.sources)
            .field("running", &self.running.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sinks", self.0.len())
    }
}
