//! How a request waits for a node when none will take it at once.

use tokio::time::Instant;

use super::{Need, Shared};
use crate::gate::{Attempt, Kind};
use crate::{Pick, RouteError};

impl<N> Shared<N> {
    /// As [`pick`](Self::pick), but overtakes nobody, and has a later primary looked for.
    pub(crate) fn try_pick(&self, need: Need<'_>) -> Result<Option<Pick<N>>, RouteError> {
        if self.gate.has_queue(need.kind()) {
            return Err(RouteError::Saturated);
        }
        let pick = self.pick(need);
        if pick.as_ref().is_err_and(|error| self.wants_another_primary(need, *error)) {
            self.kick_all();
        }
        pick
    }

    /// Whether the primary that is known will not do, by this error, and a later one would.
    fn wants_another_primary(&self, need: Need<'_>, error: RouteError) -> bool {
        if error != RouteError::PrimaryUnknown || !need.session().has_needs() {
            return false;
        }
        let topology = self.topology.load();
        let primary = topology.primary.map(|at| topology.seats[at].node.freshness.load());
        primary.is_some_and(|seen| need.session().outdates(&seen, Instant::now()))
    }

    /// Whether a request that met with `error` queues.
    pub(crate) fn waits_for(&self, error: RouteError) -> bool {
        error.is_retryable() && !self.policy.config.max_wait.is_zero()
    }

    /// As [`pick`](Self::pick), but waits for a node as long as it may, first for one that has what the
    /// session must see, then for a place; not beyond `until`, if there is an end.
    pub(crate) async fn wait(
        &self,
        need: Need<'_>,
        until: Option<Instant>,
    ) -> Result<Option<Pick<N>>, RouteError> {
        if let Need::Read(session, tried) = need {
            self.catch_up(session, tried).await;
        }
        let config = &self.policy.config;
        let mut last = match self.try_pick(need) {
            Err(error) if self.waits_for(error) => error,
            decided => return decided,
        };
        let deadline = Instant::now() + config.max_wait;
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        loop {
            // One that waits for another primary is in the way of none whom the known one can serve, and
            // comes back to those when it is known.
            let only_primary = need.kind() == Kind::Primary;
            let later = only_primary && self.wants_another_primary(need, last);
            let kind = if later { Kind::LaterPrimary } else { need.kind() };
            let leaves = |error| only_primary && self.wants_another_primary(need, error) != later;
            let attempt = || {
                // Before the pick: what comes due meanwhile is tried at once.
                let now = Instant::now();
                match self.pick(need) {
                    Err(error) if error.is_retryable() && !leaves(error) => {
                        last = error;
                        Attempt::Failed { again: self.next_trial(need, now) }
                    }
                    decided => Attempt::Done(decided),
                }
            };
            match self.gate.wait(kind, config.max_waiters, deadline, attempt).await {
                // It waits elsewhere; in case it has just found out, the monitors are asked.
                Some(Err(error)) if error.is_retryable() => {
                    last = error;
                    if !later {
                        self.kick_all();
                    }
                }
                Some(decided) => return decided,
                None => return Err(last),
            }
        }
    }

    /// When a read may next try an ejected node, after `now`: nobody tells when that time has come.
    fn next_trial(&self, need: Need<'_>, now: Instant) -> Option<Instant> {
        let topology = self.topology.load();
        if !topology.trials || matches!(need, Need::Write(_)) {
            return None;
        }
        let ejected = topology.fit.intersection(topology.ejected);
        let trials = ejected.iter().filter_map(|at| topology.seats[at].node.next_trial());
        trials.filter(|trial| *trial > now).min()
    }
}
