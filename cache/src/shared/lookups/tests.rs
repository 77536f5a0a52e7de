//! A scripted store: each batch is shown to the test, which says how it ends.

use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::glob::Pattern;
use crate::shared::{Signal, StoreFuture, When};

/// How one batch ends.
enum End {
    Found,
    Failed,
    Short,
    Panic,
}

/// A batch that the store was asked for and has not answered.
struct Batch {
    keys: Vec<String>,
    end: oneshot::Sender<End>,
}

struct Scripted {
    batches: mpsc::UnboundedSender<Batch>,
}

impl SharedStore for Scripted {
    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Option<Vec<u8>>>> {
        let (end, ended) = oneshot::channel();
        let _ = self.batches.send(Batch { keys: keys.to_vec(), end });
        Box::pin(async move {
            match ended.await {
                Ok(End::Failed) => Err(StoreError::TimedOut),
                Ok(End::Short) => Ok(vec![None]),
                Ok(End::Panic) => panic!("as the script says"),
                _ => Ok(keys.iter().map(|key| Some(key.clone().into_bytes())).collect()),
            }
        })
    }

    fn set<'a>(
        &'a self,
        _: &'a str,
        _: Vec<u8>,
        _: Option<Duration>,
        _: When,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async { Err(StoreError::Suspended) })
    }

    fn remove<'a>(&'a self, _: &'a [String]) -> StoreFuture<'a, ()> {
        Box::pin(async { Err(StoreError::Suspended) })
    }

    fn remove_matching<'a>(&'a self, _: &'a str, _: &'a Pattern) -> StoreFuture<'a, ()> {
        Box::pin(async { Err(StoreError::Suspended) })
    }

    fn publish<'a>(&'a self, _: &'a str, _: Vec<u8>) -> StoreFuture<'a, u64> {
        Box::pin(async { Err(StoreError::Suspended) })
    }

    fn sequence<'a>(&'a self, _: &'a str) -> StoreFuture<'a, u64> {
        Box::pin(async { Err(StoreError::Suspended) })
    }

    fn subscribe(&self, _: &str, _: Option<&str>) -> mpsc::Receiver<Signal> {
        mpsc::channel(1).1
    }
}

fn scripted() -> (Lookups, mpsc::UnboundedReceiver<Batch>) {
    with_places(1)
}

fn with_places(places: usize) -> (Lookups, mpsc::UnboundedReceiver<Batch>) {
    let (batches, shown) = mpsc::unbounded_channel();
    (Lookups::with_places(Arc::new(Scripted { batches }), "control".to_owned(), places), shown)
}

/// Keys of lookups that come one after the other.
const NAMES: [&str; 9] = ["0", "1", "2", "3", "4", "5", "6", "7", "8"];

type Asked = tokio::task::JoinHandle<Result<Answer, StoreError>>;

/// Begins a lookup and lets it go as far as it can.
async fn ask(lookups: &Lookups, keys: &[&str]) -> Asked {
    let keys: Keys = keys.iter().map(|key| (*key).to_owned()).collect();
    let lookups = lookups.clone();
    let asked = tokio::spawn(async move { lookups.get(keys).await });
    settle().await;
    asked
}

/// On the one thread of these tests, everything that can go on has gone on by then.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn answered(asked: Asked) -> Vec<String> {
    let answer = asked.await.unwrap().unwrap();
    let Record::Unreadable(record) = answer.record else { panic!("the script writes none") };
    assert_eq!(record.as_deref(), Some(b"control".as_slice()));
    let found = answer.found.into_iter();
    found
        .map(|(key, value)| {
            assert_eq!(Some(key.as_bytes()), value.as_deref());
            key
        })
        .collect()
}

fn assert_empty(lookups: &Lookups) {
    let line = lookups.inner.line.lock();
    assert_eq!((line.taken, line.under_way, line.waiting.len()), (0, 0, 0));
}

