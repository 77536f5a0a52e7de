//! `cargo bench -p escala-benches --bench layers`: what does each layer and handle add to a call?
//! The first row of each group is the bare thing, so that the difference is the price. One thread;
//! every result is asserted inside the loop.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use escala_cache::{Cache, Memory};
use escala_cluster::{Breaker, BreakerConfig, BreakerLayer};
use escala_queue::{Job, Lane, MemoryEngine, Queue};
use escala_replicas::{Replicas, Session, Strategy};
use futures_util::FutureExt as _;
use tower::{Layer, Service, service_fn};

/// Calls a service that is ready at once.
fn call<S: Service<u64, Response = u64>>(service: &mut S, request: u64) -> u64 {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    service.call(request).now_or_never().and_then(Result::ok).expect("ready at once")
}

fn breaker(c: &mut Criterion) {
    let mut group = c.benchmark_group("breaker");
    let bare = service_fn(|n: u64| std::future::ready(Ok::<_, Infallible>(n)));
    let mut service = bare;
    group.bench_function("bare service", |b| {
        b.iter(|| assert_eq!(call(&mut service, black_box(7)), 7));
    });
    let breaker = Breaker::new("bench", BreakerConfig::default()).expect("defaults are valid");
    let mut service = BreakerLayer::new(breaker).layer(bare);
    group.bench_function("closed breaker, defaults", |b| {
        b.iter(|| assert_eq!(call(&mut service, black_box(7)), 7));
    });
    group.finish();
}

fn cache(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory hit");
    let moka = moka::sync::Cache::builder()
        .max_capacity(10_000)
        .build_with_hasher(ahash::RandomState::new());
    moka.insert("S0001".to_owned(), 7_u64);
    group.bench_function("bare moka::sync with ahash", |b| {
        b.iter(|| assert_eq!(moka.get(black_box("S0001")), Some(7)));
    });
    // `enter`: a cache with a runtime at hand, as in a server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("runtime");
    let _entered = runtime.enter();
    let cache: Cache<String, u64> =
        Cache::builder("bench").memory(Memory::entries(10_000)).build().expect("valid");
    cache.insert("S0001".to_owned(), 7).now_or_never().expect("memory only");
    group.bench_function("get", |b| {
        b.iter(|| assert_eq!(cache.get(black_box("S0001")).now_or_never(), Some(Some(7))));
    });
    group.bench_function("get_or_load", |b| {
        b.iter(|| {
            let load = async || Ok::<_, Infallible>(8);
            let found = cache.get_or_load(black_box("S0001"), load).now_or_never();
            assert_eq!(found.and_then(Result::ok), Some(7));
        });
    });
    group.finish();
}

fn replicas(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick and guard");
    group.bench_function("bare clone of an Arc", |b| {
        let node = std::sync::Arc::new(1_u64);
        b.iter(|| assert_eq!(*std::sync::Arc::clone(black_box(&node)), 1));
    });
    for strategy in [Strategy::RoundRobin, Strategy::Weighted, Strategy::LeastLoaded] {
        let set = Replicas::builder(0_u64).strategy(strategy);
        let set = set.replica("a", 3, 1).replica("b", 3, 2).replica("c", 2, 3);
        let set = set.build().expect("valid");
        let session = Session::default();
        group.bench_function(format!("{strategy:?}"), |b| {
            b.iter(|| {
                let pick = set.read(black_box(&session)).expect("a node");
                assert!((1..=3).contains(&*pick));
                pick.succeeded();
            });
        });
    }
    group.finish();
}

fn queue(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("runtime");
    c.bench_function("queue: 1,000 jobs enqueued, run and done", |b| {
        b.iter(|| runtime.block_on(thousand_jobs()));
    });
}

async fn thousand_jobs() {
    let queue = Queue::builder(MemoryEngine::default()).documented_lanes().build().expect("valid");
    let handler = service_fn(async |_: Job| Ok::<_, Infallible>(escala_queue::Outcome::Done));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let workers = queue.run(handler, stopped.map(|_| ()));
    for n in 0..1_000_u64 {
        let job = Job::new("bench", &n).expect("a number is JSON").lane(Lane::High);
        queue.enqueue(job).await.expect("room");
    }
    queue.wait_idle().await;
    drop(stop);
    workers.join().await;
    let done: u64 = queue.stats().lanes.iter().map(|lane| lane.succeeded_total).sum();
    assert_eq!(done, 1_000);
}

criterion_group! {
    name = layers;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = breaker, cache, replicas, queue
}
criterion_main!(layers);
