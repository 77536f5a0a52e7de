//! A hit in memory allocates nothing.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use escala_cache::Cache;

/// The output of a future that never waits.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a hit does not wait"),
    }
}

#[test]
fn a_hit_in_memory_allocates_nothing() {
    let cache = Cache::<String, u64>::builder("quotes").build().unwrap();
    now(cache.insert("BTC".to_owned(), 7));
    let load = async || -> Result<u64, Infallible> { panic!("it is in memory") };
    let hit = || {
        assert_eq!(now(cache.get("BTC")), Some(7));
        assert_eq!(now(cache.get_or_load("BTC", load)).unwrap(), 7);
    };
    // moka's first bookkeeping and the thread's counter lane are set up here.
    assert_eq!(cache.stats().memory.entries, 1);
    hit();
    let allocations = allocation_counter::measure(hit);
    assert_eq!(allocations.count_total, 0);
}
