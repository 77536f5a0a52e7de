//! Reads while replicas die, return and flap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use escala_replicas::postgres::MonitorConfig;
use escala_replicas::{ReadError, Reason, Replicas, ReplicasConfig, Session};
use testkit::{FaultProxy, PgCluster};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::watched::{builder, impatient, members, urls};
use super::{Database, QueryError};
use crate::{eventually, in_flight, node};

const REPLICAS: [&str; 3] = ["n1", "n2", "n3"];

/// Readers that never pause. A read that found no place is counted, any other failure is kept.
struct Readers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    tasks: JoinSet<Result<(), String>>,
}

impl Readers {
    fn start(db: &Replicas<Database>, count: i32) -> Self {
        let (stop, done, refused) = (
            Arc::<AtomicBool>::default(),
            Arc::<AtomicU64>::default(),
            Arc::<AtomicU64>::default(),
        );
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (db, stop) = (db.clone(), Arc::clone(&stop));
            let (done, refused) = (Arc::clone(&done), Arc::clone(&refused));
            tasks.spawn(async move {
                while !stop.load(Relaxed) {
                    let double = |node: Database| async move { node.double(number).await };
                    let session = Session::new();
                    match db.read_with(&session, QueryError::is_node_failure, double).await {
                        Ok(answer) if answer == 2 * number => drop(done.fetch_add(1, Relaxed)),
                        Err(ReadError::NoNode(error)) if error.is_retryable() => {
                            refused.fetch_add(1, Relaxed);
                            sleep(Duration::from_millis(2)).await;
                        }
                        other => return Err(format!("{number}: {other:?}")),
                    }
                }
                Ok(())
            });
        }
        Self { stop, done, refused, tasks }
    }

    async fn run(&self, count: u64) {
        let goal = self.done.load(Relaxed) + count;
        eventually("the readers go on", || self.done.load(Relaxed) >= goal).await;
    }

    /// Reads that found no place.
    async fn finish(self) -> u64 {
        self.stop.store(true, Relaxed);
        let results = self.tasks.join_all().await;
        let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        assert!(failures.is_empty(), "{failures:?}");
        self.refused.load(Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_s_budget_carries_reads_until_replicas_return_slowly() {
    let cluster = PgCluster::start(3).await.unwrap();
    let members = members(&urls(&cluster)).into_iter();
    // A fifth of ten: two reads at once on the primary, however many come.
    let members = members.map(|member| member.max_in_flight(10));
    let config = impatient().slow_start(Duration::from_secs(8)).max_wait(Duration::from_secs(5));
    let db = Replicas::with_members(members).config(config).build().unwrap();
    let monitor = builder().0.start(&db).unwrap();
    monitor.settled().await;
    let readers = Readers::start(&db, 12);
    readers.run(1_000).await;

    for standby in 0..3 {
        cluster.kill_standby(standby).unwrap();
    }
    let out = || REPLICAS.iter().all(|name| !node(&db, name).healthy);
    eventually("all standbys are ejected", out).await;
    let for_want_of_a_replica = || {
        let picks = node(&db, "n0").picks;
        let ejected = picks.iter().find(|entry| entry.reason == Reason::Ejected);
        ejected.map_or(0, |entry| entry.picks_total)
    };
    let before = for_want_of_a_replica();
    for _ in 0..50 {
        readers.run(10).await;
        assert!(node(&db, "n0").in_flight <= 2, "reads stay within a fifth of ten");
    }
    assert!(for_want_of_a_replica() > before + 400);

    cluster.start_standby(0).await.unwrap();
    cluster.start_standby(1).await.unwrap();
    let healthy = |name: &str| {
        let node = node(&db, name);
        node.healthy && node.excluded.is_none()
    };
    eventually("two are back", || healthy("n1") && healthy("n2")).await;
    readers.run(1_000).await;
    // The third one joins two that are warm by then.
    sleep(Duration::from_secs(8)).await;
    let count = |name: &str| node(&db, name).started_total;
    let start = (count("n1"), count("n3"));
    cluster.start_standby(2).await.unwrap();
    eventually("the third is back", || healthy("n3")).await;
    readers.run(2_000).await;
    let early = (count("n1") - start.0, count("n3") - start.1);
    sleep(Duration::from_secs(8)).await;
    let start = (count("n1"), count("n3"));
    readers.run(2_000).await;
    let late = (count("n1") - start.0, count("n3") - start.1);
    readers.finish().await;
    assert!(early.1 * 2 < early.0, "a cold replica got {} beside {}", early.1, early.0);
    assert!(late.1 * 2 > late.0, "a warm replica got {} beside {}", late.1, late.0);
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_toggles_every_300_ms_causes_few_transitions_and_no_failed_read() {
    let cluster = PgCluster::start(2).await.unwrap();
    let proxy = FaultProxy::start(cluster.standby(0).addr()).await.unwrap();
    let mut urls = urls(&cluster);
    urls[1] = format!("postgres://postgres@{}/postgres", proxy.addr());
    let config = ReplicasConfig::default()
        .ejection_base(Duration::from_secs(2))
        .ejection_max(Duration::from_secs(20))
        .slow_start(Duration::ZERO);
    let db = Replicas::with_members(members(&urls)).config(config).build().unwrap();
    let (builder, events) = builder();
    let monitor = builder.config(MonitorConfig::default()).start(&db).unwrap();
    monitor.settled().await;
    let readers = Readers::start(&db, 8);
    readers.run(500).await;
    for _ in 0..20 {
        proxy.cut();
        sleep(Duration::from_millis(300)).await;
        proxy.heal();
        sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(readers.finish().await, 0, "the other replica and the primary are well");
    let flapping = node(&db, "n1");
    // Twenty cuts in twelve seconds. Out for 2 s, then 4 s, then 6 s: three or four times.
    assert!((1..=6).contains(&flapping.ejections_total), "{flapping:?}");
    assert_eq!(monitor.stats().promotions_total, 1, "{:?}", events.all());
    assert_eq!(monitor.stats().primary.as_deref(), Some("n0"));
    assert_eq!((node(&db, "n2").ejections_total, node(&db, "n0").ejections_total), (0, 0));
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toggling_link_to_the_primary_moves_no_role() {
    let cluster = PgCluster::start(2).await.unwrap();
    let proxy = FaultProxy::start(cluster.primary().addr()).await.unwrap();
    let mut urls = urls(&cluster);
    urls[0] = format!("postgres://postgres@{}/postgres", proxy.addr());
    let db = Replicas::with_members(members(&urls)).config(impatient()).build().unwrap();
    let (builder, events) = builder();
    let monitor = builder.start(&db).unwrap();
    monitor.settled().await;
    for _ in 0..10 {
        // A pick that is held over the fault neither hinders it nor is lost.
        let open = db.write().unwrap();
        proxy.cut();
        sleep(Duration::from_millis(300)).await;
        assert_eq!(db.write().unwrap().name(), "n0");
        proxy.heal();
        sleep(Duration::from_millis(300)).await;
        open.succeeded();
    }
    eventually("the primary answers", || !monitor.stats().searching).await;
    let pick = db.write().unwrap();
    pick.execute("create table t ()").await.unwrap();
    pick.succeeded();
    let stats = monitor.stats();
    assert_eq!((stats.promotions_total, stats.fenced_total), (1, 0), "{:?}", events.all());
    assert_eq!(in_flight(&db), 0);
}
