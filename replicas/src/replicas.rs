//! The handle of a set: picks for reads and writes, reads with failover, statistics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::Notify;

use crate::future::Waiting;
use crate::shared::{Need, Shared};
use crate::{
    ConfigError, Fault, Freshness, Member, Members, NodeStats, Observation, Observed, Pick,
    ReadError, ReplicaService, ReplicasBuilder, ReplicasStats, Route, RouteError, Routed,
    Selection, Session,
};

/// The name of a primary that was given none.
const PRIMARY: &str = "primary";

/// A set of nodes, with or without a primary, over which requests are spread by weight and health.
///
/// Clones share everything. The set has no need to be closed: a node is probed until it is removed,
/// or the last clone and the node's last [`Pick`] are dropped.
pub struct Replicas<N> {
    shared: Arc<Shared<N>>,
}

impl<N> Replicas<N> {
    /// A set with a primary, which is named `primary` and takes all writes.
    pub fn builder(primary: N) -> ReplicasBuilder<N> {
        ReplicasBuilder::new().member(Member::primary(PRIMARY, primary))
    }

    /// A set of equals: a plain load balancer. Writes and pinned reads have no node in it.
    pub fn without_primary() -> ReplicasBuilder<N> {
        ReplicasBuilder::new()
    }

    /// A set of any members. Reads that the primary serves for want of a replica have a budget only if
    /// it was given a [`max_in_flight`](Member::max_in_flight), so this is the way to build a set of
    /// databases; so is it for a set whose roles are yet to be [observed](Self::observe).
    pub fn with_members(members: impl IntoIterator<Item = Member<N>>) -> ReplicasBuilder<N> {
        members.into_iter().fold(ReplicasBuilder::new(), ReplicasBuilder::member)
    }

    pub(crate) fn from_shared(shared: Arc<Shared<N>>) -> Self {
        Self { shared }
    }

    /// A node for a read of this session: a replica in service by the set's strategy, else the
    /// primary within its budget, else a node that is ejected or lags. Never waits, and
    /// takes no lock but for the right to try an ejected node and for the next step of a slow start.
    ///
    /// # Errors
    /// [`RouteError::NoPrimary`] only if the session is pinned, [`RouteError::PrimaryUnknown`] also if
    /// it wrote to a later primary than the known one; the others if there is no fit node with
    /// a free place.
    #[inline]
    pub fn read(&self, session: &Session) -> Result<Pick<N>, RouteError> {
        match self.shared.pick_plain(session) {
            Some(pick) => Ok(pick),
            None => self.read_with_care(session),
        }
    }

    #[inline(never)]
    fn read_with_care(&self, session: &Session) -> Result<Pick<N>, RouteError> {
        let pick = self.shared.pick(Need::Read(session, &[]));
        pick.and_then(found).map_err(|error| self.shared.refuse(error))
    }

    /// The primary, whatever its health: nobody else may take a write. Takes no lock and never waits.
    ///
    /// # Errors
    /// There is no primary, or it is not known which node is, or it has its `max_in_flight`.
    pub fn write(&self) -> Result<Pick<N>, RouteError> {
        let pick = self.shared.pick(Need::Write(&Session::new()));
        pick.and_then(found).map_err(|error| self.shared.refuse(error))
    }

    /// As [`read`](Self::read), but waits up to [`max_wait`](crate::ReplicasConfig::max_wait) for
    /// a fit node and a place on it, in the order of arrival. A [`read`](Self::read) that comes when
    /// a place is free may overtake those who wait; and reads with a token or a bound, and second
    /// tries, may overtake each other, since what one cannot use another one can.
    ///
    /// Dropping the future gives up the place in the queue; kept and not polled, it keeps those behind
    /// it waiting.
    ///
    /// # Errors
    /// As [`read`](Self::read), when the time is up or if too many wait already.
    pub async fn wait_read(&self, session: &Session) -> Result<Pick<N>, RouteError> {
        let pick = self.shared.wait(Need::Read(session, &[]), None).await;
        pick.and_then(found).map_err(|error| self.shared.refuse(error))
    }

    /// As [`write`](Self::write), but waits up to [`max_wait`](crate::ReplicasConfig::max_wait) for
    /// the primary to be known and to have a place, in the order of arrival.
    ///
    /// Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// As [`write`](Self::write), when the time is up or if too many wait already.
    pub async fn wait_write(&self) -> Result<Pick<N>, RouteError> {
        self.wait_write_of(&Session::new()).await
    }

    async fn wait_write_of(&self, session: &Session) -> Result<Pick<N>, RouteError> {
        let pick = self.shared.wait(Need::Write(session), None).await;
        pick.and_then(found).map_err(|error| self.shared.refuse(error))
    }

