//! `read_with`: which nodes an operation is tried on, and which error comes back.

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::time::Duration;

use escala_replicas::{ReadError, Reason, Replicas, RouteError, Session, Strategy};
use tokio::time::advance;

use crate::{Name, documented, in_flight, node};

#[derive(Debug, PartialEq, thiserror::Error)]
enum Failure {
    #[error("{0} is down")]
    Down(Name),
    #[error("no such row")]
    NoRow,
}

fn is_down(error: &Failure) -> bool {
    matches!(error, Failure::Down(_))
}

/// Reads with every node in `down` failing; returns the result and the nodes in the order tried.
async fn read(
    db: &Replicas<Name>,
    session: &Session,
    down: &[Name],
) -> (Result<Name, ReadError<Failure>>, Vec<Name>) {
    let tried = RefCell::new(Vec::new());
    let operation = |node: Name| {
        tried.borrow_mut().push(node);
        ready(if down.contains(&node) { Err(Failure::Down(node)) } else { Ok(node) })
    };
    let result = db.read_with(session, is_down, operation).await;
    (result, tried.into_inner())
}

#[tokio::test(start_paused = true)]
async fn another_replica_takes_over_and_nothing_is_lost() {
    let db = documented(Strategy::LeastLoaded);
    for _ in 0..100 {
        let (result, tried) = read(&db, &Session::new(), &["replica-1"]).await;
        assert_ne!(result.unwrap(), "replica-1");
        assert!(tried.len() <= 2);
    }
    let dead = node(&db, "replica-1");
    assert!(!dead.healthy);
    assert_eq!((dead.started_total, dead.failed_total), (3, 3));
    assert_eq!(db.stats().picks_for(Reason::Failover), 3);
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn a_second_try_takes_nobody_s_turn() {
    let db = documented(Strategy::Weighted);
    let mut first = Vec::new();
    for _ in 0..8 {
        first.push(read(&db, &Session::new(), &["replica-3"]).await.1[0]);
    }
    let count = |name| first.iter().filter(|picked| **picked == name).count();
    assert_eq!([count("replica-1"), count("replica-2"), count("replica-3")], [3, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_primary_is_the_last_but_ejected_nodes_come_after_it() {
    let db = documented(Strategy::LeastLoaded);
    let replicas = ["replica-1", "replica-2", "replica-3"];
    let (result, tried) = read(&db, &Session::new(), &replicas).await;
    assert_eq!(result.unwrap(), "primary");
    assert_eq!((tried.len(), tried[3]), (4, "primary"));
    assert_eq!(db.stats().picks_for(Reason::PrimaryFallback), 1);

    // Two more such reads eject all replicas; then they are tried only after the primary.
    for _ in 0..2 {
        read(&db, &Session::new(), &replicas).await.0.unwrap();
    }
    let everything = ["primary", "replica-1", "replica-2", "replica-3"];
    let (result, tried) = read(&db, &Session::new(), &everything).await;
    assert_eq!(result, Err(ReadError::Operation(Failure::Down(tried[3]))), "the last error");
    assert_eq!(tried[0], "primary");
    let mut once = tried.clone();
    once.sort_unstable();
    assert_eq!(once, everything, "each node exactly once");
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn errors_that_do_not_blame_the_node_come_back_at_once_and_eject_nobody() {
    let db = documented(Strategy::LeastLoaded);
    for _ in 0..100 {
        let calls = Cell::new(0);
        let operation = |_| {
            calls.set(calls.get() + 1);
            ready(Err::<(), _>(Failure::NoRow))
        };
        let result = db.read_with(&Session::new(), is_down, operation).await;
        assert_eq!(result, Err(ReadError::Operation(Failure::NoRow)));
        assert_eq!(calls.get(), 1);
    }
    let stats = db.stats();
    assert!(stats.nodes.iter().all(|node| node.healthy && node.failed_total == 0));
    assert_eq!(stats.nodes.iter().map(|node| node.succeeded_total).sum::<u64>(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_neutral_error_neither_clears_failures_nor_ends_a_trial() {
    let db = documented(Strategy::LeastLoaded);
    let answer = |error: fn(Name) -> Failure| {
        move |node: Name| ready(if node == "replica-1" { Err(error(node)) } else { Ok(node) })
    };
    while node(&db, "replica-1").failed_total < 2 {
        let _ = db.read_with(&Session::new(), is_down, answer(Failure::Down)).await;
    }
    for _ in 0..20 {
        let _ = db.read_with(&Session::new(), is_down, answer(|_| Failure::NoRow)).await;
    }
    while node(&db, "replica-1").failed_total < 3 {
        let _ = db.read_with(&Session::new(), is_down, answer(Failure::Down)).await;
    }
    assert!(!node(&db, "replica-1").healthy, "the third failure since the last success");

    advance(Duration::from_secs(30)).await;
    for trials in 1..=2 {
        let result = db.read_with(&Session::new(), is_down, answer(|_| Failure::NoRow)).await;
        assert_eq!(result, Err(ReadError::Operation(Failure::NoRow)));
        assert_eq!(db.stats().picks_for(Reason::Trial), trials);
        assert!(!node(&db, "replica-1").healthy);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_time_is_up_during_the_read_is_not_tried_again() {
    let db = documented(Strategy::LeastLoaded);
    let mut most = 0;
    while node(&db, "replica-1").healthy {
        let tried = RefCell::new(Vec::new());
        // The third failure ejects replica-1; its 30 s pass while the next node fails slowly.
        let operation = |node: Name| {
            tried.borrow_mut().push(node);
            let failing_over = tried.borrow()[0] == "replica-1" && node != "primary";
            async move {
                if failing_over && node != "replica-1" {
                    tokio::time::sleep(Duration::from_secs(31)).await;
                }
                if failing_over { Err(Failure::Down(node)) } else { Ok(node) }
            }
        };
        db.read_with(&Session::new(), is_down, operation).await.unwrap();
        let tried = tried.into_inner();
        most = tried.iter().filter(|name| **name == "replica-1").count().max(most);
    }
    assert_eq!(most, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_read_is_never_shown_a_replica() {
    let db = documented(Strategy::LeastLoaded);
    let pinned = Session::pinned_to_primary();
    let (result, tried) = read(&db, &pinned, &["primary"]).await;
    assert_eq!(result, Err(ReadError::Operation(Failure::Down("primary"))));
    assert_eq!(tried, ["primary"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_primary_all_replicas_are_tried_and_pinned_reads_have_none() {
    let db = Replicas::without_primary().replica("a", 1, "a").replica("b", 1, "b");
    let db = db.build().unwrap();
    let (result, tried) = read(&db, &Session::new(), &["a", "b"]).await;
    assert!(matches!(result, Err(ReadError::Operation(Failure::Down(_)))));
    assert_eq!(tried.len(), 2);
    let (result, tried) = read(&db, &Session::pinned_to_primary(), &[]).await;
    let error = result.unwrap_err();
    assert!(error.is_no_node());
    assert_eq!(error, ReadError::NoNode(RouteError::NoPrimary));
    assert!(tried.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_is_tried_once() {
    let db = Replicas::builder("primary").build().unwrap();
    let (result, tried) = read(&db, &Session::new(), &["primary"]).await;
    assert_eq!(result, Err(ReadError::Operation(Failure::Down("primary"))));
    assert_eq!(tried, ["primary"]);
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "the operation failed");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "primary is down");
    assert_eq!(error.into_operation(), Some(Failure::Down("primary")));
}
