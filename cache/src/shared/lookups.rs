//! Joins concurrent lookups in the shared layer: what arrives while others are under way goes
//! along with the next.
//!
//! There is no timer. A lookup that finds a free place is sent at once, by its own caller, who
//! takes nobody along when dropped. One that finds all places taken stands in line. The line, or a
//! fair share of it, is the next batch: asked by a task of its own, which keeps the place until the
//! line is empty.

use std::collections::{HashMap, HashSet};
use std::iter::{Skip, Zip};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::control::Control;
use crate::error::StoreError;
use crate::shared::SharedStore;

/// Keys in one batch, but for a lookup of more: it goes alone, in several. Past a hundred, a
/// longer one saves little more and keeps the first keys waiting.
const MOST_KEYS: usize = 128;

/// Batches under way at once: while Redis works on one, the next is written and the last is read.
const PLACES: usize = 3;

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
    /// Lookups that the places are asking for, or were answered since they last asked.
    under_way: usize,
    /// Batches that were answered or given up.
    ended: u64,
    /// As many as there are callers, who wait.
    waiting: Vec<Waiting>,
}

struct Waiting {
    keys: Keys,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
}

/// The keys of one lookup: most ask for one.
pub(crate) type Keys = SmallVec<[String; 1]>;

/// A key, and what stands under it.
pub(crate) type Standing = (String, Option<Vec<u8>>);

/// What one lookup found.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What stands under the control key, not older than any of the values.
    pub(crate) record: Record,
    /// Each key asked for, in their order, and what stands there.
    pub(crate) found: SmallVec<[Standing; 1]>,
}

/// What stands under the control key.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    /// Read once for all lookups of a batch.
    Readable(Control),
    /// Nothing, or what is no record.
    Unreadable(Option<Arc<[u8]>>),
}

impl Line {
    /// A batch of so many lookups was answered or given up.
    fn end(&mut self, lookups: usize) {
        self.under_way -= lookups;
        self.ended += 1;
    }
}

impl Record {
    fn of(bytes: Option<Vec<u8>>) -> Self {
        match bytes.as_deref().and_then(Control::decode) {
            Some(control) => Self::Readable(control),
            None => Self::Unreadable(bytes.map(Arc::from)),
        }
    }

