//! The server's parts, put together: database nodes, caches, lanes, breakers, observability.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use escala_cluster::BreakerStats;
use escala_observability::{Credentials, Observability, ObservabilityConfig};
use escala_pool::PoolLayer;
use escala_queue::{Lane, MemoryEngine, Overflow, Queue};
use escala_replicas::postgres::Monitor;
use escala_replicas::{Replicas, Session, SessionHandle, SessionLayer, Token, WriteError};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::access::Access;
use super::breakers::{Breakers, guarded};
use super::caches::{Caches, REPORTS};
use super::database::{self, Database, PATIENCE, Seeding};
use super::domain::{Done, NewOrder, NewTransfer, PlacedOrder, Transfer};
use super::jobs;
use super::lane_runtime::LaneRuntime;
use super::limits::Limits;
use super::pool_times::PoolTimes;
use super::problem::Problem;
use super::rates::Rates;
use super::redis::Redis;
use super::routes::administration::{self, PrimaryPool};
use super::sessions;
use super::settings::Settings;
use super::store::{Keyed, Node, StoreError};

/// How long a job's key keeps a sweep from enqueueing it once more: two sweeps. Longer, and a dead
/// letter could not be revived by the next sweep.
const KEY_LIFETIME: Duration = Duration::from_secs(60);
/// How long an enqueue waits for room in a full lane: the pool's acquire timeout.
const ENQUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// When what an order of unknown fate may have changed is removed once more: the server may have been
/// about to commit it when the connection broke.
const AFTERMATH: Duration = Duration::from_secs(10);

/// Cheap to clone; every clone is the same server.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

