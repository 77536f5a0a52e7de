//! The monitor itself: whom it refuses, how it fails, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use escala_replicas::postgres::{Event, Monitor, MonitorConfig, connect};
use escala_replicas::{BoxError, Exclusion, Member, Replicas, Role, Session};
use testkit::{FaultProxy, PgCluster};
use tokio::sync::oneshot;
use tokio_postgres::NoTls;

use super::Database;
use super::watched::{builder, dial, hear, impatient, members, urls, watch, watch_with};
use crate::{eventually, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_and_reported() {
    let cluster = PgCluster::start(1).await.unwrap();
    let stranger = PgCluster::builder().own_system().start().await.unwrap();
    let watched = watch(&cluster).await;
    let added = Member::replica("stranger", Database::new(&stranger.primary().url()));
    watched.db.change(|members| members.add(added)).unwrap();
    assert_eq!(node(&watched.db, "stranger").role, Role::None, "nothing is known of it yet");
    watched.standing("stranger", "foreign").await;
    let is_it = |event: &Event| {
        matches!(event, Event::ForeignSystem { node, expected, .. }
            if node == "stranger" && Some(*expected) == watched.monitor.system())
    };
    watched.events.has("the stranger is reported", is_it).await;
    for _ in 0..100 {
        assert_ne!(watched.db.read(&Session::new()).unwrap().name(), "stranger");
        assert_eq!(watched.db.write().unwrap().name(), "n0");
    }
}

#[tokio::test]
async fn nodes_that_come_are_watched_and_nodes_that_go_are_not() {
    let cluster = PgCluster::start(2).await.unwrap();
    let mut members = members(&urls(&cluster));
    let late = members.pop().unwrap();
    let db = Replicas::with_members(members).config(impatient()).build().unwrap();
    let (builder, _) = builder();
    let monitor = builder.start(&db).unwrap();
    monitor.settled().await;

    db.change(|members| members.add(late)).unwrap();
    assert_eq!((node(&db, "n2").role, node(&db, "n2").excluded), UNKNOWN);
    eventually("n2 serves", || node(&db, "n2").excluded.is_none()).await;
    assert_eq!(node(&db, "n2").role, Role::Replica);

    let sessions = "select count(*) from pg_stat_activity where application_name = 'monitor'";
    assert_eq!(cluster.sql(cluster.standby(1), sessions).await.unwrap(), "1");
    db.change(|members| members.remove("n2")).unwrap();
    let ended = async {
        while cluster.sql(cluster.standby(1), sessions).await.unwrap() != "0" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    assert!(monitor.stats().node("n2").is_none());
    // The name may be given to another server.
    let other = Member::replica("n2", Database::new(&cluster.standby(0).url()));
    db.change(|members| members.add(other)).unwrap();
    eventually("the new n2 serves", || node(&db, "n2").excluded.is_none()).await;
}

const UNKNOWN: (Role, Option<Exclusion>) = (Role::None, Some(Exclusion::Unknown));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_told_of_but_not_taken_to_be_sick() {
    let cluster = PgCluster::start(1).await.unwrap();
    cluster.sql(cluster.primary(), "create role guest login in role pg_monitor").await.unwrap();
    let (builder, events) = hear(Monitor::builder(|_, node: &Database| {
        let url: Arc<str> = node.url.replace("//postgres@", "//guest@").into();
        async move {
            // As from somebody who says where the error happened.
            dial(url).await.map_err(|error| Box::new(Wrapped(error)).into())
        }
    }));
    let db = Replicas::with_members(members(&urls(&cluster))).config(impatient()).build().unwrap();
    let config = MonitorConfig::default().max_lag(Duration::from_secs(2));
    let monitor = builder.config(config).start(&db).unwrap();
    eventually("n1 serves", || node(&db, "n1").excluded.is_none()).await;

    cluster.sql(cluster.primary(), "alter role guest connection limit 0").await.unwrap();
    let limit = "select rolconnlimit from pg_roles where rolname = 'guest'";
    while cluster.sql(cluster.standby(0), limit).await.unwrap() != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let end =
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'guest'";
    cluster.sql(cluster.standby(0), end).await.unwrap();
    let missed = || monitor.stats().node("n1").unwrap().missed_total;
    eventually("it is refused again and again", || missed() >= 8).await;
    let n1 = node(&db, "n1");
    assert!(n1.healthy, "{n1:?}");
    // The end of the connection may have met a question.
    assert!(n1.probes_failed_total <= 1, "{n1:?}");
    let is_it = |event: &Event| matches!(event, Event::Unreachable { node, .. } if node == "n1");
    assert!(events.first(is_it).is_some());
    // It may lag by any time now, and nobody would know.
    let excluded = || node(&db, "n1").excluded;
    eventually("n1 is out", || excluded() == Some(Exclusion::Silent)).await;
    assert_eq!(monitor.stats().node("n1").unwrap().lag, None);
    assert_eq!(db.read(&Session::new()).unwrap().name(), "n0");
    cluster.sql(cluster.primary(), "alter role guest connection limit -1").await.unwrap();
    eventually("n1 is back", || excluded().is_none()).await;
}

/// Its server may have crashed, and show less than it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_connection_ends_is_asked_at_once() {
    let cluster = PgCluster::start(1).await.unwrap();
    let config = MonitorConfig::default().replica_interval(Duration::from_secs(3_600));
    let watched = watch_with(&cluster, config).await;
    let seen = || watched.freshness("n1").observed_at;
    eventually("n1 was looked at", || seen().is_some()).await;
    // Nobody else asks for a look.
    let before = seen();
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where application_name = 'monitor'";
    assert_eq!(cluster.sql(cluster.standby(0), end).await.unwrap(), "1");
    eventually("n1 was looked at again", || seen().is_some() && seen() != before).await;
    assert_eq!(watched.monitor.stats().node("n1").unwrap().missed_total, 0);
}

#[derive(Debug, thiserror::Error)]
#[error("the monitor's own connection")]
struct Wrapped(#[source] BoxError);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_the_right_is_told_which() {
    let cluster = PgCluster::start(1).await.unwrap();
    cluster.sql(cluster.primary(), "create role plain login").await.unwrap();
    let db = Replicas::with_members(members(&urls(&cluster))).build().unwrap();
    let (builder, events) = hear(Monitor::builder(|_, node: &Database| {
        let config = node.url.replace("//postgres@", "//plain@").parse();
        async move { connect(&config?, NoTls).await }
    }));
    let _monitor = builder.start(&db).unwrap();
    let is_it = |event: &Event| matches!(event, Event::Unreachable { node, error } if node == "n1" && error.contains("pg_monitor"));
    events.has("the missing right is named", is_it).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_out_and_returns() {
    let cluster = PgCluster::start(2).await.unwrap();
    let watched = watch(&cluster).await;
    cluster.freeze_node(cluster.standby(0)).unwrap();
    eventually("n1 is ejected", || !node(&watched.db, "n1").healthy).await;
    let misses = watched.monitor.stats().node("n1").unwrap().missed_total;
    assert!(misses >= 3, "{misses}");
    for _ in 0..100 {
        assert_eq!(watched.db.read(&Session::new()).unwrap().name(), "n2");
    }
    cluster.thaw_node(cluster.standby(0)).unwrap();
    eventually("n1 is back", || node(&watched.db, "n1").healthy).await;
    let of = |is_it: fn(&Event) -> bool| watched.events.all().iter().filter(|e| is_it(e)).count();
    assert_eq!(of(|event| matches!(event, Event::Unreachable { .. })), 1, "told once");
    assert_eq!(of(|event| matches!(event, Event::Reached { .. })), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_handshake_does_not_stop_the_monitor() {
    let cluster = PgCluster::start(1).await.unwrap();
    let proxy = FaultProxy::start(cluster.standby(0).addr()).await.unwrap();
    proxy.blackhole(true);
    let mut urls = urls(&cluster);
    urls[1] = format!("postgres://postgres@{}/postgres", proxy.addr());
    let db = Replicas::with_members(members(&urls)).config(impatient()).build().unwrap();
    let (builder, events) = builder();
    let quick = MonitorConfig::default().connect_timeout(Duration::from_millis(200));
    let monitor = builder.config(quick).start(&db).unwrap();
    monitor.settled().await;
    assert_eq!(db.write().unwrap().name(), "n0");
    let is_it = |event: &Event| matches!(event, Event::Unreachable { node, error } if node == "n1" && error.contains("200ms"));
    events.has("the hung handshake is told", is_it).await;
    proxy.blackhole(false);
    eventually("n1 serves", || {
        let n1 = node(&db, "n1");
        n1.role == Role::Replica && n1.excluded.is_none() && n1.healthy
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panics_of_the_caller_s_functions_are_failures_and_no_more() {
    let cluster = PgCluster::start(1).await.unwrap();
    let db = Replicas::with_members(members(&urls(&cluster))).config(impatient()).build().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let monitor = Monitor::builder(move |_, node: &Database| {
        let call = counted.fetch_add(1, Relaxed);
        assert!(call >= 2, "before the future");
        let url = Arc::clone(&node.url);
        async move {
            assert!(call >= 4, "in the future");
            dial(url).await
        }
    });
    let monitor = monitor.on_event(|_| panic!("in the hook")).start(&db).unwrap();
    eventually("both serve in the end", || {
        let stats = monitor.stats();
        stats.primary.as_deref() == Some("n0") && stats.node("n1").unwrap().answers
    })
    .await;
    assert!(calls.load(Relaxed) >= 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_the_set_or_by_the_signal_and_a_set_has_one() {
    let cluster = PgCluster::start(0).await.unwrap();
    let build = || Replicas::with_members(members(&urls(&cluster))).build().unwrap();
    let db = build();
    let monitor = builder().0.start(&db).unwrap();
    monitor.settled().await;
    let second = builder().0.start(&db).unwrap_err();
    assert_eq!((second.field.as_str(), second.rule), ("monitor", "be the only one of its set"));
    drop(db);
    monitor.ended().await;

    let db = build();
    let (signal, shutdown) = oneshot::channel::<()>();
    let shutdown = async { drop(shutdown.await) };
    let monitor = builder().0.shutdown(shutdown).start(&db).unwrap();
    monitor.settled().await;
    signal.send(()).unwrap();
    monitor.ended().await;
    assert_eq!(db.write().unwrap().name(), "n0", "what it said last holds on");
    // Then another one may begin.
    let monitor = builder().0.start(&db).unwrap();
    monitor.settled().await;
    assert_eq!(db.write().unwrap().name(), "n0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kick_brings_a_sample_at_once() {
    let cluster = PgCluster::start(1).await.unwrap();
    let db = Replicas::with_members(members(&urls(&cluster))).build().unwrap();
    let hour = Duration::from_secs(60 * 60);
    let slow = MonitorConfig::default().replica_interval(hour).primary_interval(hour);
    let monitor = builder().0.config(slow).start(&db).unwrap();
    monitor.settled().await;
    let samples = || monitor.stats().node("n1").unwrap().samples_total;
    eventually("the first sample", || samples() == 1).await;
    for sample in 2..20 {
        db.kicks("n1").unwrap().notify_one();
        eventually("one more", || samples() == sample).await;
    }
}

#[test]
fn figures_out_of_bounds_are_refused() {
    let refused = |config: MonitorConfig| config.validate().unwrap_err().to_string();
    let config = MonitorConfig::default;
    assert_eq!(config().validate(), Ok(()));
    let rule = "but must be from 1 ms to 1 hour";
    assert_eq!(
        refused(config().primary_interval(Duration::ZERO)),
        format!("primary_interval is \"0ns\", {rule}")
    );
    assert_eq!(
        refused(config().sample_timeout(Duration::from_secs(3_601))),
        format!("sample_timeout is \"3601s\", {rule}")
    );
    assert_eq!(
        refused(config().max_lag_bytes(0)),
        "max_lag_bytes is \"0\", but must be at least 1"
    );
}
