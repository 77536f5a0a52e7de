//! Nodes that come and go by what a resolver says.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use escala_replicas::discovery::{Discovery, DiscoveryConfig, Dns};
use escala_replicas::{Member, Replicas, Session};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::eventually;

type Script = Arc<Mutex<VecDeque<io::Result<Vec<SocketAddr>>>>>;

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 5432))
}

/// Its answers one after the other, the last one for ever.
fn scripted(
    script: &Script,
) -> impl Fn() -> std::future::Ready<io::Result<Vec<SocketAddr>>> + use<> {
    let script = Arc::clone(script);
    move || {
        let mut script = script.lock();
        let answer = if script.len() > 1 { script.pop_front() } else { None };
        std::future::ready(match (answer, script.front()) {
            (Some(answer), _) => answer,
            (None, Some(Ok(last))) => Ok(last.clone()),
            (None, _) => Err(io::ErrorKind::TimedOut.into()),
        })
    }
}

fn follow(
    answers: impl IntoIterator<Item = io::Result<Vec<SocketAddr>>>,
) -> (Replicas<SocketAddr>, Discovery) {
    let script: Script = Arc::new(Mutex::new(answers.into_iter().collect()));
    let set = Replicas::builder(addr(0)).build().unwrap();
    let member = |addr: SocketAddr| Member::replica(format!("at {}", addr.ip()), addr).weight(2);
    let discovery = Dns::with_resolver(scripted(&script), member).start(&set).unwrap();
    (set, discovery)
}

fn names(set: &Replicas<SocketAddr>) -> Vec<String> {
    set.stats().nodes.iter().map(|node| node.name.clone()).collect()
}

/// More than one interval and less than two.
async fn one_question() {
    sleep(Duration::from_millis(10_001)).await;
}

#[tokio::test(start_paused = true)]
async fn addresses_are_added_at_once_and_removed_when_they_stay_away() {
    let both = || Ok(vec![addr(1), addr(2)]);
    let answers = [both(), Ok(vec![addr(2)]), both(), Ok(vec![addr(2)])];
    let (set, discovery) = follow(answers);
    discovery.answered().await;
    assert_eq!(names(&set), ["primary", "at 10.0.0.1", "at 10.0.0.2"]);
    assert_eq!(set.stats().node("at 10.0.0.1").unwrap().weight, 2);
    one_question().await;
    one_question().await;
    assert_eq!(names(&set).len(), 3, "an answer without it is no reason yet");
    eventually("the one that stays away is removed", || names(&set).len() == 2).await;
    assert_eq!(names(&set), ["primary", "at 10.0.0.2"]);
    assert_eq!(*set.read(&Session::new()).unwrap(), addr(2));
    let stats = discovery.stats();
    assert_eq!((stats.nodes, stats.added_total, stats.removed_total), (1, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_fails_or_knows_of_nobody_takes_no_node_away() {
    let answers = [
        Ok(vec![addr(1)]),
        Err(io::ErrorKind::NotFound.into()),
        Ok(Vec::new()),
        Err(io::ErrorKind::TimedOut.into()),
    ];
    let (set, discovery) = follow(answers);
    sleep(Duration::from_secs(600)).await;
    assert!(discovery.stats().failures_total > 50);
    assert_eq!(names(&set), ["primary", "at 10.0.0.1"]);
    assert_eq!(discovery.stats().answers_total, 1);
}

#[tokio::test(start_paused = true)]
async fn too_many_nodes_are_refused_and_the_rest_serves() {
    let many: Vec<SocketAddr> = (1..=80).map(addr).collect();
    let (set, discovery) = follow([Ok(many)]);
    discovery.answered().await;
    assert_eq!(names(&set).len(), 64);
    let stats = discovery.stats();
    assert_eq!((stats.added_total, stats.refused_total), (63, 17));
}

#[tokio::test(start_paused = true)]
async fn panics_of_the_caller_s_functions_are_failures() {
    let set = Replicas::builder(addr(0)).build().unwrap();
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let resolver = move || {
        let call = {
            let mut calls = counted.lock();
            *calls += 1;
            *calls
        };
        assert!(call > 1, "before the future");
        async move {
            assert!(call > 2, "in the future");
            Ok(vec![addr(1), addr(2)])
        }
    };
    let member = |found: SocketAddr| {
        assert!(found != addr(1), "in the member");
        Member::replica(found.to_string(), found)
    };
    let discovery = Dns::with_resolver(resolver, member).start(&set).unwrap();
    discovery.answered().await;
    assert_eq!(discovery.stats().failures_total, 2);
    assert_eq!(names(&set), ["primary", "10.0.0.2:5432"]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_set_or_by_the_signal() {
    let (set, discovery) = follow([Ok(vec![addr(1)])]);
    discovery.answered().await;
    drop(set);
    discovery.ended().await;

    let set = Replicas::builder(addr(0)).build().unwrap();
    let (signal, shutdown) = oneshot::channel::<()>();
    let shutdown = async { drop(shutdown.await) };
    let script: Script = Arc::new(Mutex::new([Ok(vec![addr(1)])].into()));
    let member = |addr: SocketAddr| Member::replica(addr.to_string(), addr);
    let dns = Dns::with_resolver(scripted(&script), member).shutdown(shutdown);
    let discovery = dns.start(&set).unwrap();
    discovery.answered().await;
    signal.send(()).unwrap();
    discovery.ended().await;
    assert_eq!(names(&set).len(), 2, "the set keeps its nodes");
}

#[tokio::test]
async fn the_system_s_resolver_is_asked() {
    let set = Replicas::builder(addr(0)).build().unwrap();
    let member = |addr: SocketAddr| Member::replica(addr.to_string(), addr);
    let discovery = Dns::new("localhost:7", member).start(&set).unwrap();
    discovery.answered().await;
    assert!(names(&set).contains(&"127.0.0.1:7".to_owned()), "{:?}", names(&set));
}

#[test]
fn figures_out_of_bounds_are_refused() {
    let refused = |config: DiscoveryConfig| config.validate().unwrap_err().to_string();
    let config = DiscoveryConfig::default;
    assert_eq!(config().validate(), Ok(()));
    let rule = "but must be from 10 ms to 24 hours";
    let short = Duration::from_millis(9);
    assert_eq!(refused(config().interval(short)), format!("interval is \"9ms\", {rule}"));
    assert_eq!(refused(config().timeout(short)), format!("timeout is \"9ms\", {rule}"));
    let refused = refused(config().missing_answers(0));
    assert_eq!(refused, "missing_answers is \"0\", but must be at least 1");
}