    pub(crate) fn control(&self) -> Option<Control> {
        match self {
            Self::Readable(control) => Some(*control),
            Self::Unreadable(_) => None,
        }
    }
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
    pub(crate) async fn get(&self, keys: Keys) -> Result<Answer, StoreError> {
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
    Place(Place<'a>, Keys),
    /// Somebody asks for the caller.
    Line(oneshot::Receiver<Result<Answer, StoreError>>),
}

impl Inner {
    fn enter(self: &Arc<Self>, keys: Keys) -> Entered<'_> {
        let mut line = self.line.lock();
        if line.taken < self.places {
            line.taken += 1;
            line.under_way += 1;
            let place = Place { inner: self, runtime: Handle::try_current().ok() };
            return Entered::Place(place, keys);
        }
        let (sender, answer) = oneshot::channel();
        line.waiting.push(Waiting { keys, answer: sender });
        Entered::Line(answer)
    }

    /// Asks for the keys of one lookup.
    async fn ask_one(&self, keys: Keys) -> Result<Answer, StoreError> {
        let count = keys.len();
        let mut batch = self.batch(count);
        batch.extend(keys);
        Ok(self.ask(batch).await?.next(count))
    }

    /// The control key, with room for so many others.
    fn batch(&self, others: usize) -> Vec<String> {
        let mut batch = Vec::with_capacity(1 + others);
        batch.push(self.control_key.clone());
        batch
    }

    /// Asks for the control key and those that follow it, of one lookup after the other.
    async fn ask(&self, keys: Vec<String>) -> Result<Answers, StoreError> {
        // As it mostly is: then the keys need not be copied.
        let (record, values) = if keys.len() <= 1 + MOST_KEYS && all_differ(&keys) {
            self.ask_batch(&keys).await?
        } else {
            self.ask_in_batches(&keys[1..]).await?
        };
        Ok(Answers { record, found: keys.into_iter().skip(1).zip(values) })
    }

    /// Asks for each key once.
    async fn ask_in_batches(&self, keys: &[String]) -> Result<(Record, Values), StoreError> {
        let Plan { distinct, places, mut uses } = Plan::new(keys);
        let mut record = Record::Unreadable(None);
        let mut found = Vec::with_capacity(distinct.len());
        for chunk in distinct.chunks(MOST_KEYS) {
            let batch = std::iter::once(&self.control_key).chain(chunk.iter().copied());
            let batch: Vec<String> = batch.cloned().collect();
            // The last control record asked for is not older than any value.
            let (now, values) = self.ask_batch(&batch).await?;
            record = now;
            found.extend(values);
        }
        let value = |place: usize| {
            uses[place] -= 1;
            if uses[place] == 0 { found[place].take() } else { found[place].clone() }
        };
        Ok((record, places.into_iter().map(value).collect::<Vec<_>>().into_iter()))
    }

    /// Asks for the control key and what follows it.
    async fn ask_batch(&self, batch: &[String]) -> Result<(Record, Values), StoreError> {
        let values = caught(async { self.store.get_many(batch).await }).await?;
        if values.len() != batch.len() {
            return Err(StoreError::failed("the store answered another number of keys"));
        }
        let mut values = values.into_iter();
        Ok((Record::of(values.next().flatten()), values))
    }
}

/// Works the line off, then leaves its place.
async fn work_off(mut place: TaskPlace) {
    let inner = Arc::clone(&place.inner);
    loop {
        let batch = place.next_batch();
        if batch.is_empty() {
            if place.leave() {
                return;
            }
            continue;
        }
        let mut keys = inner.batch(batch.iter().map(|waiting| waiting.keys.len()).sum());
        let mut waiters = Vec::with_capacity(batch.len());
        for Waiting { keys: own, answer } in batch {
            waiters.push((own.len(), answer));
            keys.extend(own);
        }
        match inner.ask(keys).await {
            Ok(mut answers) => {
                // Each at once: another thread takes up the first while the last is still here.
                for (count, waiter) in waiters {
                    // Whoever has gone needs no answer.
                    let _ = waiter.send(Ok(answers.next(count)));
                }
            }
            Err(error) => {
                for (_, waiter) in waiters {
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
        line.end(1);
        if !line.waiting.is_empty()
            && let Some(runtime) = &self.runtime
        {
            drop(line);
            let inner = Arc::clone(self.inner);
            runtime.spawn(work_off(TaskPlace { inner, asks: Some(0), ended: 0 }));
        } else {
            leave(&mut line);
        }
    }
}

/// The place of the task that works the line off. It is dropped before its time when the runtime
/// shuts down, perhaps before the task has begun.
struct TaskPlace {
    inner: Arc<Inner>,
    /// The lookups it is asking for, or `None` once it was left.
    asks: Option<usize>,
    /// As many batches had ended when it took its last.
    ended: u64,
}

impl TaskPlace {
    /// The next batch of the line, when the last was answered: a fair share of all lookups, beside
    /// the other places, since batches that take the whole line grow together. If no other place had
    /// an answer meanwhile, it is the whole line.
    fn next_batch(&mut self) -> Vec<Waiting> {
        let mut line = self.inner.line.lock();
        line.end(self.asks.replace(0).unwrap_or(0));
        let others_ended = line.ended != self.ended + 1;
        self.ended = line.ended;
        // Nobody asks for those who have gone.
        line.waiting.retain(|waiting| !waiting.answer.is_closed());
        let lookups = line.under_way + line.waiting.len();
        let share = if others_ended { lookups.div_ceil(line.taken) } else { lookups };
        let mut keys = 0;
        let fits = line.waiting.iter().take(share).take_while(|waiting| {
            keys += waiting.keys.len();
            keys <= MOST_KEYS
        });
        let count = fits.count().max(1).min(line.waiting.len());
        line.under_way += count;
        self.asks = Some(count);
        line.waiting.drain(..count).collect()
    }

    /// Leaves the place, unless somebody has come.
    fn leave(&mut self) -> bool {
        let mut line = self.inner.line.lock();
        let free = line.waiting.is_empty();
        if free {
            line.taken -= 1;
            self.asks = None;
        }
        free
    }
}

impl Drop for TaskPlace {
    fn drop(&mut self) {
        if let Some(asks) = self.asks {
            let mut line = self.inner.line.lock();
            line.end(asks);
            leave(&mut line);
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

/// What several lookups found, one after the other.
struct Answers {
    record: Record,
    found: Zip<Skip<std::vec::IntoIter<String>>, Values>,
}

impl Answers {
    /// The answer to the next lookup, which has so many keys.
    fn next(&mut self, count: usize) -> Answer {
        let mut answer = Answer { record: self.record.clone(), found: SmallVec::new() };
        // Pushed: to collect the one that most ask for was half of the work here.
        for one in self.found.by_ref().take(count) {
            answer.found.push(one);
        }
        answer
    }
}

/// What stands under each key asked for, in their order.
type Values = std::vec::IntoIter<Option<Vec<u8>>>;

fn all_differ(keys: &[String]) -> bool {
    let mut seen = HashSet::with_capacity_and_hasher(keys.len(), ahash::RandomState::default());
    keys.iter().all(|key| seen.insert(key.as_str()))
}

/// Which keys differ.
struct Plan<'a> {
    distinct: Vec<&'a String>,
    /// For each key, its place among those.
    places: Vec<usize>,
    /// How often each of those is asked for.
    uses: Vec<usize>,
}

impl<'a> Plan<'a> {
    fn new(keys: &'a [String]) -> Self {
        let mut seen = HashMap::<&str, usize, ahash::RandomState>::default();
        let (mut distinct, mut uses) = (Vec::new(), Vec::new());
        let place = |key: &'a String| {
            let place = *seen.entry(key).or_insert(uses.len());
            if place == uses.len() {
                distinct.push(key);
                uses.push(0);
            }
            uses[place] += 1;
            place
        };
        let places = keys.iter().map(place).collect();
        Self { distinct, places, uses }
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