fn end(batch: Batch, end: End) {
    assert!(batch.end.send(end).is_ok(), "somebody still waits for the batch");
}

#[tokio::test]
async fn a_lone_lookup_is_asked_at_once_by_its_caller() {
    let (batches, mut shown) = mpsc::unbounded_channel();
    let lookups = Lookups::new(Arc::new(Scripted { batches }), "control".to_owned());
    let mut asked = Box::pin(lookups.get(Keys::from_elem("a".to_owned(), 1)));
    // One poll, and no task of anybody has run.
    let first = std::future::poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await;
    assert!(first.is_pending());
    let batch = shown.try_recv().unwrap();
    assert_eq!(batch.keys, ["control", "a"]);
    end(batch, End::Found);
    assert_eq!(asked.await.unwrap().found[0], ("a".to_owned(), Some(b"a".to_vec())));
    assert_empty(&lookups);
}

#[tokio::test]
async fn those_who_come_meanwhile_go_together_and_equal_keys_once() {
    let (lookups, mut shown) = scripted();
    let first = ask(&lookups, &["a"]).await;
    let later = [
        ask(&lookups, &["b", "a"]).await,
        ask(&lookups, &["c", "b", "c"]).await,
        ask(&lookups, &[]).await,
    ];
    let batch = shown.try_recv().unwrap();
    assert!(shown.try_recv().is_err(), "one place");
    end(batch, End::Found);
    assert_eq!(answered(first).await, ["a"]);
    settle().await;
    let batch = shown.try_recv().unwrap();
    assert_eq!(batch.keys, ["control", "b", "a", "c"]);
    end(batch, End::Found);
    let [one, two, none] = later;
    assert_eq!(answered(one).await, ["b", "a"]);
    assert_eq!(answered(two).await, ["c", "b", "c"]);
    assert_eq!(answered(none).await, Vec::<String>::new());
    settle().await;
    assert_empty(&lookups);
}

#[tokio::test]
async fn each_place_takes_a_fair_share_of_the_line() {
    let (lookups, mut shown) = with_places(2);
    let mut asked = Vec::new();
    for name in NAMES {
        asked.push(ask(&lookups, &[name]).await);
    }
    let (one, other) = (shown.try_recv().unwrap(), shown.try_recv().unwrap());
    assert_eq!((&*one.keys, &*other.keys), (&names_of("0")[..], &names_of("1")[..]));
    // Seven wait and one is under way elsewhere: of the eight, four.
    end(one, End::Found);
    settle().await;
    let one = shown.try_recv().unwrap();
    assert_eq!(one.keys, names_of("2345"));
    // Of those four and the three that wait it could have four, too.
    end(other, End::Found);
    settle().await;
    let other = shown.try_recv().unwrap();
    assert_eq!(other.keys, names_of("678"));
    end(one, End::Found);
    end(other, End::Found);
    for (name, asked) in NAMES.into_iter().zip(asked) {
        assert_eq!(answered(asked).await, [name]);
    }
    settle().await;
    assert_empty(&lookups);
}

/// What a batch asks for.
fn names_of(names: &str) -> Vec<String> {
    let names = names.chars().map(String::from);
    std::iter::once("control".to_owned()).chain(names).collect()
}

#[tokio::test]
async fn a_batch_is_bounded_and_a_larger_lookup_goes_in_several() {
    let (lookups, mut shown) = scripted();
    let first = ask(&lookups, &["a"]).await;
    let names: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let small = ask(&lookups, &names[..100]).await;
    let fitting = ask(&lookups, &names[100..128]).await;
    let large = ask(&lookups, &names).await;
    for (length, answering) in
        [(1, Some(first)), (128, Some(small)), (128, None), (128, None), (44, Some(large))]
    {
        settle().await;
        let batch = shown.try_recv().unwrap();
        assert_eq!(batch.keys.len(), 1 + length);
        assert!(shown.try_recv().is_err());
        end(batch, End::Found);
        if let Some(asked) = answering {
            answered(asked).await;
        }
    }
    assert_eq!(answered(fitting).await, &names[100..128]);
}

