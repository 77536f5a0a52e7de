//! Joins concurrent lookups in the shared layer: what arrives while others are under way goes
//! along with the next.
//!
//! There is no timer. A lookup that finds a free place is sent at once, by its own caller, who
//! takes nobody along when dropped. One that finds all places taken stands in line, and the whole
//! line is the next batch: asked by a task of its own, which keeps the place until the line is
//! empty.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::StoreError;
use crate::shared::SharedStore;

/// Keys in one batch, but for a lookup of more: it goes alone, in several. Past a hundred, a
/// longer one saves little more and keeps the first keys waiting.
const MOST_KEYS: usize = 128;

/// Batches under way at once: while Redis works on one, the next is written and the last is read.
const PLACES: usize = 2;

/// Joins lookups in one store. Clones share the line.
#[derive(Clone)]
pub(crate) struct Lookups {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn SharedStore>,
    control_key: String,
    places: usize,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    taken: usize,
    /// As many as there are callers, who wait.
    waiting: Vec<Waiting>,
}

struct Waiting {
    keys: Vec<String>,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
}

/// What one lookup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What stands under the control key, not older than any of the values.
    pub(crate) control: Option<Vec<u8>>,
    /// What stands under each key asked for, in their order.
    pub(crate) values: Vec<Option<Vec<u8>>>,
}

impl Lookups {
    /// Lookups in `store` that each bring along what stands under `control_key`.
    pub(crate) fn new(store: Arc<dyn SharedStore>, control_key: String) -> Self {
        Self::with_places(store, control_key, PLACES)
    }

    fn with_places(store: Arc<dyn SharedStore>, control_key: String, places: usize) -> Self {
        let line = Mutex::new(Line::default());
        Self { inner: Arc::new(Inner { store, control_key, places, line }) }
    }

    /// Looks the keys up.
    ///
    /// # Errors
    /// The store's, for every lookup of the batch; also when the store panics, or the runtime
    /// shuts down meanwhile.
    pub(crate) async fn get(&self, keys: Vec<String>) -> Result<Answer, StoreError> {
        let answer = match self.inner.enter(keys) {
            Entered::Place(place, keys) => {
                let answer = self.inner.ask_one(keys).await;
                drop(place);
                return answer;
            }
            Entered::Line(answer) => answer,
        };
        answer.await.unwrap_or_else(|_| Err(StoreError::failed("the lookup was given up")))
    }
}

enum Entered<'a> {
    /// The caller asks, for these keys.
    Place(Place<'a>, Vec<String>),
    /// Somebody asks for the caller.
    Line(oneshot::Receiver<Result<Answer, StoreError>>),
}

impl Inner {
    fn enter(self: &Arc<Self>, keys: Vec<String>) -> Entered<'_> {
        let mut line = self.line.lock();
        if line.taken < self.places {
            line.taken += 1;
            let place = Place { inner: self, runtime: Handle::try_current().ok() };
            return Entered::Place(place, keys);
        }
        let (sender, answer) = oneshot::channel();
        line.waiting.push(Waiting { keys, answer: sender });
        Entered::Line(answer)
    }

    /// Asks for the keys of one lookup.
    async fn ask_one(&self, keys: Vec<String>) -> Result<Answer, StoreError> {
        let mut answers = self.ask(vec![keys]).await?;
        answers.pop().ok_or_else(|| StoreError::failed("the store gave no answer"))
    }

    /// Asks for the keys of several lookups, each key once.
    async fn ask(&self, lookups: Vec<Vec<String>>) -> Result<Vec<Answer>, StoreError> {
        let Plan { keys, asked_for, mut uses } = Plan::new(lookups);
        let mut found = Vec::with_capacity(keys.len());
        let mut keys = keys.into_iter();
        let control = loop {
            let mut batch = Vec::with_capacity(1 + keys.len().min(MOST_KEYS));
            batch.push(self.control_key.clone());
            batch.extend(keys.by_ref().take(MOST_KEYS));
            let values = caught(async { self.store.get_many(&batch).await }).await?;
            if values.len() != batch.len() {
                return Err(StoreError::failed("the store answered another number of keys"));
            }
            let mut values = values.into_iter();
            let control = values.next().flatten();
            found.extend(values);
            if keys.len() == 0 {
                // The last one asked for is not older than any value.
                break control;
            }
        };
        let mut value = |place: usize| {
            uses[place] -= 1;
            if uses[place] == 0 { found[place].take() } else { found[place].clone() }
        };
        let answers = asked_for.into_iter().map(|places| Answer {
            control: control.clone(),
            values: places.into_iter().map(&mut value).collect(),
        });
        Ok(answers.collect())
    }

    /// The next batch of the line.
    fn next_batch(&self) -> Vec<Waiting> {
        let mut line = self.line.lock();
        // Nobody asks for those who have gone.
        line.waiting.retain(|waiting| !waiting.answer.is_closed());
        let mut keys = 0;
        let fits = line.waiting.iter().take_while(|waiting| {
            keys += waiting.keys.len();
            keys <= MOST_KEYS
        });
        let count = fits.count().max(1).min(line.waiting.len());
        line.waiting.drain(..count).collect()
    }
}

