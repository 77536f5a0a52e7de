//! One attempt: the handler's future with a deadline, its panics caught.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Sleep, sleep};

/// How an attempt ended that did not return.
#[derive(Debug)]
pub(crate) enum Broken {
    /// With the panic's message.
    Panicked(String),
    TimedOut,
}

pin_project! {
    /// Resolves to the work's output, or to what kept it from having one. At the deadline the work
    /// is dropped *before* this resolves, so that it cannot have effects afterwards.
    pub(crate) struct Attempt<F> {
        #[pin]
        work: CatchUnwind<F>,
        // Outside tokio's cooperative budget: work that always uses it up would otherwise never
        // let its deadline be looked at.
        #[pin]
        deadline: Unconstrained<Sleep>,
    }
}

impl<F> Attempt<F> {
    pub(crate) fn new(work: F, limit: Duration) -> Self {
        Self { work: CatchUnwind::new(work), deadline: unconstrained(sleep(limit)) }
    }
}

impl<F: Future> Future for Attempt<F> {
    type Output = Result<F::Output, Broken>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(result) = this.work.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(Broken::Panicked));
        }
        ready!(this.deadline.poll(cx));
        this.work.discard();
        Poll::Ready(Err(Broken::TimedOut))
    }
}

pin_project! {
    /// Resolves to the work's output or to the message of its panic.
    pub(crate) struct CatchUnwind<F> {
        // `None` once the work has ended: it is dropped here, where a panic of its drop is caught.
        #[pin]
        work: Option<F>,
    }
}

impl<F> CatchUnwind<F> {
    pub(crate) fn new(work: F) -> Self {
        Self { work: Some(work) }
    }

    /// Drops the work. Its result is known by now, so a panic while it is dropped changes nothing
    /// but what the panic hook prints.
    fn discard(mut self: Pin<&mut Self>) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.as_mut().project().work.set(None)));
    }
}

impl<F: Future> Future for CatchUnwind<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.as_mut().project().work.as_pin_mut() else { return Poll::Pending };
        let result = match catch_unwind(AssertUnwindSafe(|| work.poll(cx))) {
            Ok(poll) => Ok(ready!(poll)),
            Err(panic) => Err(panic_message(&*panic)),
        };
        self.discard();
        Poll::Ready(result)
    }
}

/// Calls something of the user's that must not take a worker down.
pub(crate) fn guarded<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_message(&*panic))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&'static str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "no message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Panics when dropped, having noted that it was.
    struct Bomb(Arc<AtomicBool>);

    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
            panic!("dropped");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_dropped_before_its_timeout_is_told_even_if_the_drop_panics() {
        let dropped = Arc::new(AtomicBool::new(false));
        let bomb = Bomb(Arc::clone(&dropped));
        let work = async move {
            let _bomb = bomb;
            pending::<()>().await;
        };
        let mut attempt = Box::pin(Attempt::new(work, Duration::from_secs(1)));
        let result = attempt.as_mut().await;
        assert!(matches!(result, Err(Broken::TimedOut)));
        assert!(dropped.load(Ordering::Relaxed), "the attempt itself is still alive");
    }

    #[tokio::test]
    async fn a_panic_after_the_result_does_not_change_the_result() {
        let bomb = Bomb(Arc::default());
        let work = poll_fn(move |_| {
            let _keep = &bomb;
            Poll::Ready(7)
        });
        assert_eq!(CatchUnwind::new(work).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_is_a_message() {
        let said = CatchUnwind::new(async { panic!("no {}", "bread") }).await;
        assert_eq!(said, Err::<(), _>("no bread".to_owned()));
        let said = CatchUnwind::new(async { std::panic::panic_any(7) }).await;
        assert_eq!(said, Err::<(), _>("no message".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_eats_the_cooperative_budget_still_times_out() {
        let greedy = async {
            loop {
                tokio::task::consume_budget().await;
            }
        };
        let attempt = Attempt::new(greedy, Duration::from_millis(1));
        let clock = async {
            for _ in 0..1_000 {
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            result = attempt => assert!(matches!(result, Err::<(), _>(Broken::TimedOut))),
            () = clock => panic!("a second has passed without a timeout of a millisecond"),
        }
    }
}
