//! A second server is asked when the first is slow.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::Semaphore;

use super::*;

fn config() -> ProxyConfig {
    ProxyConfig::default().hedge_after(Duration::from_millis(50))
}

#[tokio::test]
async fn the_quicker_answer_wins_and_the_other_is_cancelled() {
    let (slow, quick) = (Server::start("slow").await, Server::start("quick").await);
    slow.answers(Answer::Wait(Arc::new(Semaphore::new(0))));
    // The second request goes to the quick one and is not hedged.
    let proxy = proxy(&[&slow, &quick], config().hedge_after(Duration::from_secs(1)));
    for _ in 0..2 {
        assert_eq!(answer(&proxy, &Method::GET).await, (200, "quick".to_owned()));
    }
    let stats = proxy.stats();
    assert_eq!((stats.hedges_total, stats.hedges_won_total), (1, 1));
    assert_eq!(in_flight(proxy.replicas()), 0);
    let slow = node(proxy.replicas(), "a");
    assert_eq!((slow.started_total, slow.cancelled_total), (1, 1));
}

#[tokio::test]
async fn a_hedge_that_fails_leaves_the_first_its_time() {
    let (slow, bad) = (Server::start("slow").await, Server::start("bad").await);
    let go = Arc::new(Semaphore::new(0));
    slow.answers(Answer::Wait(Arc::clone(&go)));
    bad.answers(Answer::Close);
    let proxy = proxy(&[&slow, &bad], config());
    let released = async {
        eventually("the hedge", || bad.requests() == 1).await;
        go.add_permits(1);
    };
    let (answer, ()) = tokio::join!(answer(&proxy, &Method::GET), released);
    assert_eq!(answer, (200, "slow".to_owned()));
    assert_eq!(proxy.stats().hedges_won_total, 0);
    assert_eq!(node(proxy.replicas(), "b").failed_total, 1);
    assert_eq!(in_flight(proxy.replicas()), 0);
}

#[tokio::test]
async fn a_hedge_has_not_won_when_both_fail() {
    let (first, second) = (Server::start("first").await, Server::start("second").await);
    let go = Arc::new(Semaphore::new(0));
    first.answers(Answer::CloseAfter(Arc::clone(&go)));
    second.answers(Answer::CloseAfter(Arc::clone(&go)));
    let proxy = proxy(&[&first, &second], config().attempts(1));
    let released = async {
        eventually("the hedge", || second.requests() == 1).await;
        go.add_permits(2);
    };
    let (sent, ()) = tokio::join!(send(&proxy, &Method::GET, ""), released);
    assert_eq!(sent.unwrap_err().status(), 502);
    assert_eq!((proxy.stats().hedges_total, proxy.stats().hedges_won_total), (1, 0));
}

#[tokio::test]
async fn a_write_is_not_hedged_and_neither_is_what_the_budget_has_no_room_for() {
    let (slow, other) = (Server::start("slow").await, Server::start("other").await);
    let go = Arc::new(Semaphore::new(0));
    slow.answers(Answer::Wait(Arc::clone(&go)));
    for (method, config) in [
        (Method::POST, config()),
        (Method::PUT, config()),
        (Method::GET, config().retry_budget(0.0, 0)),
    ] {
        let before = slow.requests();
        let proxy = proxy(&[&slow, &other], config);
        let released = async {
            eventually("the request", || slow.requests() > before).await;
            // Longer than the hedge would wait.
            tokio::time::sleep(Duration::from_millis(150)).await;
            go.add_permits(1);
        };
        let (answer, ()) = tokio::join!(answer(&proxy, &method), released);
        assert_eq!((answer.1.as_str(), proxy.stats().hedges_total), ("slow", 0), "{method}");
    }
    assert_eq!(other.requests(), 0);
}
