//! Batches of lookups and groups of writes, from a source that a test plays by hand.

use std::collections::HashSet;
use std::error::Error;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use escala_pool::batch::LookupFuture;
use escala_pool::{
    BatchConfig, BatchError, BatchLayer, BatchStats, BatchWriter, Batcher, PoolError,
};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};
use tower_test::{assert_request_eq, mock};

type Found = io::Result<Vec<(u32, String)>>;

/// One call of the source, to be answered by the test.
struct Call {
    keys: Vec<u32>,
    answer: oneshot::Sender<Found>,
}

impl Call {
    /// Answers with a value for every key.
    fn answer(self) {
        let found = self.keys.iter().map(|key| (*key, value(*key))).collect();
        drop(self.answer.send(Ok(found)));
    }
}

/// One batch at a time.
fn one() -> BatchConfig {
    BatchConfig::new().max_in_flight(1)
}

fn value(key: u32) -> String {
    format!("value {key}")
}

/// A batcher, and the calls it makes. A call whose answer is dropped panics.
fn by_hand(config: BatchConfig) -> (Batcher<u32, String>, mpsc::UnboundedReceiver<Call>) {
    let (sender, calls) = mpsc::unbounded_channel();
    let batcher = Batcher::new(config, move |keys: Vec<u32>| {
        let (answer, answered) = oneshot::channel();
        sender.send(Call { keys, answer }).unwrap();
        async move { answered.await.expect("on purpose") }
    });
    (batcher.unwrap(), calls)
}

/// Starts lookups that run by themselves.
async fn spawn(
    batcher: &Batcher<u32, String>,
    keys: &[u32],
) -> Vec<tokio::task::JoinHandle<Result<Option<String>, BatchError>>> {
    let tasks = keys.iter().map(|key| {
        let (batcher, key) = (batcher.clone(), *key);
        tokio::spawn(async move { batcher.get(key).await })
    });
    let tasks = tasks.collect();
    settled().await;
    tasks
}

/// Lets every task run until it waits.
async fn settled() {
    for _ in 0..10 {
        yield_now().await;
    }
}

#[track_caller]
fn assert_adds_up(stats: &BatchStats) {
    let ended =
        stats.succeeded_total + stats.failed_total + stats.rejected_total + stats.cancelled_total;
    assert_eq!(stats.started_total, ended + stats.in_flight as u64, "{stats:?}");
    assert!(stats.waiting <= stats.in_flight, "{stats:?}");
}

#[track_caller]
fn assert_idle(stats: &BatchStats) {
    assert_adds_up(stats);
    assert_eq!((stats.in_flight, stats.waiting, stats.lanes), (0, 0, 0), "{stats:?}");
}

#[tokio::test]
async fn keys_that_come_while_a_batch_is_under_way_become_the_next_and_equal_ones_are_joined() {
    let (batcher, mut calls) = by_hand(one());
    let first = spawn(&batcher, &[1]).await;
    let call = calls.recv().await.unwrap();
    assert_eq!(call.keys, [1]);
    let next = spawn(&batcher, &[3, 2, 3, 4, 2, 3]).await;
    assert!(calls.try_recv().is_err(), "one batch at a time");
    assert_eq!(batcher.stats().waiting, 6);
    call.answer();
    let call = calls.recv().await.unwrap();
    assert_eq!(call.keys, [3, 2, 4]);
    call.answer();
    for (task, key) in first.into_iter().chain(next).zip([1, 3, 2, 3, 4, 2, 3]) {
        assert_eq!(task.await.unwrap().unwrap(), Some(value(key)));
    }
    settled().await;
    let stats = batcher.stats();
    assert_idle(&stats);
    assert_eq!((stats.batches_total, stats.keys_total), (2, 4));
    assert_eq!((stats.succeeded_total, stats.deduplicated_total), (7, 3));
}

