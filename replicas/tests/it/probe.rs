//! The background probe under a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use escala_replicas::{Reason, Replicas, ReplicasConfig, Session};
use tokio::time::{advance, sleep};

use crate::{in_flight, node, released, steady};

/// A server that can be switched off, can hang, and counts its probes.
#[derive(Default)]
struct Server {
    down: AtomicBool,
    hangs: AtomicBool,
    panics: AtomicBool,
    probes: AtomicU64,
}

impl Server {
    async fn ping(&self) -> Result<(), &'static str> {
        self.probes.fetch_add(1, SeqCst);
        assert!(!self.panics.load(SeqCst), "told to panic");
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.down.load(SeqCst) { Err("down") } else { Ok(()) }
    }
}

fn probed(config: ReplicasConfig) -> (Replicas<Arc<Server>>, Arc<Server>, Arc<Server>) {
    let (primary, replica) = (Arc::<Server>::default(), Arc::<Server>::default());
    let db = Replicas::builder(Arc::clone(&primary))
        .replica("replica-1", 1, Arc::clone(&replica))
        .config(config)
        .probe(|server: Arc<Server>| async move { server.ping().await.map_err(Into::into) })
        .build()
        .unwrap();
    (db, primary, replica)
}

#[tokio::test(start_paused = true)]
async fn every_node_is_probed_at_the_interval() {
    let (db, primary, replica) = probed(ReplicasConfig::default());
    sleep(Duration::from_secs(1_800)).await;
    // Between 1,800 / 18 and 1,800 / 15, and the first comes at once or up to an interval later.
    for server in [&primary, &replica] {
        let probes = server.probes.load(SeqCst);
        assert!((99..=121).contains(&probes), "{probes}");
    }
    let stats = node(&db, "replica-1");
    assert_eq!(stats.probes_total, replica.probes.load(SeqCst));
    assert_eq!((stats.probes_failed_total, stats.started_total), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fails_its_probes_is_ejected_and_returns_after_one_that_succeeds() {
    let (db, _, replica) = probed(steady());
    replica.down.store(true, SeqCst);
    sleep(Duration::from_secs(46)).await;
    let ejected = node(&db, "replica-1");
    assert!(!ejected.healthy);
    assert_eq!((ejected.ejections_total, ejected.probes_failed_total), (1, 3));
    assert_eq!(db.read(&Session::new()).unwrap().reason(), Reason::Ejected);

    // Down for an hour: still ejected once, and back within one interval of being up.
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(node(&db, "replica-1").ejections_total, 1);
    replica.down.store(false, SeqCst);
    sleep(Duration::from_secs(15)).await;
    let back = node(&db, "replica-1");
    assert!(back.healthy);
    assert_eq!(back.returns_total, 1);
    assert_eq!(db.read(&Session::new()).unwrap().name(), "replica-1");
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_ejected_by_requests_is_probed_at_once_and_the_moment_its_time_is_up() {
    let config = steady().health_interval(Duration::from_secs(3_600));
    let (db, _, replica) = probed(config);
    for _ in 0..3 {
        db.read(&Session::new()).unwrap().failed();
    }
    assert!(!node(&db, "replica-1").healthy);
    let before = replica.probes.load(SeqCst);
    sleep(Duration::from_millis(29_990)).await;
    assert_eq!(replica.probes.load(SeqCst), before + 1);
    assert!(!node(&db, "replica-1").healthy, "it answers probes, but failed its requests");
    assert_eq!(db.read(&Session::new()).unwrap().reason(), Reason::Ejected, "no trial");
    sleep(Duration::from_millis(20)).await;
    assert_eq!(replica.probes.load(SeqCst), before + 2);
    assert!(node(&db, "replica-1").healthy);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_or_panics_has_failed_and_the_next_one_comes() {
    let faults: [fn(&Server) -> &AtomicBool; 2] = [|server| &server.hangs, |server| &server.panics];
    for fault in faults {
        let (db, _, replica) = probed(steady());
        fault(&replica).store(true, SeqCst);
        sleep(Duration::from_secs(60)).await;
        assert!(!node(&db, "replica-1").healthy);
        fault(&replica).store(false, SeqCst);
        sleep(Duration::from_secs(60)).await;
        assert!(node(&db, "replica-1").healthy);
        assert!(node(&db, "primary").healthy, "each is probed for itself");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_before_it_is_a_future_has_failed() {
    let db = Replicas::without_primary()
        .replica("a", 1, 'a')
        .config(steady())
        .probe(|node: char| {
            assert_ne!(node, 'a');
            std::future::ready(Ok(()))
        })
        .build()
        .unwrap();
    sleep(Duration::from_secs(61)).await;
    assert!(node(&db, "a").probes_failed_total >= 3);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_set_ends_its_probes_even_one_that_hangs() {
    let (db, primary, replica) = probed(steady().probe_timeout(Duration::from_secs(86_400)));
    replica.hangs.store(true, SeqCst);
    advance(Duration::from_secs(15)).await;
    crate::eventually("the replica's probe hangs", || replica.probes.load(SeqCst) == 1).await;
    let pick = db.write().unwrap();
    drop(db);
    assert!(Arc::strong_count(&primary) > 1, "a pick keeps the set");
    drop(pick);
    released(&primary).await;
    released(&replica).await;
}