/// See [`App`].
#[derive(Debug)]
pub struct Parts {
    /// Routes to primary and replicas.
    pub db: Replicas<Node>,
    /// The same nodes by name; the first one was the primary when the settings were written.
    pub nodes: Vec<(&'static str, Node)>,
    /// The nodes that are or may become the primary, as the lanes use them.
    jobs_nodes: Vec<(&'static str, Node)>,
    /// Tells the router who is the primary and how far the replicas have come; `None` where there is
    /// nothing to tell.
    pub(super) monitor: Option<Monitor>,
    /// What a cache fill must see: everything that was removed from the caches because it changed.
    pub(super) fill: Mutex<Session>,
    /// When something was last removed that was changed by somebody else, at a place unknown.
    pub(super) changed_elsewhere: Mutex<Option<Instant>>,
    /// Whose requests these are, as far as it matters for what they must see.
    pub(super) sessions: SessionLayer,
    /// Reads that no cache answered, whatever the node.
    pub database_reads: AtomicU64,
    /// Values and whole answers.
    pub caches: Caches,
    /// Who asks.
    pub(super) access: Access,
    /// How much an address and a tenant may ask for.
    pub limits: Limits,
    /// The second cache layer, if there is one.
    pub redis: Option<Redis>,
    /// The priority lanes.
    pub queue: Queue,
    /// Where their workers run.
    pub lanes: LaneRuntime,
    /// Around everything that can fail while this process is up, and around each area.
    pub breakers: Breakers,
    /// Exchange rates, if there is a service for them.
    pub(super) rates: Option<Rates>,
    /// How long callers waited for connections, and held and made them.
    pub(super) times: PoolTimes,
    /// Gives the requests that need one the right to a connection of whoever is the primary then.
    pub(super) leases: Option<PoolLayer<PrimaryPool>>,
    /// Metrics, health, alerts, dashboard.
    pub obs: Observability,
    /// As started.
    pub settings: Settings,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Connects to everything, creates schema and seed data, and enqueues what a stop left over.
    ///
    /// # Errors
    /// What could not be reached or set, with its cause.
    pub async fn open(settings: Settings) -> anyhow::Result<Self> {
        let app = Self::connect(settings, Seeding::Allowed).await?;
        match jobs::sweep(&app).await {
            // The next sweep will find one.
            Err(error) if error.may_pass() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no primary to sweep");
            }
            swept => _ = swept.context("unfinished jobs")?,
        }
        Ok(app)
    }

    /// Connects to everything and leaves a server's data as it is; an embedded file is created.
    ///
    /// # Errors
    /// As [`App::open`]; also a server without schema and seed data.
    pub(super) async fn inspect(settings: Settings) -> anyhow::Result<Self> {
        Self::connect(settings, Seeding::Forbidden).await
    }

    async fn connect(settings: Settings, seeding: Seeding) -> anyhow::Result<Self> {
        settings.validate()?;
        let lanes = LaneRuntime::start()?;
        let times = PoolTimes::default();
        let Database { db, nodes, jobs_nodes, monitor } =
            database::open(&settings, seeding, &lanes, &times).await?;
        let leases = administration::leases(&db, &nodes)?;
        // A standby may lag behind the removal that made a fill necessary, and the stale value would
        // stay for the entry's whole lifetime. Alone, this process knows how far a standby must have
        // come; of removals that arrive by Redis it does not, and fills on the primary. The embedded
        // file's readers see a commit at once.
        let fill = match (&settings.database_url, &settings.redis_url) {
            (Some(_), Some(_)) => Session::pinned_to_primary(),
            _ => Session::new(),
        };
        let breakers = Breakers::new()?;
        let rates = settings.exchange_rates().map(|url| Rates::new(&url, &breakers.rates));
        let redis = match &settings.redis_url {
            Some(url) => Some(Redis::connect(url, &breakers.redis).await.context("REDIS_URL")?),
            None => None,
        };
        let limits = Limits::new(&settings)?;
        limits.can_be_asked().await.context("REDIS_URL")?;
        let app = Self(Arc::new(Parts {
            db,
            nodes,
            jobs_nodes,
            monitor,
            fill: Mutex::new(fill),
            changed_elsewhere: Mutex::default(),
            sessions: sessions::layer(&settings)?,
            database_reads: AtomicU64::new(0),
            caches: Caches::new(redis.as_ref(), &settings.tenants)?,
            access: Access::new(&settings)?,
            limits,
            redis,
            queue: queue(&settings)?,
            lanes,
            breakers,
            rates,
            times,
            leases,
            obs: observability(&settings)?,
            settings,
        }));
        app.watch();
        Ok(app)
    }

    /// The node that is written to now.
    pub(super) fn primary(&self) -> Result<&Node, StoreError> {
        self.primary_of(&self.nodes)
    }

    /// Registers every part with the dashboard, the metrics and the health document.
    fn watch(&self) {
        super::run::watch(self);
    }

    /// Places an order, then removes what it changed from the caches, then enqueues its settlement.
    ///
    /// Runs in a task of its own: a client that hangs up after the commit does not leave a stale
    /// quote or an order without settlement.
    ///
    /// # Errors
    /// As [`Node::place_order`].
    pub async fn place_order(
        &self,
        session: &SessionHandle,
        order: Keyed<NewOrder>,
    ) -> Result<Done<PlacedOrder>, Problem> {
        let (app, session) = (self.clone(), session.clone());
        let symbol = order.request.symbol.clone();
        to_its_end(async move {
            let place = |node: Node| {
                let order = order.clone();
                async move { node.place_order(order).await }
            };
            let placed = app.write(&session, place).await;
            if placed.as_ref().is_err_and(StoreError::is_unknown) {
                app.forget_order(&symbol).await;
            }
            let Done { value, replayed, token } = placed?;
            // Before the removal: whoever fills the gap must see what made it.
            if let Some(token) = token {
                app.fill.lock().wrote(token);
            }
            // For a repeated key too: the first answer may have been lost with its connection after
            // the commit, and then nobody has done this yet.
            app.caches.ordered(&value.placed, value.affiliates).await;
            if !value.placed.order.settled {
                jobs::enqueue(&app, jobs::settle(value.placed.order.id)).await;
            }
            Ok(Done { value: value.placed, replayed, token })
        })
        .await
    }

    /// Moves money, then enqueues the booking of both ledger entries.
    ///
    /// # Errors
    /// As [`Node::transfer`].
    pub async fn transfer(
        &self,
        session: &SessionHandle,
        transfer: Keyed<NewTransfer>,
    ) -> Result<Done<Transfer>, Problem> {
        let (app, session) = (self.clone(), session.clone());
        to_its_end(async move {
            let transfer = |node: Node| {
                let transfer = transfer.clone();
                async move { node.transfer(transfer).await }
            };
            let done = app.write(&session, transfer).await?;
            jobs::enqueue(&app, jobs::book(done.value.id)).await;
            Ok(done)
        })
        .await
    }

    /// Writes on the primary, and has the session see it from now on. A write that was not sent, or
    /// met a node that is no primary any more, goes to the next one for a while.
    async fn write<T, F>(
        &self,
        session: &SessionHandle,
        write: impl FnMut(Node) -> F + Send,
    ) -> Result<Done<T>, StoreError>
    where
        F: Future<Output = Result<Done<T>, StoreError>> + Send,
    {
        let written = guarded(&self.breakers.writes, async {
            let written = session.write_with(&self.db, PATIENCE, StoreError::fault, write).await;
            written.map_err(|error| match error {
                WriteError::NoNode(error) => StoreError::no_node(error),
                WriteError::Operation(error) => error,
                _ => StoreError::NoNode,
            })
        })
        .await;
        match &written {
            Ok(done) => done.token.into_iter().for_each(|token| session.wrote(token)),
            // Whoever asks what became of it must be told.
            Err(error) if error.is_unknown() => {
                session.wrote(Token::unplaced(SystemTime::now()));
            }
            Err(_) => {}
        }
        written
    }

    /// Takes out of the caches what an order changed that may have been placed or not: its quote, and
    /// every report, since only the answer tells whose.
    async fn forget_order(&self, symbol: &str) {
        let tags = [format!("quote:{symbol}"), REPORTS.to_owned()];
        for tag in &tags {
            self.remove_tag(tag).await;
        }
        let app = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(AFTERMATH).await;
            for tag in &tags {
                app.remove_tag(tag).await;
            }
        });
    }

    /// Takes what somebody else changed out of every cache; whether all of them are clear now. Where in
    /// the log that was is not known, so fills read the primary for a while.
    pub(super) async fn remove_tag(&self, tag: &str) -> bool {
        *self.changed_elsewhere.lock() = Some(Instant::now());
        self.caches.remove_tag(tag).await
    }

    /// The primary as the lanes use it.
    pub(super) fn jobs_db(&self) -> Result<&Node, StoreError> {
        self.primary_of(&self.jobs_nodes)
    }

    fn primary_of<'a>(&self, nodes: &'a [(&'static str, Node)]) -> Result<&'a Node, StoreError> {
        let primary = self.db.primary().ok_or(StoreError::NoNode)?;
        let node = nodes.iter().find(|(name, _)| *name == primary);
        node.map(|(_, node)| node).ok_or(StoreError::NoNode)
    }

    /// The figures of each breaker that is in use.
    pub(super) fn breaker_stats(&self) -> Vec<BreakerStats> {
        self.breakers.stats(self.redis.is_some(), self.rates.is_some())
    }

    /// Closes every connection.
    pub(super) async fn close(&self) {
        for (_, node) in self.nodes.iter().chain(&self.jobs_nodes) {
            node.close().await;
        }
    }
}

async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(Problem::internal()))
}