#[tokio::test]
async fn a_lookup_does_not_join_a_batch_that_was_sent_before_it_began() {
    let (batcher, mut calls) = by_hand(one());
    let old = spawn(&batcher, &[1]).await;
    let sent = calls.recv().await.unwrap();
    let new = spawn(&batcher, &[1]).await;
    sent.answer.send(Ok(vec![(1, "old".to_owned())])).unwrap();
    let call = calls.recv().await.unwrap();
    assert_eq!(call.keys, [1]);
    call.answer.send(Ok(vec![(1, "new".to_owned())])).unwrap();
    for (task, expected) in old.into_iter().chain(new).zip(["old", "new"]) {
        assert_eq!(task.await.unwrap().unwrap().as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn many_values_stand_in_the_order_of_their_keys_and_missing_ones_are_none() {
    let (batcher, mut calls) = by_hand(one().max_batch(3));
    let many = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.get_many([5, 9, 5, 1, 2, 7]).await }
    });
    let call = calls.recv().await.unwrap();
    assert_eq!(call.keys, [5, 9, 1]);
    // In another order, without 9, and with a key that nobody asked for.
    let found = vec![(1, value(1)), (77, value(77)), (5, value(5))];
    call.answer.send(Ok(found)).unwrap();
    let call = calls.recv().await.unwrap();
    assert_eq!(call.keys, [2, 7]);
    call.answer();
    let expected = [Some(5), None, Some(5), Some(1), Some(2), Some(7)].map(|key| key.map(value));
    assert_eq!(many.await.unwrap().unwrap(), expected);
    assert_eq!(batcher.get_many([]).await.unwrap(), [None::<String>; 0]);
    settled().await;
    assert_idle(&batcher.stats());
}

#[tokio::test]
async fn two_batches_run_at_a_time() {
    let (batcher, mut calls) = by_hand(BatchConfig::new());
    let tasks = spawn(&batcher, &[1]).await.into_iter();
    let tasks = tasks.chain(spawn(&batcher, &[2]).await).chain(spawn(&batcher, &[3, 4]).await);
    let (first, second) = (calls.recv().await.unwrap(), calls.recv().await.unwrap());
    assert_eq!((&first.keys[..], &second.keys[..]), (&[1][..], &[2][..]));
    assert!(calls.try_recv().is_err());
    assert_eq!(batcher.stats().lanes, 2);
    second.answer();
    let third = calls.recv().await.unwrap();
    assert_eq!(third.keys, [3, 4]);
    first.answer();
    third.answer();
    for task in tasks {
        assert!(task.await.unwrap().unwrap().is_some());
    }
}

#[tokio::test]
async fn a_key_whose_callers_have_all_left_is_not_asked_for() {
    let (batcher, mut calls) = by_hand(one());
    let first = spawn(&batcher, &[1]).await;
    let waiting = spawn(&batcher, &[2, 3, 3, 4]).await;
    // Of key 3 one stays.
    for leaving in [0, 1] {
        waiting[leaving].abort();
    }
    settled().await;
    assert_eq!(batcher.stats().waiting, 2);
    calls.recv().await.unwrap().answer();
    let call = calls.recv().await.unwrap();
    assert_eq!(call.keys, [3, 4]);
    call.answer();
    let mut tasks = waiting.into_iter().skip(2);
    assert_eq!(tasks.next().unwrap().await.unwrap().unwrap(), Some(value(3)));
    assert_eq!(tasks.next().unwrap().await.unwrap().unwrap(), Some(value(4)));
    assert!(first.into_iter().next().unwrap().await.unwrap().is_ok());
    settled().await;
    let stats = batcher.stats();
    assert_idle(&stats);
    assert_eq!((stats.cancelled_total, stats.keys_total), (2, 3));
}

#[tokio::test]
async fn the_caller_who_started_a_batch_may_leave_it() {
    let (batcher, mut calls) = by_hand(one());
    let leader = spawn(&batcher, &[1]).await;
    let call = calls.recv().await.unwrap();
    let others = spawn(&batcher, &[2]).await;
    leader[0].abort();
    settled().await;
    assert_eq!(batcher.stats().cancelled_total, 1);
    call.answer();
    calls.recv().await.unwrap().answer();
    assert_eq!(others.into_iter().next().unwrap().await.unwrap().unwrap(), Some(value(2)));
    settled().await;
    assert_idle(&batcher.stats());
}

