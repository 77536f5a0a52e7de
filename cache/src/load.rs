//! The task of one load: ask the shared layer, then the source, then fill the layers.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cache::Core;
use crate::error::Failure;
use crate::flight::{Lead, Outcome};
use crate::key::CacheKey;
use crate::shared::wall_ms;

/// Flies one flight. Owned by no caller: it ends when it is done.
pub(crate) async fn fly<K, V, E, F, Fut>(
    core: Arc<Core<K, V>>,
    lead: Lead<K, V>,
    ttl: Duration,
    load: F,
) where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<V, E>>,
{
    let Lead { ticket, runway, trusts_shared } = lead;
    let fill = |value: &V, life: Duration, writing: bool| {
        let store = || core.memory.insert(ticket.key().clone(), value.clone(), life);
        let stored = ticket.publish(writing, store);
        if !stored {
            core.loads.discarded.fetch_add(1, Ordering::Relaxed);
        }
        stored
    };
    if let Some(shared) = core.shared.as_ref().filter(|_| trusts_shared)
        && let Some((value, left)) = shared.get(&ticket.key().text()).await
    {
        fill(&value, left, false);
        drop(ticket);
        runway.send_replace(Some(Ok(value)));
        return;
    }
    // The value is at best as new as the moment its load began.
    let created_ms = wall_ms();
    let value = match from_source(&core, load).await {
        Ok(value) => value,
        Err(failure) => {
            // Off the map first: who calls after the callers heard of it starts anew.
            drop(ticket);
            runway.send_replace(Some(Err(failure)));
            return;
        }
    };
    let life = core.lifetime(ttl);
    let stored = !life.is_zero() && fill(&value, life, core.shared.is_some());
    if !stored {
        drop(ticket);
        runway.send_replace(Some(Ok(value)));
        return;
    }
    // The callers need not wait for the shared layer; a removal does, through the ticket.
    runway.send_replace(Some(Ok(value.clone())));
    if let Some(shared) = &core.shared {
        // That nothing stood there was just seen, so a failed write leaves nothing old behind;
        // the layer has counted the fault.
        shared.set(&ticket.key().text(), &value, created_ms, life).await.ok();
    }
    drop(ticket);
}

/// Spawns work that must end even if its caller goes away, within the caller's span.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    #[cfg(feature = "tracing")]
    let work = tracing::Instrument::in_current_span(work);
    tokio::spawn(work)
}

/// Runs the user's load: bounded in time, its panic caught, its end counted.
async fn from_source<K, V, E, F, Fut>(core: &Core<K, V>, load: F) -> Outcome<V>
where
    E: Send + Sync + 'static,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<V, E>>,
{
    let token = core.loads.start();
    // Called inside the guarded future, since the closure itself may panic as well.
    let load = guarded(async move { load().await });
    let outcome = match tokio::time::timeout(core.load_timeout, load).await {
        Ok(Ok(loaded)) => loaded.map_err(Failure::source),
        Ok(Err(panic)) => Err(panic),
        Err(_) => Err(Failure::TimedOut),
    };
    #[cfg(feature = "tracing")]
    if let Err(Failure::Panicked { message }) = &outcome {
        crate::events::load_panicked(&core.name, message);
    }
    token.settle(&outcome);
    outcome
}

/// Turns a panic of `load` into a failure. The future is never polled again after it, so its
/// broken state cannot be seen.
async fn guarded<T>(load: impl Future<Output = T>) -> Result<T, Failure> {
    let mut load = pin!(load);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(payload) => Poll::Ready(Err(Failure::panicked(&*payload))),
    })
    .await
}
