//! A node that is up and down in turn leaves service and returns a bounded number of times.

use std::time::Duration;

use escala_replicas::{Replicas, ReplicasConfig, Session};
use testkit::FaultProxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::{Name, in_flight, node, steady};

/// Prime, so that no interval of ours meets the node always up or always down.
const TOGGLE: Duration = Duration::from_millis(307);

/// The n-th ejection lasts n times the first, so that in time T there are about sqrt(2 T / base).
fn bound(time: Duration, base: Duration) -> u64 {
    (2.0 * time.as_secs_f64() / base.as_secs_f64()).sqrt() as u64 + 2
}

fn flapping(start: Instant) -> bool {
    (start.elapsed().as_millis() / TOGGLE.as_millis()) % 2 == 1
}

/// Reads for `time` from two nodes of which one toggles; returns how often that one left and returned.
async fn simulate(db: &Replicas<Name>, start: Instant, time: Duration) -> (u64, u64) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let down = |node: Name| node == "flaps" && flapping(start);
        let read = |node: Name| async move {
            sleep(Duration::from_millis(20)).await;
            if down(node) { Err("down") } else { Ok(()) }
        };
        db.read_with(&Session::new(), |_| true, read).await.unwrap();
    }
    let stats = node(db, "flaps");
    (stats.ejections_total, stats.returns_total)
}

#[tokio::test(start_paused = true)]
async fn toggling_for_long_costs_few_transitions() {
    const TIME: Duration = Duration::from_secs(1_200);
    let set = || Replicas::builder("primary").replica("flaps", 1, "flaps").replica("ok", 1, "ok");
    let config = || steady().ejection_max(TIME);
    let start = Instant::now();
    let check = async |db: Replicas<Name>| {
        let (ejections, returns) = simulate(&db, start, TIME).await;
        assert!(ejections > 3, "it did toggle: {ejections}");
        let bound = bound(TIME, Duration::from_secs(30));
        assert!(ejections <= bound && returns <= ejections, "{ejections} and {returns} of {bound}");
        assert_eq!(in_flight(&db), 0);
    };
    check(set().config(config()).build().unwrap()).await;
    let probe = move |node: Name| async move {
        if node == "flaps" && flapping(start) { Err("down".into()) } else { Ok(()) }
    };
    check(set().config(config()).probe(probe).build().unwrap()).await;
}

/// A server that sends back what it gets.
async fn echo() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // An error is the client's end.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    (addr, task)
}

async fn ask(addr: std::net::SocketAddr) -> std::io::Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(b"?").await?;
        stream.read_exact(&mut [0]).await.map(drop)
    };
    timeout(Duration::from_secs(5), exchange).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_connection_that_toggles_fails_no_read() {
    const TIME: Duration = Duration::from_secs(5);
    const BASE: Duration = Duration::from_millis(300);
    let (flapping, _flapping_task) = echo().await;
    let (steady, _steady_task) = echo().await;
    let proxy = FaultProxy::start(flapping).await.unwrap();
    let config = ReplicasConfig::default()
        .ejection_base(BASE)
        .ejection_max(TIME)
        .jitter(0.0)
        .slow_start(Duration::ZERO);
    let db = Replicas::without_primary().replica("flaps", 1, proxy.addr()).replica("ok", 1, steady);
    let db = db.config(config).build().unwrap();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let (start, session) = (Instant::now(), Session::new());
                while start.elapsed() < TIME {
                    db.read_with(&session, |_| true, ask).await.unwrap();
                    sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    let start = Instant::now();
    while start.elapsed() < TIME {
        sleep(TOGGLE).await;
        proxy.cut();
        sleep(TOGGLE).await;
        proxy.heal();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let stats = node(&db, "flaps");
    let transitions = stats.ejections_total + stats.returns_total;
    assert!(stats.ejections_total > 0);
    // Twice what is expected, for a machine that runs nothing for a while.
    assert!(transitions <= 2 * 2 * bound(TIME, BASE), "{transitions}");
    assert_eq!(in_flight(&db), 0);
}