#[tokio::test]
async fn an_error_reaches_each_caller_of_its_batch_and_no_other() {
    let (batcher, mut calls) = by_hand(one());
    let first = spawn(&batcher, &[1]).await;
    let failing = spawn(&batcher, &[2, 2, 3]).await;
    calls.recv().await.unwrap().answer();
    let call = calls.recv().await.unwrap();
    let last = spawn(&batcher, &[2]).await;
    call.answer.send(Err(io::Error::other("on purpose"))).unwrap();
    for task in failing {
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.cause::<io::Error>().unwrap().to_string(), "on purpose");
        assert_eq!(error.source().unwrap().to_string(), "on purpose");
        assert_eq!(error.to_string(), "the batch failed");
    }
    calls.recv().await.unwrap().answer();
    for task in first.into_iter().chain(last) {
        assert!(task.await.unwrap().is_ok());
    }
    settled().await;
    let stats = batcher.stats();
    assert_idle(&stats);
    assert_eq!((stats.failed_total, stats.batch_failures_total), (3, 1));
}

#[tokio::test]
async fn a_panic_reaches_each_caller_of_its_batch_and_the_next_batch_runs() {
    let (batcher, mut calls) = by_hand(one());
    let first = spawn(&batcher, &[1]).await;
    let failing = spawn(&batcher, &[2, 2, 3]).await;
    calls.recv().await.unwrap().answer();
    drop(calls.recv().await.unwrap());
    for task in failing {
        let error = task.await.unwrap().unwrap_err();
        assert!(
            matches!(&error, BatchError::Panicked { message } if message.contains("on purpose"))
        );
    }
    let last = spawn(&batcher, &[4]).await;
    calls.recv().await.unwrap().answer();
    for task in first.into_iter().chain(last) {
        assert!(task.await.unwrap().is_ok());
    }
    settled().await;
    assert_idle(&batcher.stats());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_hangs_is_given_up_and_the_next_one_runs() {
    let (batcher, mut calls) = by_hand(one().timeout(Duration::from_secs(3)));
    let hanging = spawn(&batcher, &[1]).await;
    let call = calls.recv().await.unwrap();
    let next = spawn(&batcher, &[2]).await;
    for task in hanging {
        let error = task.await.unwrap().unwrap_err();
        assert!(error.is_timeout() && !error.is_retryable(), "{error:?}");
    }
    assert!(call.answer.is_closed(), "its future was dropped");
    calls.recv().await.unwrap().answer();
    assert!(next.into_iter().next().unwrap().await.unwrap().is_ok());
}

#[tokio::test]
async fn one_more_than_may_wait_is_turned_away_and_many_enter_together_or_not_at_all() {
    let (batcher, mut calls) = by_hand(one().max_waiters(3));
    let first = spawn(&batcher, &[1]).await;
    let call = calls.recv().await.unwrap();
    let waiting = spawn(&batcher, &[2, 2]).await;
    let error = batcher.get_many([3, 4]).await.unwrap_err();
    assert!(matches!(error, BatchError::TooManyWaiters { limit: 3 }), "{error:?}");
    assert!(error.is_saturated() && error.is_retryable() && !error.is_timeout());
    let more = spawn(&batcher, &[3]).await;
    assert!(batcher.get(4).await.unwrap_err().is_saturated());
    // A place that is given up can be taken.
    more[0].abort();
    settled().await;
    let last = spawn(&batcher, &[4]).await;
    call.answer();
    let call = calls.recv().await.unwrap();
    assert_eq!(call.keys, [2, 4]);
    call.answer();
    for task in first.into_iter().chain(waiting).chain(last) {
        assert!(task.await.unwrap().is_ok());
    }
    settled().await;
    let stats = batcher.stats();
    assert_idle(&stats);
    assert_eq!(stats.rejected_total, 3);
}

#[test]
fn callers_are_told_when_the_runtime_that_carried_their_batch_ends() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (carrying, waiting) = (runtime(), runtime());
    let (batcher, mut calls) = by_hand(one());
    let started = batcher.clone();
    carrying.spawn(async move { started.get(1).await });
    let call = carrying.block_on(calls.recv()).unwrap();
    let task = waiting.block_on(async { spawn(&batcher, &[2]).await }).remove(0);
    drop(carrying);
    assert!(call.answer.is_closed());
    let error = waiting.block_on(task).unwrap().unwrap_err();
    assert!(matches!(error, BatchError::Abandoned), "{error:?}");
    // And another runtime takes over.
    waiting.block_on(async {
        let task = spawn(&batcher, &[3]).await.remove(0);
        calls.recv().await.unwrap().answer();
        assert!(task.await.unwrap().is_ok());
        settled().await;
    });
    assert_idle(&batcher.stats());
    let outside = pin!(batcher.get(1));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = outside.poll(&mut context);
    assert!(matches!(polled, std::task::Poll::Ready(Err(BatchError::Abandoned))));
}

