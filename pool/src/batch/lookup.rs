//! Lookups by key: the handle, its future, and the task that asks.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::Instant;
use tower_service::Service;

use super::config::BatchConfig;
use super::engine::{Answer, Engine, Lane, Pending, answer, failed, guarded};
use super::error::BatchError;
use super::line::{Equal, Routes};
use super::stats::BatchStats;
use crate::config::ConfigError;

type BoxError = Box<dyn Error + Send + Sync>;

/// Batches under way at a time. With 64 tasks on a busy machine two give a tenth more than one, and
/// up to twice as much when the machine is crowded, for batches that are half as long.
const BATCHES: usize = 2;

/// Joins lookups by key into batches. Clones share the line.
///
/// The source gets keys that all differ, and returns pairs in any order; of two pairs with the same
/// key the last counts, and one for a key that was not asked for is ignored. A key without a pair
/// is missing, which is an answer: `None`.
///
/// It is also a tower service for one key; see the [module](super) for cancellation and limits.
pub struct Batcher<K: Clone + Eq + Hash + Send, V> {
    engine: Arc<Engine<K, Option<V>, Equal<K>>>,
}

impl<K, V> Batcher<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Makes a batcher over an async function of many keys.
    ///
    /// # Errors
    /// A limit breaks its rule.
    pub fn new<F, Fut, R, E>(config: BatchConfig, load: F) -> Result<Self, ConfigError>
    where
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = (K, V)>,
        E: Into<BoxError>,
    {
        Self::over(config, Function(Arc::new(load)))
    }

    /// Makes a batcher over a tower service for many keys. A task drives its own clone, which it
    /// makes ready before it takes the keys.
    ///
    /// # Errors
    /// A limit breaks its rule.
    pub fn over<S>(config: BatchConfig, service: S) -> Result<Self, ConfigError>
    where
        S: Service<Vec<K>> + Clone + Send + 'static,
        S::Response: IntoIterator<Item = (K, V)>,
        S::Error: Into<BoxError>,
        S::Future: Send,
    {
        config.validate()?;
        Ok(Self::with_valid(config, service))
    }

    pub(super) fn with_valid<S>(config: BatchConfig, service: S) -> Self
    where
        S: Service<Vec<K>> + Clone + Send + 'static,
        S::Response: IntoIterator<Item = (K, V)>,
        S::Error: Into<BoxError>,
        S::Future: Send,
    {
        // Behind a lock, so that the service need not be `Sync`.
        let service = Arc::new(Mutex::new(service));
        let engine = Engine::new(config, BATCHES, move |lane| {
            let service = Arc::clone(&service);
            work(lane, move || service.lock().clone())
        });
        Self { engine }
    }

    /// Looks one key up. `None` means that the source has no value for it.
    ///
    /// # Errors
    /// [`BatchError`].
    pub async fn get(&self, key: K) -> Answer<Option<V>> {
        self.engine.enter(key)?.await
    }

    /// Looks several keys up; the values stand in the order of the keys. All enter together or
    /// none, so at most `max_waiters`; they may share batches with others and take several.
    ///
    /// # Errors
    /// The first [`BatchError`] of any key.
    pub async fn get_many<I>(&self, keys: I) -> Answer<Vec<Option<V>>>
    where
        I: IntoIterator<Item = K>,
        I::IntoIter: ExactSizeIterator,
    {
        let lookups = self.engine.enter_all(keys.into_iter().collect())?;
        let mut values = Vec::with_capacity(lookups.len());
        for lookup in lookups {
            values.push(lookup.await?);
        }
        Ok(values)
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> BatchStats {
        self.engine.stats()
    }
}

impl<K: Clone + Eq + Hash + Send, V> Clone for Batcher<K, V> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine) }
    }
}

impl<K: Clone + Eq + Hash + Send, V> fmt::Debug for Batcher<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("engine", &self.engine).finish()
    }
}

/// Always ready: the bound is checked by `call`. Errors are [`BatchError`] in a box.
impl<K, V> Service<K> for Batcher<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    type Response = Option<V>;
    type Error = BoxError;
    type Future = LookupFuture<V>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, key: K) -> LookupFuture<V> {
        LookupFuture(match self.engine.enter(key) {
            Ok(pending) => Entered::Pending(pending),
            Err(error) => Entered::Refused(Some(error)),
        })
    }
}

/// The wait for the value of one key. It is in the line already; dropped, it gives its place up.
pub struct LookupFuture<V>(Entered<V>);

enum Entered<V> {
    Pending(Pending<Option<V>>),
    /// `Some` until it was told.
    Refused(Option<BatchError>),
}

impl<V> Future for LookupFuture<V> {
    type Output = Result<Option<V>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.0 {
            Entered::Pending(pending) => ready!(Pin::new(pending).poll(cx)),
            Entered::Refused(error) => Err(error.take().unwrap_or(BatchError::Abandoned)),
        };
        Poll::Ready(answer.map_err(Into::into))
    }
}

impl<V> fmt::Debug for LookupFuture<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupFuture").finish_non_exhaustive()
    }
}

/// An async function as a service that is always ready.
struct Function<F>(Arc<F>);

impl<F> Clone for Function<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, F, Fut, R, E> Service<Vec<K>> for Function<F>
where
    F: Fn(Vec<K>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    type Response = R;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, keys: Vec<K>) -> Fut {
        (self.0)(keys)
    }
}

/// Asks until nobody waits.
async fn work<K, V, S>(mut lane: Lane<K, Option<V>, Equal<K>>, fresh: impl Fn() -> S)
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
    S: Service<Vec<K>>,
    S::Response: IntoIterator<Item = (K, V)>,
    S::Error: Into<BoxError>,
{
    let mut service = fresh();
    while !lane.end() {
        let deadline = Instant::now() + lane.config().timeout;
        let ready = async { poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed) };
        let ready = guarded(deadline, lane.config(), ready).await;
        // Keys are taken as late as can be: what came meanwhile goes along.
        let Some(batch) = lane.take() else {
            // Whatever it has reserved would be held by a service that nobody calls.
            service = fresh();
            continue;
        };
        let found = match ready {
            Ok(()) => {
                let call = ask(&mut service, batch.items, batch.routes);
                guarded(deadline, lane.config(), call).await
            }
            Err(error) => Err(error),
        };
        match found {
            Ok(values) => {
                batch.waiters.into_iter().zip(values.into_iter().map(Ok)).for_each(answer);
            }
            Err(error) => {
                lane.failed();
                // It may be finished, or in the middle of a panic.
                service = fresh();
                let replies =
                    batch.waiters.into_iter().map(|waiters| (waiters, Err(error.clone())));
                replies.for_each(answer);
            }
        }
        // Those just answered often ask again at once, and then go along.
        yield_now().await;
    }
}

/// Asks for the keys, and puts each value where its key stands.
async fn ask<K, V, S>(service: &mut S, keys: Vec<K>, routes: Routes<K>) -> Answer<Vec<Option<V>>>
where
    K: Eq + Hash,
    S: Service<Vec<K>>,
    S::Response: IntoIterator<Item = (K, V)>,
    S::Error: Into<BoxError>,
{
    let mut values = Vec::new();
    values.resize_with(keys.len(), || None);
    let found = service.call(keys).await.map_err(failed)?;
    for (key, value) in found {
        if let Some(at) = routes.find(&key) {
            values[at] = Some(value);
        }
    }
    Ok(values)
}