    /// Adds nodes, removes them, changes their weights: all that `change` does takes effect at once
    /// when it succeeds, or nothing does. Changes are made one after the other, so `change` must not
    /// change the same set again, and it should not block. It may leave the set with any nodes but
    /// none.
    ///
    /// ```
    /// # use escala_replicas::{ConfigError, Member, Replicas};
    /// # fn main() -> Result<(), ConfigError> {
    /// let db = Replicas::builder("db-0").replica("r1", 1, "db-1").build()?;
    /// db.change(|members| {
    ///     members.add(Member::replica("r2", "db-2").weight(2).max_in_flight(50))?;
    ///     members.set_weight("r1", 3)?;
    ///     Ok::<_, ConfigError>(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `change` returns, else the rule that the changed set breaks.
    pub fn change<T, E: From<ConfigError>>(
        &self,
        change: impl FnOnce(&mut Members<'_, N>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        N: Send + Sync + 'static,
    {
        self.shared.change(change)
    }

    /// Changes how reads are spread, from the next one on: to a [`Strategy`](crate::Strategy), or to a
    /// [`Balancer`](crate::Balancer) in an `Arc`.
    pub fn set_strategy(&self, strategy: impl Into<Selection>) {
        self.shared.set_selection(strategy.into());
    }

    /// The name of the node that takes writes at present, if it is known.
    #[must_use]
    pub fn primary(&self) -> Option<String> {
        let topology = self.shared.topology.load();
        topology.primary.map(|at| topology.seats[at].node.name.clone())
    }

    /// Takes note of what a monitor saw of a node. Cheap: a new snapshot is made only if what the node
    /// is, or whether it is excluded, has changed.
    ///
    /// There is never more than one primary. Of two, the one with the higher timeline is it, and the
    /// other is given [`Role::None`](crate::Role::None) until it is observed as something else. So is
    /// a primary that says that it is not one ([`Outcome::NotPrimary`](crate::Outcome::NotPrimary)),
    /// once anything was observed of the set: whoever observes must go on with it.
    #[must_use = "a second primary is a split brain, which somebody must hear of"]
    pub fn observe(&self, name: &str, observation: Observation) -> Observed {
        self.shared.observe(name, observation)
    }

    /// What was last [observed](Self::observe) of a node; `None` if there is no such node.
    #[must_use]
    pub fn freshness(&self, name: &str) -> Option<Freshness> {
        Some(**self.shared.node(name)?.freshness.load())
    }

    /// Told when somebody needs to know at once what a node is or how far it has come: it was not the
    /// primary when it should have been, a write failed on it, or a read waits for it to catch up.
    /// For the node's monitor, which should then [observe](Self::observe) it. `None` if there is no
    /// such node.
    #[must_use]
    pub fn kicks(&self, name: &str) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.shared.node(name)?.kick))
    }

    /// Runs an idempotent read, on another node when one fails it.
    ///
    /// `classify` says of an error whose [`Fault`] it is; `true` stands for the node's, `false` for
    /// the operation's. A node that failed, and one that is well but gave this read up
    /// ([`Fault::Conflict`]) or is too busy for it ([`Fault::Busy`]), hands it to another: to the other
    /// eligible replicas, then to the primary, then to ejected nodes; to each at most once, and with
    /// no pause but for
    /// [`max_wait`](crate::ReplicasConfig::max_wait) when all of these are full and
    /// [`token_wait`](crate::ReplicasConfig::token_wait) for one that the session may read on. A read
    /// of a pinned session is tried on the primary only. The operation's own error is returned at
    /// once.
    ///
    /// There is no time limit here: give each attempt its own inside `operation`, whose running out
    /// is then a node failure. Dropping the future counts the attempt under way as cancelled.
    ///
    /// # Errors
    /// [`ReadError::Operation`] with the operation's last error, [`ReadError::NoNode`] if there was
    /// no node to begin with.
    pub async fn read_with<T, E, C, R, O, F>(
        &self,
        session: &Session,
        classify: C,
        operation: O,
    ) -> Result<T, ReadError<E>>
    where
        N: Clone,
        C: Fn(&E) -> R,
        R: Into<Fault>,
        O: FnMut(N) -> F,
        F: Future<Output = Result<T, E>>,
    {
        self.read_seen(session, classify, operation, |_| {}).await
    }

    /// As [`read_with`](Self::read_with); `seen` is told of each pick.
    pub(crate) async fn read_seen<T, E, C, R, O, F>(
        &self,
        session: &Session,
        classify: C,
        mut operation: O,
        mut seen: impl FnMut(&Pick<N>),
    ) -> Result<T, ReadError<E>>
    where
        N: Clone,
        C: Fn(&E) -> R,
        R: Into<Fault>,
        O: FnMut(N) -> F,
        F: Future<Output = Result<T, E>>,
    {
        let mut tried = Vec::new();
        let mut pick = self.wait_read(session).await.map_err(ReadError::NoNode)?;
        loop {
            seen(&pick);
            let error = match operation(N::clone(&pick)).await {
                Ok(value) => {
                    pick.succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            };
            let fault = classify(&error).into();
            tried.push(pick.id());
            pick.end(fault.outcome());
            if fault == Fault::Operation {
                return Err(ReadError::Operation(error));
            }
            let next = self.shared.wait(Need::Read(session, &tried), None).await;
            let Ok(Some(next)) = next else { return Err(ReadError::Operation(error)) };
            pick = next;
        }
    }

    /// The set as a tower service, for nodes that are services themselves.
    #[must_use]
    pub fn service(&self) -> ReplicaService<N> {
        ReplicaService::new(self.clone())
    }

    /// Counters and states at this moment. Read one by one without stopping anything, so that
    /// figures may be apart by the requests that start or end meanwhile.
    #[must_use]
    pub fn stats(&self) -> ReplicasStats {
        let topology = self.shared.topology.load();
        ReplicasStats {
            strategy: topology.selection.name(),
            nodes: topology.seats.iter().map(NodeStats::of).collect(),
            panic: topology.panic,
            waiting: self.shared.gate.waiting() as u64,
            draining: self.shared.draining(),
            refused_total: self.shared.refused.load(Relaxed),
            token_waits_total: self.shared.waits.begun.load(Relaxed),
            token_waits_missed_total: self.shared.waits.in_vain.load(Relaxed),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<N>> {
        &self.shared
    }

    /// A node for a read that has failed on those with the ids `tried`; `None` when it has failed on
    /// all that there are. Does not wait, as [`read`](Self::read), and counts no refusal: whoever is
    /// refused may [wait](Self::wait_read).
    #[cfg(feature = "http")]
    pub(crate) fn read_untried(&self, tried: &[u64]) -> Result<Option<Pick<N>>, RouteError> {
        self.shared.try_pick(Need::Read(&Session::new(), tried))
    }

    /// What a request of the tower service starts with.
    #[inline]
    pub(crate) fn begin(&self, request: &impl Routed) -> Begun<N>
    where
        N: Send + Sync + 'static,
    {
        let shared = &self.shared;
        let anybody = Session::new();
        let session = request.session().unwrap_or(&anybody);
        let route = request.route();
        let need = match route {
            Route::Read => Need::Read(session, &[]),
            Route::Write => Need::Write(session),
        };
        if route == Route::Read && shared.is_worth_waiting(session) {
            return Begun::Waiting(self.waiting(route, session));
        }
        if route == Route::Read
            && !shared.gate.has_queue(need.kind())
            && let Some(pick) = shared.pick_plain(session)
        {
            return Begun::Picked(pick);
        }
        match shared.try_pick(need) {
            Ok(pick) => pick.map_or(Begun::Refused(RouteError::NoFitNode), Begun::Picked),
            Err(error) if shared.waits_for(error) => Begun::Waiting(self.waiting(route, session)),
            Err(error) => Begun::Refused(shared.refuse(error)),
        }
    }

    #[inline(never)]
    fn waiting(&self, route: Route, session: &Session) -> Waiting<N>
    where
        N: Send + Sync + 'static,
    {
        let (this, session) = (self.clone(), session.clone());
        Box::pin(async move {
            match route {
                Route::Read => this.wait_read(&session).await,
                Route::Write => this.wait_write_of(&session).await,
            }
        })
    }
}

/// A request of the tower service that has a node, has none, or waits for one.
pub(crate) enum Begun<N> {
    Picked(Pick<N>),
    Refused(RouteError),
    Waiting(Waiting<N>),
}

/// A first try has failed on no node, so that there being none left cannot be.
fn found<N>(pick: Option<Pick<N>>) -> Result<Pick<N>, RouteError> {
    pick.ok_or(RouteError::NoFitNode)
}

impl<N> Clone for Replicas<N> {
    // By hand: a derived one would ask for `N: Clone`, which sharing does not need.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<N> fmt::Debug for Replicas<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names, not nodes: those may hold a password.
        let topology = self.shared.topology.load();
        let names = topology.seats.iter().map(|seat| seat.node.name.as_str());
        f.debug_struct("Replicas")
            .field("nodes", &names.collect::<Vec<_>>())
            .field("strategy", &topology.selection)
            .finish_non_exhaustive()
    }
}
