//! loom's primitives in the forms that the map uses.

/// std's: what is shared is not in question, only the order in which it is used.
pub(super) use std::sync::Arc;

use ahash::RandomState;
pub(super) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Two, so that a sweep meets more than one lock and loom still comes to an end.
pub(super) const SHARDS: usize = 2;

/// The same in every run: loom repeats them.
pub(super) fn hasher() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

/// A lock without poison, as parking_lot's.
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

pub(super) mod watch {
    //! The part of tokio's watch channel that the map uses.

    use std::future::poll_fn;
    use std::ops::Deref;
    use std::task::{Context, Poll, Waker};

    use super::{Arc, Mutex};

    pub(crate) struct Sender<T>(Arc<Mutex<State<T>>>);

    pub(crate) struct Receiver<T>(Arc<Mutex<State<T>>>);

    struct State<T> {
        value: T,
        closed: bool,
        waiting: Vec<Waker>,
    }

    /// What a receiver borrows.
    pub(crate) struct Seen<T>(T);

    pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
        let state = State { value, closed: false, waiting: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        (Sender(Arc::clone(&state)), Receiver(state))
    }

    impl<T> Sender<T> {
        pub(crate) fn send_replace(&self, value: T) -> T {
            let (former, waiting) = {
                let mut state = self.0.lock();
                let former = std::mem::replace(&mut state.value, value);
                (former, std::mem::take(&mut state.waiting))
            };
            waiting.into_iter().for_each(Waker::wake);
            former
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let waiting = {
                let mut state = self.0.lock();
                state.closed = true;
                std::mem::take(&mut state.waiting)
            };
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    impl<T: Clone> Receiver<T> {
        pub(crate) async fn wait_for(
            &mut self,
            wanted: impl Fn(&T) -> bool,
        ) -> Result<Seen<T>, ()> {
            poll_fn(|context| self.poll(context, &wanted)).await
        }

        /// Nothing is ever sent where this is used: it ends with the sender.
        pub(crate) async fn changed(&mut self) -> Result<(), ()> {
            poll_fn(|context| self.poll(context, &|_| false)).await.map(drop)
        }

        fn poll(
            &self,
            context: &mut Context<'_>,
            wanted: &impl Fn(&T) -> bool,
        ) -> Poll<Result<Seen<T>, ()>> {
            let mut state = self.0.lock();
            if wanted(&state.value) {
                return Poll::Ready(Ok(Seen(state.value.clone())));
            }
            if state.closed {
                return Poll::Ready(Err(()));
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        }
    }

    impl<T> Deref for Seen<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }
}
