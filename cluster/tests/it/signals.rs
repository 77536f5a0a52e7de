//! The one test that sends signals. They reach the whole process, which is why there is no other
//! test that listens to them.

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::client::{Server, config, soon};
use escala_cluster::{Drain, DrainEnd};

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

    // A pre-stop hook begins the drain by hand, then the first signal comes: it cuts nothing.
    let server = Server::start(config()).await;
    server.drain.on_signals().expect("listening");
    let mut busy = server.busy().await;
    server.drain.begin();
    let witness = Drain::new(config());
    witness.on_signals().expect("listening");
    kill_process(getpid(), Signal::TERM).expect("sent");
    soon("the signal to be seen", witness.started()).await;
    server.gate.add_permits(1);
    assert_eq!(busy.answer().await.body, "through");
    assert_eq!(server.ended().await.end, DrainEnd::Finished);
}
