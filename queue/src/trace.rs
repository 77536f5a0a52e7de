//! Events on the `tracing` facade, behind feature `tracing`; without it these cost nothing.
//!
//! A subscriber is the user's and may panic; that must not cost a worker.
//!
//! Neither payload nor idempotency key is ever shown. The reason is the handler's own text.

#[cfg(feature = "tracing")]
use crate::attempt::guarded;
use crate::job::Job;
use crate::lane::Lane;
use crate::retry::Verdict;

#[cfg(not(feature = "tracing"))]
pub(crate) fn settled(_: &Job, _: &Verdict) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn service_failed(_: Lane, _: &str) {}

/// Tells of jobs that did not simply end.
#[cfg(feature = "tracing")]
pub(crate) fn settled(job: &Job, verdict: &Verdict) {
    let Job { id, kind, lane, attempt, .. } = job;
    let _ = guarded(|| match verdict {
        Verdict::Finish | Verdict::Snooze { .. } => {}
        Verdict::Discard { reason } => {
            tracing::info!(%id, %kind, %lane, attempt, reason, "job discarded");
        }
        Verdict::Retry { delay, reason, .. } => {
            tracing::warn!(%id, %kind, %lane, attempt, reason, ?delay, "job will be retried");
        }
        Verdict::Bury { reason, .. } => {
            tracing::error!(%id, %kind, %lane, attempt, reason, "job is dead");
        }
    });
}

/// Tells that a worker cannot work.
#[cfg(feature = "tracing")]
pub(crate) fn service_failed(home: Lane, error: &str) {
    let _ = guarded(|| {
        tracing::error!(lane = %home, error, "the job service failed to become ready");
    });
}