fn queue(settings: &Settings) -> anyhow::Result<Queue> {
    let queue = Queue::builder(MemoryEngine::default().key_lifetime(KEY_LIFETIME))
        .documented_lanes()
        .workers(Lane::High, settings.queue_high_workers.into())
        .workers(Lane::Medium, settings.queue_medium_workers.into())
        .workers(Lane::Low, settings.queue_low_workers.into())
        .workers(Lane::Background, settings.queue_background_workers.into())
        .overflow(Overflow::Wait(ENQUEUE_PATIENCE))
        .build()?;
    Ok(queue)
}

fn observability(settings: &Settings) -> anyhow::Result<Observability> {
    let mut config = ObservabilityConfig::default();
    config.metrics_interval = Duration::from_millis(settings.monitoring.metrics_interval);
    config.alert_cooldown = Duration::from_millis(settings.monitoring.alert_cooldown);
    config.thresholds = settings.monitoring.thresholds();
    config.metrics_endpoint = settings.use_prometheus;
    let credentials = match (&settings.metrics_user, &settings.metrics_password) {
        (Some(user), Some(password)) => Some(Credentials::new(user, password.reveal())),
        _ => None,
    };
    let obs = Observability::builder("enterprise")
        .version(env!("CARGO_PKG_VERSION"))
        .environment(&settings.environment)
        .config(config)
        .credentials(credentials)
        .build()?;
    Ok(obs)
}