/// A value whose copies cannot be made.
#[derive(Debug)]
struct Precious;

impl Clone for Precious {
    fn clone(&self) -> Self {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_value_that_panics_when_it_is_copied_ends_its_own_batch_only() {
    let (sender, mut calls) = mpsc::unbounded_channel();
    let load = move |keys: Vec<u32>| {
        let (answer, answered) = oneshot::channel::<()>();
        sender.send(answer).unwrap();
        async move {
            answered.await.unwrap();
            Ok::<_, io::Error>(keys.into_iter().map(|key| (key, Precious)).collect::<Vec<_>>())
        }
    };
    let batcher = Batcher::new(one(), load).unwrap();
    let get = |key| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.get(key).await.map(|value| value.is_some()) })
    };
    let first = get(1);
    let call = calls.recv().await.unwrap();
    let twice = [get(2), get(2)];
    settled().await;
    call.send(()).unwrap();
    let call = calls.recv().await.unwrap();
    let next = get(3);
    settled().await;
    call.send(()).unwrap();
    assert!(first.await.unwrap().unwrap());
    for task in twice {
        assert!(matches!(task.await.unwrap(), Err(BatchError::Abandoned)));
    }
    // Handed over to another task.
    calls.recv().await.unwrap().send(()).unwrap();
    assert!(next.await.unwrap().unwrap());
    settled().await;
    assert_idle(&batcher.stats());
}

#[test]
fn a_batcher_and_its_futures_go_to_any_thread() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Batcher<u32, String>>();
    check::<BatchWriter<u32, String>>();
    check::<BatchLayer<u32, String>>();
    check::<LookupFuture<String>>();
    check::<BatchError>();
}

#[test]
fn limits_that_break_a_rule_are_named() {
    for (config, field) in [
        (BatchConfig::new().max_batch(0), "max_batch"),
        (BatchConfig::new().max_in_flight(0), "max_in_flight"),
        (BatchConfig::new().max_waiters(0), "max_waiters"),
        (BatchConfig::new().timeout(Duration::ZERO), "timeout"),
    ] {
        assert_eq!(BatchLayer::<u32, u32>::new(config).unwrap_err().field, field);
    }
}

#[tokio::test]
async fn the_layer_makes_a_clone_of_its_service_ready_before_each_call() {
    let (inner, mut handle) = mock::pair::<Vec<u32>, Vec<(u32, String)>>();
    handle.allow(0);
    let layer = BatchLayer::new(one()).unwrap();
    let mut service = layer.layer(inner);
    let mut other = service.clone();
    let lookup = service.ready().await.unwrap().call(1);
    let joined = other.ready().await.unwrap().call(2);
    settled().await;
    // While it is not ready, nothing is sent, and all who come go along.
    let late = service.ready().await.unwrap().call(3);
    handle.allow(1);
    assert_request_eq!(handle, vec![1, 2, 3]).send_response(vec![(2, value(2))]);
    assert_eq!(joined.await.unwrap(), Some(value(2)));
    assert_eq!((lookup.await.unwrap(), late.await.unwrap()), (None, None));
    // The next call is made ready anew.
    let next = service.ready().await.unwrap().call(4);
    settled().await;
    handle.allow(1);
    assert_request_eq!(handle, vec![4]).send_response(vec![(4, value(4))]);
    assert_eq!(next.await.unwrap(), Some(value(4)));
}

#[tokio::test]
async fn the_layer_turns_away_in_call_and_tells_why_its_service_ended() {
    let (inner, mut handle) = mock::pair::<Vec<u32>, Vec<(u32, String)>>();
    handle.allow(0);
    let layer = BatchLayer::<u32, String>::new(one().max_waiters(1)).unwrap();
    let mut service = layer.layer(inner);
    let waiting = service.ready().await.unwrap().call(1);
    let error = service.ready().await.unwrap().call(2).await.unwrap_err();
    assert!(error.downcast_ref::<BatchError>().unwrap().is_saturated());
    settled().await;
    handle.send_error("gone");
    let error = waiting.await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "gone");
    assert_adds_up(&service.stats());
}

