//! A server that ends: what is finished, what is closed, what is cut, and in which order.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use escala_cluster::{Drain, DrainEnd};
use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, Server, config, soon};

const NEVER: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_ends_at_once() {
    let server = Server::start(config()).await;
    server.drain.begin();
    let report = server.ended().await;
    assert_eq!(report.end, DrainEnd::Finished);
    assert_eq!((report.connections_finished, report.requests_finished), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_the_lame_duck_it_serves_as_before_and_says_it_is_not_ready() {
    let server = Server::start(config().lame_duck(NEVER)).await;
    let mut old = server.idle().await;
    assert!(!server.drain.is_draining());
    let (mut started, mut stopped) = (pin!(server.drain.started()), pin!(server.drain.stopped()));
    assert!(started.as_mut().now_or_never().is_none());

    server.drain.begin();
    assert!(server.drain.is_draining());
    soon("the drain to start", started).await;
    assert!(!old.get("/").await.closes());
    let mut new = server.connect().await;
    assert!(!new.get("/").await.closes());
    assert!(stopped.as_mut().now_or_never().is_none());

    server.drain.abort();
    soon("the server to stop", stopped).await;
    assert_eq!(server.ended().await.end, DrainEnd::Aborted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_lame_duck_nobody_can_connect() {
    let server = Server::start(config().lame_duck(Duration::from_millis(50))).await;
    let _busy = server.busy().await;
    server.drain.begin();
    server.refuses().await;
    assert!(!server.running.is_finished(), "a request is still open");
    server.gate.add_permits(1);
    assert!(server.ended().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_flight_is_finished_and_its_connection_closed() {
    let server = Server::start(config()).await;
    let mut client = server.busy().await;
    let mut stopped = pin!(server.drain.stopped());
    server.drain.begin();
    server.refuses().await;
    assert!(stopped.as_mut().now_or_never().is_none(), "a request is open");
    server.gate.add_permits(1);
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.body.as_str()), ("200", "through"));
    assert!(answer.closes(), "{}", answer.head);
    client.closed().await;
    soon("the server to stop", stopped).await;

    let report = server.ended().await;
    assert_eq!((report.end, report.requests_finished), (DrainEnd::Finished, 1));
    assert!(report.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_a_request_are_closed() {
    let server = Server::start(config().idle_linger(Duration::from_millis(20))).await;
    let (mut used, mut fresh) = (server.idle().await, server.connect().await);
    server.until("both are accepted", |stats| stats.connections_open == 2).await;
    server.drain.begin();
    used.closed().await;
    fresh.closed().await;
    let report = server.ended().await;
    assert_eq!((report.end, report.connections_finished), (DrainEnd::Finished, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_an_idle_connection_is_answered_with_close() {
    let server = Server::start(config().idle_linger(NEVER)).await;
    let (mut at_once, mut later) = (server.idle().await, server.idle().await);
    let mut fresh = server.connect().await;
    server.until("all are accepted", |stats| stats.connections_open == 3).await;
    server.drain.begin();
    server.refuses().await;

    for client in [&mut at_once, &mut fresh] {
        assert!(client.get("/").await.closes());
        client.closed().await;
    }
    later.ask("/gate").await;
    server.gate.add_permits(1);
    assert!(later.answer().await.closes());
    later.closed().await;
    assert!(server.ended().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_under_load_lose_no_request() {
    let server = Server::start(config().idle_linger(Duration::from_secs(10))).await;
    let (answered, lost) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let (address, answered, lost) =
                (server.address, Arc::clone(&answered), Arc::clone(&lost));
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                loop {
                    client.ask("/").await;
                    let Some(answer) = client.try_answer().await else {
                        lost.fetch_add(1, Ordering::SeqCst);
                        return;
                    };
                    answered.fetch_add(1, Ordering::SeqCst);
                    if answer.closes() {
                        return client.closed().await;
                    }
                }
            })
        })
        .collect();
    server.until("load", |stats| stats.requests_finished_total > 500).await;
    server.drain.begin();
    for client in clients {
        soon("a client to be told", client).await.expect("no panic");
    }
    let stats = server.drain.clone();
    assert!(server.ended().await.is_clean());
    assert_eq!(lost.load(Ordering::SeqCst), 0);
    let finished = stats.stats().requests_finished_total;
    assert_eq!(u64::from(answered.load(Ordering::SeqCst)), finished);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_kernel_has_queued_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut queued = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(address).await;
        client.ask("/").await;
        queued.push(client);
    }
    let drain = Drain::new(config());
    drain.begin();
    let server = Server::on(listener, drain);
    for client in &mut queued {
        let answer = client.answer().await;
        assert_eq!((answer.body.as_str(), answer.closes()), ("hello", true));
        client.closed().await;
    }
    let report = server.ended().await;
    assert_eq!((report.connections_finished, report.requests_finished), (50, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_takes_its_queue_as_places_come_free() {
    let server = Server::start(config().max_connections(1)).await;
    let mut first = server.busy().await;
    let mut queued = server.connect().await;
    queued.ask("/").await;
    server.drain.begin();
    server.gate.add_permits(1);
    assert_eq!(first.answer().await.body, "through");
    first.closed().await;
    assert!(queued.answer().await.closes());
    assert_eq!(server.ended().await.connections_finished, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_is_waited_for() {
    let server = Server::start(config()).await;
    let mut client = server.upgraded().await;
    server.drain.begin();
    server.refuses().await;
    client.send("still here").await;
    assert!(client.reads("still here").await);
    assert!(!server.running.is_finished());
    drop(client);
    let report = server.ended().await;
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_cuts_what_is_left_and_reports_it() {
    let config = config().deadline(Duration::from_millis(100)).idle_linger(NEVER);
    let server = Server::start(config).await;
    let (mut hung, mut upgraded) = (server.busy().await, server.upgraded().await);
    let mut idle = server.idle().await;
    server.drain.begin();
    for client in [&mut hung, &mut upgraded, &mut idle] {
        client.closed().await;
    }
    let report = server.ended().await;
    assert_eq!(report.end, DrainEnd::Deadline);
    assert_eq!((report.requests_cut, report.requests_finished), (1, 0));
    // The idle one is cut as well if its linger is longer than the deadline, as it is here.
    assert_eq!((report.connections_cut, report.connections_finished), (3, 0));
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_that_waits_to_write_is_cut() {
    let server = Server::start(config()).await;
    let mut deaf = server.upgraded().await;
    // The echo to a client that does not read ends up waiting to write, and the client with it.
    let flood = async {
        loop {
            deaf.send(&"x".repeat(1 << 16)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(100), flood).await.is_err());
    server.drain.abort();
    server.until("it is cut", |stats| stats.connections_open == 0).await;
    assert_eq!(server.ended().await.connections_cut, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_that_nobody_looks_at_is_written_off() {
    let server = Server::start(config()).await;
    let _client = server.switched("/hold").await;
    server.drain.abort();
    let report = server.ended().await;
    assert_eq!((report.end, report.connections_cut), (DrainEnd::Aborted, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_ends_it_at_once() {
    let server = Server::start(config().lame_duck(NEVER)).await;
    let mut hung = server.busy().await;
    server.drain.abort();
    hung.closed().await;
    let report = server.ended().await;
    assert_eq!((report.end, report.connections_cut), (DrainEnd::Aborted, 1));
    assert_eq!(report.requests_cut, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_server_closes_everything() {
    let server = Server::start(config()).await;
    let mut hung = server.busy().await;
    server.running.abort();
    hung.closed().await;
    server.until("it is counted", |stats| stats.connections_cut_total == 1).await;
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_stops_when_the_last_of_its_servers_has() {
    let first = Server::start(config()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let second = Server::on(listener, first.drain.clone());
    let _busy = second.busy().await;
    let mut stopped = pin!(first.drain.stopped());
    first.drain.begin();
    soon("the first to end", first.running).await.expect("no panic").expect("served");
    assert!(stopped.as_mut().now_or_never().is_none());
    second.gate.add_permits(1);
    soon("both to end", stopped).await;
    assert!(second.ended().await.is_clean());
}

#[tokio::test]
async fn what_waits_for_a_drain_ends_with_the_last_handle() {
    let drain = Drain::new(config());
    let (started, stopped) = (drain.started(), drain.stopped());
    drop(drain);
    soon("both", async { tokio::join!(started, stopped) }).await;
}

#[tokio::test]
async fn a_refused_configuration_serves_nothing() {
    let server = Server::start(config().max_connections(0)).await;
    let error = server.running.await.expect("no panic").expect_err("refused");
    assert_eq!(error.to_string(), "the drain's configuration is refused");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert_eq!(cause, "max_connections is 0, but must be between 1 and 1000000");
}
