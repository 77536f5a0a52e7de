//! Pushes in, signals out.

use super::*;

fn push(kind: PushKind, data: &[&str]) -> PushInfo {
    let data = data.iter().map(|part| Value::BulkString(part.as_bytes().to_vec())).collect();
    PushInfo { kind, data }
}

fn message(channel: &str, number: u64) -> PushInfo {
    let mut push = push(PushKind::Message, &[channel]);
    push.data.push(Value::BulkString(number.to_be_bytes().to_vec()));
    push
}

fn heard(receiver: &mut mpsc::Receiver<Signal>) -> Vec<Signal> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

#[test]
fn of_prefixes_that_contain_each_other_the_shortest_stays() {
    let table: [(&[&str], &[&str]); 4] = [
        (&[], &[]),
        (&["b", "a"], &["a", "b"]),
        (&["a:b", "a", "a:", "a", "b:c", "b:cd"], &["a", "b:c"]),
        (&["x", ""], &[""]),
    ];
    for (given, expected) in table {
        let given = given.iter().map(|prefix| (*prefix).to_owned()).collect();
        assert_eq!(shortest(given), expected);
    }
}

#[tokio::test]
async fn the_last_words_of_an_old_session_count_for_nothing() {
    let hub = Arc::new(Hub::new("ns:".to_owned()));
    let (mut receiver, start) = hub.add("ns:c".to_owned(), None);
    assert!(start);
    let old = hub.begin_feed();
    hub.fed(old, push(PushKind::Subscribe, &["ns:c"]));
    let new = hub.begin_feed();
    assert_eq!(heard(&mut receiver), [Signal::Up, Signal::Down]);
    hub.fed(old, push(PushKind::Subscribe, &["ns:c"]));
    hub.fed(old, message("ns:c", 1));
    assert_eq!(heard(&mut receiver), []);
    hub.fed(new, message("ns:c", 2));
    assert_eq!(heard(&mut receiver), [], "not before it stands");
    hub.fed(new, push(PushKind::Subscribe, &["ns:c"]));
    hub.fed(old, push(PushKind::Disconnection, &[]));
    hub.fed(new, message("ns:c", 3));
    hub.fed(new, message("ns:d", 4));
    let third = Signal::Message { sequence: 3, body: vec![] };
    assert_eq!(heard(&mut receiver), [Signal::Up, third]);
    assert!(hub.is_fed_by(new));
    hub.fed(new, push(PushKind::Disconnection, &[]));
    assert!(!hub.is_fed_by(new));
    assert_eq!(heard(&mut receiver), [Signal::Down]);
}

#[tokio::test]
async fn a_tracking_subscription_stands_on_both_connections() {
    let hub = Arc::new(Hub::new("ns:".to_owned()));
    let (mut receiver, _) = hub.add("ns:c".to_owned(), Some("ns:q:".to_owned()));
    let feed = hub.begin_feed();
    hub.begin_link(1);
    hub.fed(feed, push(PushKind::Subscribe, &["ns:c"]));
    assert_eq!(heard(&mut receiver), []);
    hub.tracks(1, hub.prefixes());
    assert_eq!(heard(&mut receiver), [Signal::Up]);
    let keys = Value::Array(
        ["ns:q:a", "ns:r:b", "other", "ns:q:c"].map(|key| Value::BulkString(key.into())).into(),
    );
    hub.invalidated(1, &PushInfo { kind: PushKind::Invalidate, data: vec![keys.clone()] });
    hub.invalidated(1, &PushInfo { kind: PushKind::Invalidate, data: vec![Value::Nil] });
    let changed = |key: &str| Signal::Changed { key: key.to_owned() };
    assert_eq!(heard(&mut receiver), [changed("q:a"), changed("q:c"), Signal::Flushed]);
    hub.begin_link(2);
    hub.begin_link(1);
    hub.tracks(1, hub.prefixes());
    hub.invalidated(1, &PushInfo { kind: PushKind::Invalidate, data: vec![keys] });
    assert_eq!(heard(&mut receiver), [Signal::Down]);
    hub.tracks(2, hub.prefixes());
    assert_eq!(heard(&mut receiver), [Signal::Up]);
}

#[tokio::test]
async fn a_subscription_ends_with_its_receiver_and_the_next_starts_anew() {
    let hub = Arc::new(Hub::new("ns:".to_owned()));
    let (first, start) = hub.add("ns:c".to_owned(), None);
    assert!(start);
    let (second, start) = hub.add("ns:d".to_owned(), None);
    assert!(!start && !hub.retires());
    drop((first, second));
    while !hub.wanted().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(hub.retires());
    assert!(hub.add("ns:c".to_owned(), None).1);
}
