//! A set whose nodes are watched by a monitor, and a load of writes on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use escala_replicas::postgres::{Event, Monitor, MonitorBuilder, MonitorConfig, connect};
use escala_replicas::{BoxError, Freshness, Member, Outcome, Replicas, ReplicasConfig};
use parking_lot::Mutex;
use testkit::PgCluster;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

use super::{Database, QueryError};
use crate::eventually;

/// A set, its monitor, and what that told.
pub(super) struct Watched {
    pub(super) db: Replicas<Database>,
    pub(super) monitor: Monitor,
    pub(super) events: Events,
}

/// The events so far, and when each was told.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<Mutex<Vec<(Instant, Event)>>>);

impl Events {
    pub(super) fn all(&self) -> Vec<Event> {
        self.0.lock().iter().map(|(_, event)| event.clone()).collect()
    }

    /// When the first event of this kind was told.
    pub(super) fn first(&self, is_it: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.0.lock().iter().find(|(_, event)| is_it(event)).map(|(at, _)| *at)
    }

    pub(super) async fn has(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Instant {
        eventually(what, || self.first(&is_it).is_some()).await;
        self.first(is_it).unwrap()
    }

    pub(super) async fn promoted(&self, name: &str) -> Instant {
        let is_it = |event: &Event| matches!(event, Event::Promoted { node, .. } if node == name);
        self.has(&format!("{name} is promoted"), is_it).await
    }

    pub(super) async fn fenced(&self, name: &str) -> Instant {
        let is_it = |event: &Event| matches!(event, Event::Fenced { node, .. } if node == name);
        self.has(&format!("{name} is fenced"), is_it).await
    }
}

pub(super) async fn dial(url: Arc<str>) -> Result<Client, BoxError> {
    let mut config: Config = url.parse()?;
    config.application_name("monitor");
    connect(&config, NoTls).await
}

pub(super) fn builder() -> (MonitorBuilder<Database>, Events) {
    hear(Monitor::builder(|_, node: &Database| dial(Arc::clone(&node.url))))
}

pub(super) fn hear(builder: MonitorBuilder<Database>) -> (MonitorBuilder<Database>, Events) {
    let events = Events::default();
    let heard = events.clone();
    let hook = move |event: &Event| heard.0.lock().push((Instant::now(), event.clone()));
    (builder.on_event(hook), events)
}

/// Health as in the other tests of real servers; no slow start, which has its own test.
pub(super) fn impatient() -> ReplicasConfig {
    ReplicasConfig::default()
        .ejection_base(Duration::from_millis(200))
        .ejection_max(Duration::from_millis(400))
        .slow_start(Duration::ZERO)
}

/// Members `n0`, `n1`, .. as the servers are called; `n0` is declared the primary.
pub(super) fn members(urls: &[String]) -> Vec<Member<Database>> {
    let member = |(i, url): (usize, &String)| match i {
        0 => Member::primary("n0", Database::new(url)),
        _ => Member::replica(format!("n{i}"), Database::new(url)),
    };
    urls.iter().enumerate().map(member).collect()
}

pub(super) fn urls(cluster: &PgCluster) -> Vec<String> {
    std::iter::once(cluster.primary()).chain(cluster.standbys()).map(|node| node.url()).collect()
}

pub(super) async fn watch(cluster: &PgCluster) -> Watched {
    watch_with(cluster, MonitorConfig::default()).await
}

pub(super) async fn watch_with(cluster: &PgCluster, config: MonitorConfig) -> Watched {
    let db = Replicas::with_members(members(&urls(cluster))).config(impatient()).build().unwrap();
    let (builder, events) = builder();
    let monitor = builder.config(config).start(&db).unwrap();
    monitor.settled().await;
    assert_eq!(monitor.stats().primary.as_deref(), Some("n0"));
    Watched { db, monitor, events }
}

impl Watched {
    pub(super) fn freshness(&self, name: &str) -> Freshness {
        self.db.freshness(name).unwrap()
    }

    /// Waits until a node has this standing, and is excluded or not.
    pub(super) async fn standing(&self, name: &str, standing: &str) {
        let is = || self.monitor.stats().node(name).is_some_and(|node| node.standing == standing);
        eventually(&format!("{name} is {standing}"), is).await;
    }
}

/// One write that was tried.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Where the set sent it.
    pub(super) node: String,
    /// The moment before it was asked where to.
    pub(super) picked: Instant,
    pub(super) ended: Instant,
    pub(super) succeeded: bool,
}

/// Writers that never pause, each write with a key of its own.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    log: Arc<Mutex<BTreeMap<i64, Written>>>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// The table is created first, by the set's primary.
    pub(super) async fn start(db: &Replicas<Database>, count: usize) -> Self {
        let pick = db.write().unwrap();
        pick.execute("create table written (id bigint primary key)").await.unwrap();
        pick.succeeded();
        let (stop, next) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (log, mut tasks) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), JoinSet::new());
        for _ in 0..count {
            let (db, stop, next) = (db.clone(), Arc::clone(&stop), Arc::clone(&next));
            let log = Arc::clone(&log);
            tasks.spawn(async move {
                while !stop.load(Relaxed) {
                    // Before the pick: the monitor may learn of another primary right after it.
                    let picked = Instant::now();
                    let Ok(pick) = db.write() else {
                        sleep(Duration::from_millis(2)).await;
                        continue;
                    };
                    let node = pick.name().to_owned();
                    let id = i64::try_from(next.fetch_add(1, Relaxed)).unwrap();
                    let result = pick.execute(&format!("insert into written values ({id})")).await;
                    let succeeded = result.is_ok();
                    let log_entry = Written { node, picked, ended: Instant::now(), succeeded };
                    log.lock().insert(id, log_entry);
                    pick.end(match result {
                        Ok(()) => Outcome::Success,
                        Err(error) if error.is_read_only() => Outcome::NotPrimary,
                        Err(error) if error.is_node_failure() => Outcome::Failure,
                        Err(error) => panic!("{error:?}"),
                    });
                    if !succeeded {
                        // A refused connection costs no time; a real client would pause as well.
                        sleep(Duration::from_millis(2)).await;
                    }
                }
            });
        }
        Self { stop, next, log, tasks }
    }

    pub(super) fn log(&self) -> BTreeMap<i64, Written> {
        self.log.lock().clone()
    }

    /// Lets `count` more writes succeed on a node.
    pub(super) async fn run(&self, node: &str, count: usize) {
        let done = || {
            let log = self.log.lock();
            log.values().filter(|write| write.succeeded && write.node == node).count()
        };
        let goal = done() + count;
        eventually(&format!("{count} writes on {node}"), || done() >= goal).await;
    }

    pub(super) async fn finish(self) -> BTreeMap<i64, Written> {
        self.stop.store(true, Relaxed);
        let started = self.next.load(Relaxed);
        self.tasks.join_all().await;
        let log = std::mem::take(&mut *self.log.lock());
        assert!(log.len() as u64 >= started, "every write that started has ended");
        log
    }
}

impl Database {
    pub(super) async fn execute(&self, statement: &str) -> Result<(), QueryError> {
        let query = async { Ok(self.client().await?.batch_execute(statement).await?) };
        timeout(Duration::from_secs(2), query).await?
    }
}

impl QueryError {
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code().is_some_and(|c| c.code() == "25006"))
    }
}
