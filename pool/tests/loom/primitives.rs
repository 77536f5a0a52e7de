//! loom's primitives in the forms that the gate uses.

use std::fmt;

/// std's: what is shared is not in question, only the order in which it is used.
pub(super) use std::sync::Arc;

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

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

pub(super) mod oneshot {
    //! The part of tokio's oneshot channel that the gate uses.

    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::{Arc, Mutex};

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Option<Arc<Mutex<State<T>>>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Mutex<State<T>>>);

    #[derive(Debug)]
    struct State<T> {
        value: Option<T>,
        sender_gone: bool,
        receiver_gone: bool,
        waiting: Option<Waker>,
    }

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let state = State { value: None, sender_gone: false, receiver_gone: false, waiting: None };
        let state = Arc::new(Mutex::new(state));
        (Sender(Some(Arc::clone(&state))), Receiver(state))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(mut self, value: T) -> Result<(), T> {
            let state = self.0.take().unwrap();
            let waiting = {
                let mut state = state.lock();
                if state.receiver_gone {
                    return Err(value);
                }
                state.value = Some(value);
                state.sender_gone = true;
                state.waiting.take()
            };
            waiting.into_iter().for_each(Waker::wake);
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let Some(state) = self.0.take() else { return };
            let waiting = {
                let mut state = state.lock();
                state.sender_gone = true;
                state.waiting.take()
            };
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, ()>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, ()>> {
            let mut state = self.0.lock();
            if let Some(value) = state.value.take() {
                return Poll::Ready(Ok(value));
            }
            if state.sender_gone {
                return Poll::Ready(Err(()));
            }
            state.waiting = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            // What was sent and not received is dropped outside the lock: it takes the gate's.
            let _unread = {
                let mut state = self.0.lock();
                state.receiver_gone = true;
                state.value.take()
            };
        }
    }
}
