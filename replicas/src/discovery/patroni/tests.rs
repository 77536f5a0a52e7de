//! Answers of Patroni, good and bad.

use proptest::prelude::*;

use super::*;

const ANSWER: &str = r#"{"members": [
  {"name": "n0", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni",
   "host": "10.0.0.1", "port": 5432, "timeline": 3},
  {"name": "n1", "role": "replica", "state": "streaming", "host": "10.0.0.2", "port": 5432,
   "timeline": 3, "lag": 0, "tags": {"noloadbalance": true, "nofailover": true}},
  {"name": "n2", "role": "replica", "state": "creating replica", "host": "10.0.0.3", "port": 5432,
   "lag": "unknown"},
  {"name": "n3", "role": "replica"},
  17
], "scope": "main"}"#;

fn source() -> PatroniSource<()> {
    PatroniSource {
        endpoints: vec!["http://one".to_owned(), "http://two/".to_owned()],
        at: 0,
        fetch: Arc::new(|_| Box::pin(async { Err("unreachable".into()) })),
        member: (),
        limit: Duration::from_secs(1),
        leader: None,
        seen: BTreeMap::new(),
    }
}

#[test]
fn members_that_can_be_reached_are_read_and_the_rest_is_left_out() {
    let members = read(ANSWER.as_bytes()).unwrap();
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["n0", "n1", "n2"]);
    assert_eq!((members[0].timeline, members[0].tags.noloadbalance), (Some(3), false));
    assert!(members[1].tags.noloadbalance);
}

#[test]
fn what_runs_is_a_node_and_stays_one() {
    let mut source = source();
    let first = source.digest(read(ANSWER.as_bytes()).unwrap());
    assert_eq!(first.found.keys().collect::<Vec<_>>(), ["n0", "n1"]);
    assert!(first.hint, "a leader that was not known");
    assert!(!source.digest(read(ANSWER.as_bytes()).unwrap()).hint);
    // n1 leads now, n0 is down, and n2 is ready.
    let later = ANSWER
        .replace(r#""leader", "state": "running""#, r#""replica", "state": "stopped""#)
        .replace(r#""replica", "state": "streaming""#, r#""leader", "state": "running""#)
        .replace("creating replica", "streaming");
    let second = source.digest(read(later.as_bytes()).unwrap());
    assert_eq!(second.found.keys().collect::<Vec<_>>(), ["n0", "n1", "n2"]);
    assert!(second.hint);
    // One that stopped elsewhere is another one.
    let moved = later.replace("10.0.0.1", "10.0.0.9");
    let third = source.digest(read(moved.as_bytes()).unwrap());
    assert_eq!(third.found.keys().collect::<Vec<_>>(), ["n1", "n2"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_tags_change_is_judged_anew() {
    let body = Arc::new(parking_lot::Mutex::new(ANSWER.to_owned()));
    let answer = Arc::clone(&body);
    let set = Replicas::with_members([Member::unknown("other", 0)]).build().unwrap();
    let names = || set.stats().nodes.into_iter().map(|node| node.name).collect::<Vec<_>>();
    let discovery = Patroni::new(["http://one"], |member: &PatroniMember| {
        let wanted = !member.tags.noloadbalance;
        wanted.then(|| Member::unknown(member.name.clone(), member.port))
    })
    .fetch_with(move |_| std::future::ready(Ok(Bytes::from(answer.lock().clone()))))
    .start(&set)
    .unwrap();
    discovery.answered().await;
    assert_eq!(names(), ["other", "n0"]);
    assert_eq!(discovery.stats().nodes, 1, "one that is left out is not in the set");
    let interval = DiscoveryConfig::default().interval;
    for (tag, expected) in [("false", &["other", "n0", "n1"][..]), ("true", &["other", "n0"])] {
        *body.lock() =
            ANSWER.replace(r#""noloadbalance": true"#, &format!(r#""noloadbalance": {tag}"#));
        tokio::time::sleep(interval).await;
        assert_eq!(names(), expected);
        tokio::time::sleep(interval).await;
        assert_eq!(discovery.stats().nodes, expected.len() as u64 - 1);
    }
    assert_eq!((discovery.stats().added_total, discovery.stats().removed_total), (2, 1));
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    for body in ["", "{}", "[]", r#"{"members": 3}"#, "<html>"] {
        assert!(read(body.as_bytes()).is_err(), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_tried_in_turn_and_the_one_that_answers_is_kept() {
    let asked = Arc::<parking_lot::Mutex<Vec<String>>>::default();
    let log = Arc::clone(&asked);
    let mut source = source();
    source.fetch = Arc::new(move |url| {
        log.lock().push(url.clone());
        Box::pin(async move {
            if url.starts_with("http://one") {
                std::future::pending::<()>().await;
            }
            Ok(Bytes::from(ANSWER))
        })
    });
    assert_eq!(source.fetch().await.unwrap().len(), 3);
    assert_eq!(source.fetch().await.unwrap().len(), 3);
    let expected = ["http://one/cluster", "http://two/cluster", "http://two/cluster"];
    assert_eq!(*asked.lock(), expected);
}

proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&body);
    }
}
