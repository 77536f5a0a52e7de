//! loom's primitives in the forms that the gate and the tally use.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize as Word;
pub(crate) use loom::sync::atomic::{
    AtomicU64, Ordering,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use tokio::time::Instant;

/// loom takes sequentially consistent accesses for acquiring and releasing ones; a fence before
/// a load gives back what the standard promises.
#[derive(Debug)]
pub(crate) struct AtomicUsize(Word);

impl AtomicUsize {
    pub(crate) fn new(value: usize) -> Self {
        Self(Word::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> usize {
        fence(order);
        self.0.load(order)
    }

    pub(crate) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
        self.0.fetch_add(value, order)
    }

    pub(crate) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
        self.0.fetch_sub(value, order)
    }

    pub(crate) fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        update: impl FnMut(usize) -> Option<usize>,
    ) -> Result<usize, usize> {
        self.0.fetch_update(set, fetch, update)
    }
}

impl Default for AtomicUsize {
    fn default() -> Self {
        Self::new(0)
    }
}

/// Permits with those that wait for one, in order. A waiter that leaves wakes the next.
#[derive(Debug)]
struct Permits {
    free: usize,
    waiting: VecDeque<(usize, Waker)>,
    next: usize,
}

impl Permits {
    fn wake(&self) {
        if let Some((_, waker)) = self.waiting.front() {
            waker.wake_by_ref();
        }
    }
}

/// The part of tokio's semaphore that the gate uses.
#[derive(Debug)]
pub(crate) struct Semaphore(Mutex<Permits>);

#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Semaphore);

/// A waiter's place, given up when it is dropped.
struct Place<'a>(&'a Semaphore, usize);

impl Semaphore {
    pub(crate) fn new(free: usize) -> Self {
        Self(Mutex::new(Permits { free, waiting: VecDeque::new(), next: 0 }))
    }

    pub(crate) async fn acquire(&self) -> Permit<'_> {
        let place = {
            let mut permits = self.0.lock().unwrap();
            permits.next += 1;
            Place(self, permits.next)
        };
        poll_fn(|cx| {
            let mut permits = self.0.lock().unwrap();
            let ahead = permits.waiting.iter().take_while(|(id, _)| *id != place.1).count();
            if permits.free > 0 && ahead == 0 {
                permits.free -= 1;
                return Poll::Ready(());
            }
            permits.waiting.retain(|(id, _)| *id != place.1);
            let position = ahead.min(permits.waiting.len());
            permits.waiting.insert(position, (place.1, cx.waker().clone()));
            Poll::Pending
        })
        .await;
        drop(place);
        Permit(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut permits = self.0.0.lock().unwrap();
        permits.waiting.retain(|(id, _)| *id != self.1);
        if permits.free > 0 {
            permits.wake();
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut permits = self.0.0.lock().unwrap();
        permits.free += 1;
        permits.wake();
    }
}

/// The part of tokio's notify that the gate uses: everybody who listens is told, from the call of
/// `notified` on.
#[derive(Debug)]
pub(crate) struct Notify(Mutex<(usize, Vec<Waker>)>);

impl Notify {
    pub(crate) fn new() -> Self {
        Self(Mutex::new((0, Vec::new())))
    }

    pub(crate) fn notify_waiters(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn notified(&self) -> impl Future<Output = ()> + '_ {
        let since = self.0.lock().unwrap().0;
        poll_fn(move |cx| {
            let mut state = self.0.lock().unwrap();
            if state.0 != since {
                return Poll::Ready(());
            }
            state.1.push(cx.waker().clone());
            Poll::Pending
        })
    }
}

/// Time does not pass.
pub(crate) async fn timeout_at<F: Future>(_: Instant, future: F) -> Result<F::Output, ()> {
    Ok(future.await)
}
