//! One contributor to the health of the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

type Outcome = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
pub(super) type Run = dyn Fn() -> Outcome + Send + Sync;

/// A check of one dependency or part: a name and an async closure that says what is wrong.
///
/// ```
/// use std::time::Duration;
/// use escala_observability::Check;
///
/// let disk = Check::new("disk", || async {
///     tokio::fs::metadata("/").await.map(drop).map_err(|e| e.to_string())
/// })
/// .critical()
/// .interval(Duration::from_secs(30))
/// .timeout(Duration::from_secs(2));
/// ```
///
/// # Readiness
/// A [`critical`](Self::critical) check decides about `/readyz`. Use that for what belongs to
/// this instance alone: a database that all instances share takes all of them out at once.
///
/// # Cancellation
/// A run that exceeds its timeout is dropped at its next await. One that never awaits cannot be
/// dropped: no further run starts until it ends, and its last result expires meanwhile.
#[derive(Clone)]
pub struct Check {
    pub(super) name: Arc<str>,
    pub(super) run: Arc<Run>,
    pub(super) critical: bool,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) failures: u32,
}

impl Check {
    /// Not critical, every 15 s (the documented interval of a database's health check), 5 s
    /// timeout (the documented connection timeout), failed at the second failure in a row.
    #[must_use]
    pub fn new<F, R>(name: impl Into<Arc<str>>, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self {
            name: name.into(),
            run: Arc::new(move || Box::pin(check())),
            critical: false,
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(5),
            failures: 2,
        }
    }

    /// The service cannot do without it: its failure fails `/health` and `/readyz`.
    #[must_use]
    pub fn critical(mut self) -> Self {
        self.critical = true;
        self
    }

    /// Time between two runs, ±10 % so that instances spread; at least 10 ms. While the check is
    /// failing it runs every second, if that is more often.
    ///
    /// A result older than three intervals warns, one older than ten fails.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(10));
        self
    }

    /// Most time for one run; never more than the interval.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many failures in a row fail the check; fewer warn. A check that has never passed fails
    /// at its first failure.
    #[must_use]
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures.max(1);
        self
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("critical", &self.critical)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
