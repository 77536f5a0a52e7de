//! The user's load: bounded in time, its panic caught, its end counted.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::cache::Core;
use crate::error::Failure;

/// What the cache still has under the key that is being loaded, however old.
///
/// A load may ask its source "what is new since" with it, and answer
/// [`Entry::unchanged`](crate::Entry::unchanged). What was removed is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Previous<V> {
    /// The value. `None` if the cache has none, or knows that there is none.
    pub value: Option<V>,
    /// What the source called that state, given with
    /// [`Entry::validator`](crate::Entry::validator).
    pub validator: Option<Box<str>>,
}

impl<V> Previous<V> {
    pub(crate) fn new(value: Option<V>, validator: Option<Box<str>>) -> Self {
        Self { value, validator }
    }

    pub(crate) fn none() -> Self {
        Self { value: None, validator: None }
    }
}

/// Runs the load of one key, or of many at once.
pub(crate) async fn load<K, V, P, T, E, F, Fut>(
    core: &Core<K, V>,
    argument: P,
    load: F,
) -> Result<T, Failure>
where
    E: Send + Sync + 'static,
    F: FnOnce(P) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let token = core.loads.start();
    // Called inside the guarded future, since the closure itself may panic as well.
    let load = guarded(async move { load(argument).await });
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
