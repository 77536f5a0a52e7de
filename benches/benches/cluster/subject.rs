//! What is measured: something that can be called any number of times, by any number of callers that
//! share it.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tower::Service;

/// So many calls, one after the other.
pub(crate) type Calls = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Calls that a batch may have, and batches that there may be, if more would change the subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Few {
    pub(crate) calls: u64,
    pub(crate) batches: usize,
}

pub(crate) struct Subject {
    pub(crate) name: String,
    /// From the number of the first call and how many there are.
    calls: Box<dyn Fn(u64, u64) -> Calls + Send + Sync>,
    /// Calls so far: a call's number is its own, so that keys made of it do not repeat in each batch.
    made: AtomicU64,
    pub(crate) few: Option<Few>,
}

impl Subject {
    /// A tower service. Each caller has a clone; what clones share is shared.
    pub(crate) fn service<S, Req>(
        name: impl Into<String>,
        service: S,
        request: impl Fn(u64) -> Req + Copy + Send + Sync + 'static,
        right: impl Fn(u64, &Result<S::Response, S::Error>) -> bool + Copy + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Req> + Clone + Send + 'static,
        S::Future: Send,
        S::Response: Send,
        S::Error: Send,
        Req: Send,
    {
        // Boxed services are not `Sync`.
        let service = Mutex::new(service);
        Self::new(name, move |first, count| {
            let mut service = service.lock().clone();
            Box::pin(async move {
                for number in first..first + count {
                    let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                    assert!(ready.is_ok(), "rejections come from the call");
                    let answer = service.call(request(black_box(number))).await;
                    assert!(right(number, &answer), "another answer than expected");
                }
            })
        })
    }

    /// Anything else: `make` makes a caller, and that says whether a call went right.
    pub(crate) fn looped<F, C>(
        name: impl Into<String>,
        make: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: FnMut(u64) -> C + Send + 'static,
        C: Future<Output = bool> + Send,
    {
        Self::new(name, move |first, count| {
            let mut call = make();
            Box::pin(async move {
                for number in first..first + count {
                    assert!(call(black_box(number)).await, "another answer than expected");
                }
            })
        })
    }

    fn new(
        name: impl Into<String>,
        calls: impl Fn(u64, u64) -> Calls + Send + Sync + 'static,
    ) -> Self {
        let (name, calls) = (name.into(), Box::new(calls));
        Self { name, calls, made: AtomicU64::new(0), few: None }
    }

    /// Only so many calls are made, and by one thread.
    pub(crate) fn few(mut self, calls: u64, batches: usize) -> Self {
        self.few = Some(Few { calls, batches });
        self
    }

    pub(crate) fn calls(&self, count: u64) -> Calls {
        (self.calls)(self.made.fetch_add(count, Ordering::Relaxed), count)
    }
}

/// One of `keys` numbers, in an order that no cache of the processor foresees.
pub(crate) fn scattered(number: u64, keys: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (mixed * keys) >> 32
}