#[tokio::test]
async fn a_readiness_that_nobody_needs_any_more_is_given_back() {
    // One call at a time, over all clones.
    let limit = tower::limit::GlobalConcurrencyLimitLayer::new(1);
    let answer = |keys: Vec<u32>| async move {
        Ok::<_, io::Error>(keys.into_iter().map(|key| (key, value(key))).collect::<Vec<_>>())
    };
    let inner = limit.layer(tower::service_fn(answer));
    let mut holder = inner.clone();
    holder.ready().await.unwrap();
    let batcher = Batcher::over(one(), inner.clone()).unwrap();
    let lookup = spawn(&batcher, &[1]).await.remove(0);
    lookup.abort();
    settled().await;
    assert_eq!(batcher.stats().waiting, 0);
    drop(holder);
    settled().await;
    // Were it still held, this would wait for ever.
    let mut other = inner;
    timeout(Duration::from_secs(5), other.ready()).await.unwrap().unwrap();
    drop(other);
    assert_eq!(batcher.get(2).await.unwrap(), Some(value(2)));
}

#[derive(Debug, Clone)]
enum Step {
    Get(u8),
    Many(Vec<u8>),
    Leave(usize),
    Answer,
    Fail,
    Panic,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..9_u8).prop_map(Step::Get),
        2 => proptest::collection::vec(0..9_u8, 0..6).prop_map(Step::Many),
        3 => (0..40_usize).prop_map(Step::Leave),
        5 => Just(Step::Answer),
        1 => Just(Step::Fail),
        1 => Just(Step::Panic),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn whatever_happens_each_caller_gets_its_value_or_its_error_once(
        steps in proptest::collection::vec(step(), 0..60),
        lanes in 1..3_usize,
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(scenario(steps, lanes));
    }
}