#[tokio::test]
async fn whoever_goes_away_disturbs_nobody() {
    let (lookups, mut shown) = scripted();
    let leader = ask(&lookups, &["a"]).await;
    let gone = ask(&lookups, &["b"]).await;
    let stays = ask(&lookups, &["c"]).await;
    gone.abort();
    settle().await;
    leader.abort();
    settle().await;
    drop(shown.try_recv().unwrap());
    let batch = shown.try_recv().unwrap();
    assert_eq!(batch.keys, ["control", "c"], "nobody asks for who has gone");
    let late = ask(&lookups, &["d"]).await;
    let dropped = ask(&lookups, &["e"]).await;
    end(batch, End::Found);
    assert_eq!(answered(stays).await, ["c"]);
    settle().await;
    dropped.abort();
    settle().await;
    let batch = shown.try_recv().unwrap();
    assert_eq!(batch.keys, ["control", "d", "e"]);
    end(batch, End::Found);
    assert_eq!(answered(late).await, ["d"]);
    settle().await;
    assert_empty(&lookups);
}

#[tokio::test]
async fn an_error_or_a_panic_reaches_each_waiter_and_the_next_batch_is_asked() {
    for (script, text) in [
        (End::Failed, "the shared store did not answer in time"),
        (End::Panic, "the shared store failed"),
        (End::Short, "the shared store failed"),
    ] {
        let (lookups, mut shown) = scripted();
        let leader = ask(&lookups, &["a"]).await;
        let waiters = [ask(&lookups, &["b"]).await, ask(&lookups, &["c"]).await];
        let panics = matches!(script, End::Panic);
        end(shown.try_recv().unwrap(), if panics { End::Panic } else { End::Found });
        assert_eq!(leader.await.unwrap().is_err(), panics);
        settle().await;
        end(shown.try_recv().unwrap(), script);
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap().unwrap_err().to_string(), text);
        }
        settle().await;
        let next = ask(&lookups, &["d"]).await;
        end(shown.try_recv().unwrap(), End::Found);
        assert_eq!(answered(next).await, ["d"]);
        assert_empty(&lookups);
    }
}

#[test]
fn a_runtime_that_ends_leaves_nobody_waiting_elsewhere() {
    let (lookups, mut shown) = scripted();
    let first = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let second = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let leader = first.block_on(ask(&lookups, &["a"]));
    let waiter = second.block_on(ask(&lookups, &["b"]));
    // The leader goes, and with it the runtime that would work off the line.
    drop(first);
    assert!(second.block_on(leader).unwrap_err().is_cancelled());
    assert!(second.block_on(waiter).unwrap().is_err());
    drop(shown.try_recv().unwrap());
    let next = second.block_on(ask(&lookups, &["c"]));
    end(shown.try_recv().unwrap(), End::Found);
    assert_eq!(second.block_on(answered(next)), ["c"]);
    second.block_on(settle());
    assert_empty(&lookups);
}

#[tokio::test]
async fn a_place_takes_the_whole_line_while_the_other_is_slow() {
    let (lookups, mut shown) = with_places(2);
    let mut asked = Vec::new();
    for name in NAMES {
        asked.push(ask(&lookups, &[name]).await);
    }
    let slow = shown.try_recv().unwrap();
    // The first share is a fair one: the other may be done at any moment.
    for keys in ["1", "2345", "678"] {
        let batch = shown.try_recv().unwrap();
        assert_eq!(batch.keys, names_of(keys));
        end(batch, End::Found);
        settle().await;
    }
    assert_eq!(lookups.inner.line.lock().taken, 1);
    // Whoever asks for the other goes away.
    asked.remove(0).abort();
    settle().await;
    drop(slow);
    for (name, asked) in NAMES[1..].iter().zip(asked) {
        assert_eq!(answered(asked).await, [*name]);
    }
    assert_empty(&lookups);
}
