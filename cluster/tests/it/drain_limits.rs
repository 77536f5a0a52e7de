//! A server that runs: its bounds, its account, and what it tells its handlers.

use std::time::Duration;

use crate::client::{Server, config, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_learns_the_address_of_its_client() {
    let server = Server::start(config()).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/peer").await.body, client.address().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_bound_wait() {
    let server = Server::start(config().max_connections(2)).await;
    let (first, mut second) = (server.busy().await, server.idle().await);
    let mut third = server.connect().await;
    third.ask("/").await;
    // The second one is served all the while the third waits.
    for _ in 0..20 {
        second.get("/").await;
        assert_eq!(server.drain.stats().accepted_total, 2);
    }
    drop(first);
    assert_eq!(third.answer().await.body, "hello");
    server.until("the first is gone", |stats| stats.connections_open == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_is_cut_and_an_idle_connection_is_not() {
    let timeout = Duration::from_secs(1);
    let server = Server::start(config().header_read_timeout(timeout)).await;
    let mut idle = server.idle().await;
    let (mut slow, mut silent) = (server.connect().await, server.connect().await);
    slow.send("GET / HTTP/1.1\r\nho").await;
    silent.closed().await;
    slow.closed().await;
    server.until("both are counted", |stats| stats.connections_timed_out_total == 2).await;

    // It has been idle for longer than that, and the head it begins now is cut as well.
    assert_eq!(idle.get("/").await.body, "hello");
    idle.send("GET / HT").await;
    idle.closed().await;
    server.drain.begin();
    assert_eq!(server.ended().await.connections_finished, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_byte_now_and_then_does_not_extend_a_head() {
    let timeout = Duration::from_millis(200);
    let server = Server::start(config().header_read_timeout(timeout)).await;
    let mut slow = server.connect().await;
    slow.send("GET / HTTP/1.1\r\nhost: test\r\nx-long: ").await;
    soon("the end", async {
        while slow.try_send("x").await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    server.until("it is counted", |stats| stats.connections_timed_out_total == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_after_its_time() {
    let server = Server::start(
        config()
            .idle_timeout(Duration::from_millis(50))
            .header_read_timeout(Duration::from_secs(1)),
    )
    .await;
    let busy = server.busy().await;
    let mut idle = server.idle().await;
    idle.closed().await;
    server.until("it is counted", |stats| stats.connections_finished_total == 1).await;
    // A request that takes its time is not idle.
    assert_eq!(server.drain.stats().connections_open, 1);
    drop(busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_response_is_closed() {
    let times = Duration::from_secs(1);
    let config = config().header_read_timeout(times).idle_timeout(times).write_timeout(times);
    let server = Server::start(config).await;
    let mut stuck = server.connect().await;
    stuck.ask("/endless").await;
    server.until("it is counted", |stats| stats.connections_timed_out_total == 1).await;
    server.until("so is its request", |stats| stats.requests_cancelled_total == 1).await;
    // A handler that takes its time is not one of a client that does not read.
    let busy = server.busy().await;
    tokio::time::sleep(times * 3).await;
    assert_eq!(server.drain.stats().connections_open, 1);
    drop((busy, stuck));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_goes_on_after_its_answer_is_no_head() {
    let server = Server::start(config().header_read_timeout(Duration::from_secs(1))).await;
    let mut client = server.connect().await;
    let parts = 40;
    client
        .send(&format!("POST /early HTTP/1.1\r\nhost: test\r\ncontent-length: {parts}\r\n\r\n"))
        .await;
    assert_eq!(client.answer().await.body, "early");
    for _ in 0..parts {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.send("x").await;
    }
    assert_eq!(client.get("/").await.body, "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_a_byte_at_a_time_is_given_up() {
    let server = Server::start(config().body_read_timeout(Duration::from_millis(200))).await;
    let mut slow = server.connect().await;
    let head = "POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n";
    slow.send(head).await;
    soon("the end", async {
        while slow.try_send("x").await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let answer = slow.answer().await;
    assert_eq!(answer.body, "the request's body came too slowly");
    slow.closed().await;
    server.until("it is counted", |stats| stats.connections_timed_out_total == 1).await;
    assert_eq!(server.drain.stats().bodies_timed_out_total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_fast_enough_may_take_longer() {
    let patience = Duration::from_secs(2);
    let server = Server::start(config().body_read_timeout(patience)).await;
    let mut client = server.connect().await;
    let (part, parts) = ("x".repeat(200), 50);
    let length = part.len() * parts;
    client
        .send(&format!("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n"))
        .await;
    let began = tokio::time::Instant::now();
    for _ in 0..parts {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.send(&part).await;
    }
    assert!(began.elapsed() > patience);
    assert_eq!(client.answer().await.body, length.to_string());
    assert_eq!(client.get("/").await.body, "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_too_long_is_dropped_and_its_client_answered() {
    let server = Server::start(config().request_timeout(Duration::from_millis(100))).await;
    let mut client = server.connect().await;
    let answer = client.get("/gate").await;
    assert_eq!(answer.status(), "503");
    assert!(answer.head.contains("retry-after: 1") && !answer.closes(), "{}", answer.head);
    assert!(answer.body.contains("\"status\":503"), "{}", answer.body);
    server.until("it is counted", |stats| stats.requests_timed_out_total == 1).await;
    // The response's body may take any time.
    assert_eq!(client.get("/").await.body, "hello");
    server.until("it has ended", |stats| stats.requests_in_flight == 0).await;
    assert_eq!(server.drain.stats().requests_timed_out_total, 1, "that one was in time");

    client.send("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.closes()), ("408", true));
    client.closed().await;
    server.drain.begin();
    assert!(server.ended().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_makes_room_if_one_is_wanted() {
    let server = Server::start(config().max_connections(3)).await;
    let _busy = server.busy().await;
    let mut idle = [server.idle().await, server.idle().await];
    // Nobody wants a place: both stay.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(server.drain.stats().connections_evicted_total, 0);
    let mut new = server.connect().await;
    assert_eq!(new.get("/").await.body, "hello");
    server.until("one is gone", |stats| stats.connections_evicted_total == 1).await;
    assert_eq!(server.drain.stats().requests_in_flight, 1);
    // One of the two was closed, the other one is served.
    let mut served = 0;
    for client in &mut idle {
        if client.try_send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await {
            served += u32::from(client.try_answer().await.is_some());
        }
    }
    assert_eq!(served, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_makes_room_if_a_place_is_wanted() {
    // No head times out in this test.
    let server =
        Server::start(config().max_connections(2).header_read_timeout(Duration::from_secs(600)))
            .await;
    let _busy = server.busy().await;
    let mut slow = server.connect().await;
    slow.send("G").await;
    server.until("both have a place", |stats| stats.accepted_total == 2).await;
    let mut new = server.connect().await;
    assert_eq!(new.get("/").await.body, "hello");
    slow.closed().await;
    let stats = server.drain.stats();
    assert_eq!((stats.connections_timed_out_total, stats.requests_in_flight), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_not_taken_back_by_the_close_behind_it() {
    let server = Server::start(config()).await;
    let mut client = server.connect().await;
    // The handler does not read the body; the client sends it all before it reads.
    client.send("GET / HTTP/1.1\r\nhost: test\r\ncontent-length: 3000000\r\n\r\n").await;
    server.until("it is answered", |stats| stats.requests_finished_total == 1).await;
    for _ in 0..30 {
        client.send(&"x".repeat(100_000)).await;
    }
    assert_eq!(client.answer().await.body, "hello");
    client.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_two_lengths_is_refused() {
    let server = Server::start(config()).await;
    let both = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\ntransfer-encoding: chunked";
    let mut client = server.idle().await;
    client.send(&format!("{both}\r\n\r\n0\r\n\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.closes()), ("400", true));
    client.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_a_request_ends_is_counted() {
    let server = Server::start(config()).await;
    let mut client = server.idle().await;
    assert_eq!(client.get("/stream").await.body, "one.");
    client.send("HEAD / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(client.reads("HTTP/1.1 200 OK\r\n").await);
    drop(client);
    server.until("they finish", |stats| stats.requests_finished_total == 3).await;

    drop(server.busy().await);
    server.until("it is given up", |stats| stats.requests_cancelled_total == 1).await;
    let mut broken = server.connect().await;
    broken.ask("/panic").await;
    broken.closed().await;
    server.until("it panics", |stats| stats.requests_panicked_total == 1).await;
    assert_eq!(server.idle().await.get("/").await.status(), "200");
    server.drain.begin();
    assert!(server.ended().await.is_clean());
}

#[tokio::test]
async fn every_figure_is_handed_out_under_its_name() {
    let server = Server::start(config()).await;
    server.idle().await;
    server.drain.begin();
    let mut seen = std::collections::BTreeMap::new();
    server.drain.stats().visit(&mut |name, labels, value| {
        assert!(labels.is_empty());
        assert!(seen.insert(name.to_owned(), value).is_none(), "{name} comes twice");
    });
    assert_eq!((seen["draining"], seen["accepted_total"]), (1.0, 1.0));
    assert_eq!((seen["requests_finished_total"], seen.len()), (1.0, 21));
}
