//! The one test that sends signals. They reach the whole process, which is why there is no other
//! test that listens to them.

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::client::{Server, config, soon};
use escala_cluster::DrainEnd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_signal_begins_the_drain_and_the_second_ends_it() {
    let server = Server::start(config().lame_duck(Duration::from_secs(600))).await;
    server.drain.on_signals().expect("listening");
    // A second listener would count the first signal as the second.
    server.drain.on_signals().expect("listening already");
    let mut hung = server.busy().await;

    let started = server.drain.started();
    kill_process(getpid(), Signal::TERM).expect("sent");
    soon("the drain to start", started).await;
    assert_eq!(server.connect().await.get("/").await.body, "hello");
    assert!(!server.running.is_finished());

    kill_process(getpid(), Signal::INT).expect("sent");
    hung.closed().await;
    let report = server.ended().await;
    assert_eq!((report.end, report.requests_cut), (DrainEnd::Aborted, 1));

    // A drain that was begun by hand is not cut short by its first signal.
    let server = Server::start(config()).await;
    server.drain.on_signals().expect("listening");
    let mut busy = server.busy().await;
    server.drain.begin();
    kill_process(getpid(), Signal::TERM).expect("sent");
    // The listener of signals runs in the order in which they come: this one has been seen when
    // a drain that is not begun yet has.
    let witness = escala_cluster::Drain::new(config());
    witness.on_signals().expect("listening");
    let seen = witness.started();
    kill_process(getpid(), Signal::INT).expect("sent");
    soon("the witness", seen).await;
    busy.closed().await;
    assert_eq!(server.ended().await.end, DrainEnd::Aborted);
}