async fn scenario(steps: Vec<Step>, lanes: usize) {
    let config = BatchConfig::new().max_batch(4).max_in_flight(lanes).max_waiters(12);
    let (batcher, mut calls) = by_hand(config);
    let (mut open, mut tasks) = (Vec::<Call>::new(), Vec::new());
    for step in steps {
        match step {
            Step::Get(key) => tasks.push(ask(&batcher, vec![key.into()])),
            Step::Many(keys) => {
                tasks.push(ask(&batcher, keys.into_iter().map(u32::from).collect()));
            }
            Step::Leave(task) if task < tasks.len() => tasks[task].abort(),
            Step::Leave(_) => {}
            Step::Wait => settled().await,
            Step::Answer | Step::Fail | Step::Panic if open.is_empty() => {}
            Step::Answer => open.remove(0).answer(),
            Step::Fail => drop(open.remove(0).answer.send(Err(io::Error::other("on purpose")))),
            Step::Panic => drop(open.remove(0)),
        }
        while let Ok(call) = calls.try_recv() {
            let different: HashSet<_> = call.keys.iter().collect();
            assert_eq!(different.len(), call.keys.len(), "each key once");
            assert!((1..=4).contains(&call.keys.len()));
            open.push(call);
        }
        assert!(open.len() <= lanes);
        assert_adds_up(&batcher.stats());
    }
    loop {
        settled().await;
        while let Ok(call) = calls.try_recv() {
            call.answer();
        }
        open.drain(..).for_each(Call::answer);
        if tasks.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    settled().await;
    assert_idle(&batcher.stats());
}

/// Looks up and checks what comes. The calls that a test answers give every key its value.
fn ask(batcher: &Batcher<u32, String>, keys: Vec<u32>) -> tokio::task::JoinHandle<()> {
    let batcher = batcher.clone();
    tokio::spawn(async move {
        match batcher.get_many(keys.clone()).await {
            Ok(values) => {
                let expected: Vec<_> = keys.into_iter().map(|key| Some(value(key))).collect();
                assert_eq!(values, expected);
            }
            Err(BatchError::Failed(_) | BatchError::Panicked { .. }) => {}
            Err(error) => assert!(error.is_saturated(), "{error:?}"),
        }
    })
}

/// A table with a rule, written to in groups as a database does: all or nothing.
#[derive(Default)]
struct Table {
    rows: Mutex<Vec<i32>>,
    groups: Mutex<Vec<Vec<i32>>>,
}

#[derive(Debug, thiserror::Error, PartialEq)]
enum Refused {
    #[error("a negative row")]
    Negative,
    #[error("the connection was lost")]
    Lost,
}

impl Table {
    fn insert(&self, rows: Vec<i32>) -> Result<Vec<String>, Refused> {
        self.groups.lock().push(rows.clone());
        if rows.iter().any(|row| *row < 0) {
            return Err(Refused::Negative);
        }
        if rows.contains(&13) {
            return Err(Refused::Lost);
        }
        if rows.contains(&99) {
            panic!("on purpose");
        }
        let results = rows.iter().map(|row| format!("wrote {row}")).collect();
        self.rows.lock().extend(rows);
        Ok(results)
    }
}

/// A writer whose first group waits for the sender.
fn writer(table: &Arc<Table>) -> (BatchWriter<i32, String>, oneshot::Sender<()>) {
    let (release, released) = oneshot::channel::<()>();
    let (table, released) = (Arc::clone(table), Mutex::new(Some(released)));
    let blames = |error: &Refused| *error == Refused::Negative;
    let writer = BatchWriter::new(BatchConfig::new(), blames, move |rows| {
        let (table, wait) = (Arc::clone(&table), released.lock().take());
        async move {
            if let Some(wait) = wait {
                wait.await.unwrap();
            }
            table.insert(rows)
        }
    });
    (writer.unwrap(), release)
}

type Written = tokio::task::JoinHandle<Result<String, BatchError>>;

/// Writes the first row alone and the others as one group.
async fn write_group(table: &Arc<Table>, rows: &[i32]) -> (BatchWriter<i32, String>, Vec<Written>) {
    let (writer, release) = writer(table);
    let mut tasks = Vec::new();
    for row in rows {
        let (writer, row) = (writer.clone(), *row);
        tasks.push(tokio::spawn(async move { writer.write(row).await }));
        settled().await;
    }
    release.send(()).unwrap();
    (writer, tasks)
}

#[tokio::test]
async fn writes_that_come_while_one_is_under_way_are_one_group_and_none_is_merged() {
    let table = Arc::default();
    let (writer, tasks) = write_group(&table, &[1, 5, 2, 5]).await;
    for (task, row) in tasks.into_iter().zip([1, 5, 2, 5]) {
        assert_eq!(task.await.unwrap().unwrap(), format!("wrote {row}"));
    }
    assert_eq!(*table.groups.lock(), [vec![1], vec![5, 2, 5]]);
    settled().await;
    assert_idle(&writer.stats());
    assert_eq!(writer.stats().deduplicated_total, 0);
}

#[tokio::test]
async fn a_bad_row_fails_only_the_one_who_wrote_it_and_the_order_stays() {
    let table = Arc::default();
    let rows = [1, 2, 3, -4, 5, 6, -7, 8];
    let (writer, tasks) = write_group(&table, &rows).await;
    for (task, row) in tasks.into_iter().zip(rows) {
        match task.await.unwrap() {
            Ok(result) => assert_eq!(result, format!("wrote {row}")),
            Err(error) => {
                assert!(row < 0, "{row}: {error}");
                assert_eq!(error.cause(), Some(&Refused::Negative));
            }
        }
    }
    assert_eq!(*table.rows.lock(), [1, 2, 3, 5, 6, 8]);
    settled().await;
    let stats = writer.stats();
    assert_idle(&stats);
    assert_eq!((stats.succeeded_total, stats.failed_total, stats.batches_total), (6, 2, 2));
}

#[tokio::test]
async fn a_group_whose_outcome_is_unknown_is_not_written_again() {
    for unlucky in [13, 99] {
        let table = Arc::default();
        let (_writer, tasks) = write_group(&table, &[1, 2, unlucky, 4]).await;
        for (task, fails) in tasks.into_iter().zip([false, true, true, true]) {
            let result = task.await.unwrap();
            assert_eq!(result.is_err(), fails, "{result:?}");
            let retryable = result.err().is_some_and(|error| error.is_retryable());
            assert!(!retryable);
        }
        assert_eq!(table.groups.lock().len(), 2);
    }
}

#[tokio::test]
async fn a_writer_that_returns_too_few_results_is_found_out() {
    let writer =
        BatchWriter::new(BatchConfig::new(), PoolError::is_data, |rows: Vec<i32>| async move {
            Ok::<_, PoolError>(rows.into_iter().filter(|row| *row != 2).collect::<Vec<_>>())
        });
    let writer = writer.unwrap();
    let error = writer.write(2).await.unwrap_err();
    assert!(matches!(error, BatchError::WrongCount { expected: 1, found: 0 }), "{error:?}");
    assert_eq!(writer.write(3).await.unwrap(), 3);
}

#[tokio::test]
async fn a_write_whose_caller_left_before_it_was_sent_is_not_made() {
    let table: Arc<Table> = Arc::default();
    let (writer, release) = writer(&table);
    let first = tokio::spawn({
        let writer = writer.clone();
        async move { writer.write(1).await }
    });
    settled().await;
    let left = tokio::spawn({
        let writer = writer.clone();
        async move { writer.write(2).await }
    });
    settled().await;
    left.abort();
    settled().await;
    release.send(()).unwrap();
    first.await.unwrap().unwrap();
    writer.write(3).await.unwrap();
    assert_eq!(*table.rows.lock(), [1, 3]);
    assert_eq!(writer.stats().cancelled_total, 1);
}

#[test]
fn every_figure_of_a_batcher_is_exported_once() {
    let mut names = Vec::new();
    BatchStats::default().visit(&mut |name, _, value| {
        assert!(value == 0.0);
        names.push(name.to_owned());
    });
    let exported: HashSet<_> = names.iter().collect();
    assert_eq!(exported.len(), names.len());
}

#[cfg(feature = "serde")]
#[test]
fn the_limits_of_a_batcher_may_stand_in_a_file() {
    let config: BatchConfig =
        serde_json::from_str(r#"{ "max_batch": 10, "timeout": "2s" }"#).unwrap();
    assert_eq!(config, BatchConfig::new().max_batch(10).timeout(Duration::from_secs(2)));
    assert!(serde_json::from_str::<BatchConfig>(r#"{ "max_bach": 10 }"#).is_err());
    assert_eq!(serde_json::to_value(BatchStats::default()).unwrap()["in_flight"], 0);
}

/// A key whose hash panics if it is 13.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unlucky(u32);

impl Hash for Unlucky {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert_ne!(self.0, 13, "on purpose");
        self.0.hash(state);
    }
}

#[tokio::test]
async fn keys_that_panic_leave_no_place_behind() {
    let batcher = Batcher::new(one(), |keys: Vec<Unlucky>| async move {
        Ok::<_, io::Error>(keys.into_iter().map(|key| (key.clone(), key.0)).collect::<Vec<_>>())
    });
    let batcher = batcher.unwrap();
    // The caller's iterator may use the batcher.
    let keys = |numbers: [u32; 3]| {
        let batcher = batcher.clone();
        numbers.into_iter().map(move |number| {
            assert_adds_up(&batcher.stats());
            Unlucky(number)
        })
    };
    let panics = tokio::spawn({
        let (batcher, keys) = (batcher.clone(), keys([1, 1, 13]));
        async move { batcher.get_many(keys).await }
    });
    assert!(panics.await.unwrap_err().is_panic());
    let stats = batcher.stats();
    assert_idle(&stats);
    assert_eq!((stats.started_total, stats.deduplicated_total), (0, 0));
    let found = batcher.get_many(keys([1, 2, 1])).await.unwrap();
    assert_eq!(found, [Some(1), Some(2), Some(1)]);
    settled().await;
    assert_idle(&batcher.stats());
}

#[test]
fn a_lookup_during_a_panic_in_a_runtime_that_has_ended_is_abandoned() {
    struct Last(Batcher<u32, String>, Arc<Mutex<Option<BatchError>>>);
    impl Drop for Last {
        fn drop(&mut self) {
            let mut lookup = pin!(self.0.get(1));
            if let Poll::Ready(Err(error)) =
                lookup.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                *self.1.lock() = Some(error);
            }
        }
    }
    let (batcher, _calls) = by_hand(one());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let told = Arc::default();
    let last = Last(batcher.clone(), Arc::clone(&told));
    let panics = std::thread::spawn(move || {
        let _entered = handle.enter();
        let _last = last;
        panic!("on purpose");
    });
    assert!(panics.join().is_err());
    assert!(matches!(*told.lock(), Some(BatchError::Abandoned)));
    assert_idle(&batcher.stats());
}
