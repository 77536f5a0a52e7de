//! Writes in groups: the handle, and the task that writes.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::config::BatchConfig;
use super::engine::{Answer, Engine, Lane, failed, guarded};
use super::error::BatchError;
use super::line::Distinct;
use super::stats::BatchStats;
use crate::config::ConfigError;

type BoxError = Box<dyn Error + Send + Sync>;
type Waiter<R> = oneshot::Sender<Answer<R>>;

/// Groups under way at a time: the order of the writes is kept only with one.
const GROUPS: usize = 1;

/// Joins single writes into groups. Clones share the line.
///
/// Writes are never merged: two equal ones are written twice. With one group at a time, which is
/// the default, they are written in the order of their arrival. The writer returns one result for
/// each row, in their order; with PostgreSQL, `INSERT .. SELECT .. FROM UNNEST .. RETURNING` does
/// so, while `ON CONFLICT DO NOTHING` returns fewer rows, which is
/// [`WrongCount`](BatchError::WrongCount).
///
/// # Atomicity
/// What the writer does for one group must take effect as a whole or not at all: one statement, or
/// one transaction. When it fails with an error that `blames` a row, the group is written again in
/// two halves, and so on, until the bad row stands alone: it alone fails, and the other writes
/// succeed, though in several transactions. So `blames` must say yes only if nothing was written;
/// for PostgreSQL and SQLite that is [`PoolError::is_data`](crate::PoolError::is_data). Any other
/// error, a panic or a call that takes too long is told to every caller of the group: after a lost
/// connection nobody knows whether the group was written, so it is not written again.
///
/// # Cancellation
/// A write whose caller left before it was sent is not made. One that was sent may take effect
/// unseen.
pub struct BatchWriter<T, R> {
    engine: Arc<Engine<T, R, Distinct>>,
}

impl<T, R> BatchWriter<T, R>
where
    T: Clone + Send + 'static,
    R: Send + 'static,
{
    /// Makes a writer over an async function of many rows. A row is cloned once when its group has
    /// more than one, to be at hand for a second try; put large ones into an `Arc`.
    ///
    /// # Errors
    /// A limit breaks its rule.
    pub fn new<B, F, Fut, E>(config: BatchConfig, blames: B, write: F) -> Result<Self, ConfigError>
    where
        B: Fn(&E) -> bool + Send + Sync + 'static,
        F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<R>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        config.validate()?;
        let writer = Arc::new(Writer { blames, write });
        let engine = Engine::new(config, GROUPS, move |lane| {
            let writer = Arc::clone(&writer);
            async move { work(lane, &*writer).await }
        });
        Ok(Self { engine })
    }

    /// Writes one row, and returns the writer's result for it.
    ///
    /// # Errors
    /// [`BatchError`].
    pub async fn write(&self, row: T) -> Answer<R> {
        self.engine.enter(row)?.await
    }

    /// The figures of this moment; a write is a lookup there, and a row a key.
    #[must_use]
    pub fn stats(&self) -> BatchStats {
        self.engine.stats()
    }
}

impl<T, R> Clone for BatchWriter<T, R> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine) }
    }
}

impl<T, R> fmt::Debug for BatchWriter<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchWriter").field("engine", &self.engine).finish()
    }
}

struct Writer<B, F> {
    blames: B,
    write: F,
}

/// What a call came to.
enum Outcome<R> {
    Written(Vec<R>),
    /// Nothing was written, because of some row.
    Blamed(BatchError),
    Failed(BatchError),
}

impl<B, F> Writer<B, F> {
    async fn call<T, R, Fut, E>(&self, config: &BatchConfig, rows: Vec<T>) -> Outcome<R>
    where
        B: Fn(&E) -> bool,
        F: Fn(Vec<T>) -> Fut,
        Fut: Future<Output = Result<Vec<R>, E>>,
        E: Into<BoxError>,
    {
        let expected = rows.len();
        let call = async {
            Ok(match (self.write)(rows).await {
                Ok(results) if results.len() == expected => Outcome::Written(results),
                Ok(results) => {
                    Outcome::Failed(BatchError::WrongCount { expected, found: results.len() })
                }
                Err(error) if (self.blames)(&error) => Outcome::Blamed(failed(error)),
                Err(error) => Outcome::Failed(failed(error)),
            })
        };
        let deadline = Instant::now() + config.timeout;
        guarded(deadline, config, call).await.unwrap_or_else(Outcome::Failed)
    }
}

/// Writes until nobody waits.
async fn work<T, R, B, F, Fut, E>(mut lane: Lane<T, R, Distinct>, writer: &Writer<B, F>)
where
    T: Clone + Send + 'static,
    R: Send + 'static,
    B: Fn(&E) -> bool,
    F: Fn(Vec<T>) -> Fut,
    Fut: Future<Output = Result<Vec<R>, E>>,
    E: Into<BoxError>,
{
    while !lane.end() {
        let Some(batch) = lane.take() else { continue };
        // No two writes share an entry, so each has one who waits for it.
        let waiters: Vec<Waiter<R>> = batch.waiters.into_iter().flatten().collect();
        let mut parts = vec![(batch.items, waiters)];
        while let Some((rows, waiters)) = parts.pop() {
            let copy = if rows.len() > 1 { rows.clone() } else { Vec::new() };
            match writer.call(lane.config(), rows).await {
                Outcome::Written(results) => reply(waiters, results.into_iter().map(Ok)),
                Outcome::Blamed(_) if !copy.is_empty() => {
                    lane.failed();
                    // The first half on top, so that the order stays.
                    parts.extend(halves(copy, waiters));
                }
                Outcome::Blamed(error) | Outcome::Failed(error) => {
                    lane.failed();
                    reply(waiters, std::iter::repeat_with(|| Err(error.clone())));
                }
            }
        }
        // Those just answered often write again at once, and then go along.
        yield_now().await;
    }
}

/// The second half, then the first.
fn halves<T, W>(mut rows: Vec<T>, mut waiters: Vec<W>) -> [(Vec<T>, Vec<W>); 2] {
    let middle = rows.len() / 2;
    let second = (rows.split_off(middle), waiters.split_off(middle));
    [second, (rows, waiters)]
}

fn reply<R>(waiters: Vec<Waiter<R>>, answers: impl Iterator<Item = Answer<R>>) {
    for (waiter, answer) in waiters.into_iter().zip(answers) {
        // Whoever has gone needs no answer.
        drop(waiter.send(answer));
    }
}