/// Works the line off, then leaves its place.
async fn work_off(place: TaskPlace) {
    let inner = Arc::clone(&place.inner);
    loop {
        let batch = inner.next_batch();
        if batch.is_empty() {
            if place.leave() {
                return;
            }
            continue;
        }
        let (keys, waiters): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.keys, waiting.answer)).unzip();
        let answers = inner.ask(keys).await;
        match answers {
            Ok(answers) => {
                for (waiter, answer) in waiters.into_iter().zip(answers) {
                    // Whoever has gone needs no answer.
                    let _ = waiter.send(Ok(answer));
                }
            }
            Err(error) => {
                for waiter in waiters {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
        }
        // Those just answered often ask again at once, and then go along.
        tokio::task::yield_now().await;
    }
}

/// The place of a lookup that is asked by its caller.
struct Place<'a> {
    inner: &'a Arc<Inner>,
    runtime: Option<Handle>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.inner.line.lock();
        if !line.waiting.is_empty()
            && let Some(runtime) = &self.runtime
        {
            drop(line);
            let place = TaskPlace { inner: Arc::clone(self.inner), left: AtomicBool::new(false) };
            runtime.spawn(work_off(place));
        } else {
            leave(&mut line);
        }
    }
}

/// The place of the task that works the line off. It is dropped before its time when the runtime
/// shuts down, perhaps before the task has begun.
struct TaskPlace {
    inner: Arc<Inner>,
    left: AtomicBool,
}

impl TaskPlace {
    /// Leaves the place, unless somebody has come.
    fn leave(&self) -> bool {
        let mut line = self.inner.line.lock();
        let free = line.waiting.is_empty();
        if free {
            line.taken -= 1;
            self.left.store(true, Ordering::Relaxed);
        }
        free
    }
}

impl Drop for TaskPlace {
    fn drop(&mut self) {
        if !*self.left.get_mut() {
            leave(&mut self.inner.line.lock());
        }
    }
}

/// Leaves a place without looking after the line. If nobody else will, those in it are told.
fn leave(line: &mut Line) {
    line.taken -= 1;
    if line.taken == 0 {
        line.waiting.clear();
    }
}

/// The different keys of several lookups.
struct Plan {
    keys: Vec<String>,
    /// For each lookup, the places of its keys among them.
    asked_for: Vec<Vec<usize>>,
    /// How often each key is asked for.
    uses: Vec<usize>,
}

impl Plan {
    fn new(lookups: Vec<Vec<String>>) -> Self {
        let mut places = HashMap::<String, usize, ahash::RandomState>::default();
        let mut uses = Vec::new();
        let asked_for = lookups.into_iter().map(|lookup| {
            let places = lookup.into_iter().map(|key| {
                let place = *places.entry(key).or_insert(uses.len());
                if place == uses.len() {
                    uses.push(0);
                }
                uses[place] += 1;
                place
            });
            places.collect::<Vec<_>>()
        });
        let asked_for: Vec<_> = asked_for.collect();
        let mut keys = vec![String::new(); uses.len()];
        for (key, place) in places {
            keys[place] = key;
        }
        Self { keys, asked_for, uses }
    }
}

/// Turns a panic of the store into an error: it must not take those who wait along.
async fn caught<T>(
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut operation = pin!(operation);
    std::future::poll_fn(|context| {
        let poll = catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(context)));
        poll.unwrap_or_else(|_| Poll::Ready(Err(StoreError::failed("the store panicked"))))
    })
    .await
}

#[cfg(test)]
mod tests;
