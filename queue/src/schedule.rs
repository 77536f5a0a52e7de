//! Which worker takes a job of which lane: pure, without clock, tasks or jobs.
//!
//! Each worker has a home lane, which it serves before any other: that is the lane's floor. With
//! nothing to do at home it borrows from the most urgent lane that has work, except that the last
//! free worker of the high lane stays free. Nothing is preempted, so a lane whose workers are lent
//! waits for one borrowed attempt at most.
//!
//! A worker is *called* for one job at a time, and one job calls one worker, so that ten sleeping
//! workers do not all wake for one job. A call is a hint, not a claim: the called worker first
//! makes its service ready, then chooses again among what is there by then. Whoever changes the
//! state therefore asks [`next`](Scheduler::next) afterwards until it has no more to say.

use crate::lane::{Lane, PerLane};

/// Names a worker from [`Scheduler::join`] to [`Scheduler::leave`]; then it is used again.
pub(crate) type WorkerId = usize;

#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    workers: Vec<Option<Worker>>,
    /// Free workers by home, the one that was busy last on top: its memory is still warm.
    parked: PerLane<Vec<WorkerId>>,
    /// Jobs of a lane for which a called worker is on its way.
    covered: PerLane<usize>,
    present: PerLane<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Worker {
    home: Lane,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Parked,
    /// On its way to a job of this lane.
    Called(Lane),
    /// Called, but its service is not ready: it covers nothing, so that others are called too.
    Unready,
    Busy,
}

impl Scheduler {
    /// Adds a free worker.
    pub(crate) fn join(&mut self, home: Lane) -> WorkerId {
        let worker = Some(Worker { home, state: State::Parked });
        let id = match self.workers.iter().position(Option::is_none) {
            Some(id) => {
                self.workers[id] = worker;
                id
            }
            None => {
                self.workers.push(worker);
                self.workers.len() - 1
            }
        };
        self.parked[home].push(id);
        self.present[home] += 1;
        id
    }

    /// Removes a worker, whatever it was doing.
    pub(crate) fn leave(&mut self, id: WorkerId) {
        self.uncover(id);
        if let Some(worker) = self.workers[id].take() {
            self.parked[worker.home].retain(|parked| *parked != id);
            self.present[worker.home] -= 1;
        }
    }

    /// The worker to call now, if a ready job is not covered and a worker may take it.
    ///
    /// Homes come first, so that the last free worker of a lane is not lent while its own lane
    /// has work.
    pub(crate) fn next(&mut self, ready: &PerLane<usize>) -> Option<WorkerId> {
        let (home, lane) = self.own_work(ready).or_else(|| self.loan(ready))?;
        let id = self.parked[home].pop()?;
        self.enter(id, State::Called(lane));
        Some(id)
    }

    /// The lane from which a called worker takes a job, which makes it busy; `None` parks it.
    pub(crate) fn select(&mut self, id: WorkerId, ready: &PerLane<usize>) -> Option<Lane> {
        self.uncover(id);
        let lane = self.choice(self.home(id), ready);
        self.enter(id, if lane.is_some() { State::Busy } else { State::Parked });
        lane
    }

    /// The worker's attempt is over: it is called again if it may take something, else parked.
    ///
    /// Covered jobs count as free to take here: the worker that is awake is faster than the one
    /// that is being woken, which then finds nothing and parks.
    pub(crate) fn rest(&mut self, id: WorkerId, ready: &PerLane<usize>) {
        match self.choice(self.home(id), ready) {
            Some(lane) => self.enter(id, State::Called(lane)),
            None => self.enter(id, State::Parked),
        }
    }

    /// The service of a called worker is not ready yet.
    pub(crate) fn unready(&mut self, id: WorkerId) {
        self.uncover(id);
        self.enter(id, State::Unready);
    }

    /// Whether the worker should make its service ready and select.
    pub(crate) fn is_called(&self, id: WorkerId) -> bool {
        self.workers[id]
            .is_some_and(|worker| matches!(worker.state, State::Called(_) | State::Unready))
    }

    /// How many workers of this home there are, busy or not.
    pub(crate) fn present(&self, home: Lane) -> usize {
        self.present[home]
    }

    fn own_work(&self, ready: &PerLane<usize>) -> Option<(Lane, Lane)> {
        let lane = Lane::ALL
            .into_iter()
            .find(|lane| self.uncovered(*lane, ready) > 0 && !self.parked[*lane].is_empty())?;
        Some((lane, lane))
    }

    /// Lends from the least urgent lane first, so that urgent lanes keep their workers longest.
    fn loan(&self, ready: &PerLane<usize>) -> Option<(Lane, Lane)> {
        let lane = Lane::ALL.into_iter().find(|lane| self.uncovered(*lane, ready) > 0)?;
        let lender =
            Lane::ALL.into_iter().rev().find(|home| self.parked[*home].len() > kept_free(*home))?;
        Some((lender, lane))
    }

    /// What a worker of this home, itself not parked, may take.
    fn choice(&self, home: Lane, ready: &PerLane<usize>) -> Option<Lane> {
        if ready[home] > 0 {
            return Some(home);
        }
        if self.parked[home].len() < kept_free(home) {
            return None;
        }
        Lane::ALL.into_iter().find(|lane| ready[*lane] > 0)
    }

    fn uncovered(&self, lane: Lane, ready: &PerLane<usize>) -> usize {
        ready[lane].saturating_sub(self.covered[lane])
    }

    fn uncover(&mut self, id: WorkerId) {
        if let Some(Worker { state: State::Called(lane), .. }) = self.workers[id] {
            self.covered[lane] -= 1;
        }
    }

    fn enter(&mut self, id: WorkerId, state: State) {
        let Some(worker) = &mut self.workers[id] else { return };
        worker.state = state;
        match state {
            State::Parked => self.parked[worker.home].push(id),
            State::Called(lane) => self.covered[lane] += 1,
            State::Unready | State::Busy => {}
        }
    }

    fn home(&self, id: WorkerId) -> Lane {
        self.workers[id].expect("only a worker that joined and has not left asks").home
    }
}

/// How many free workers a lane does not lend.
const fn kept_free(home: Lane) -> usize {
    match home {
        Lane::High => 1,
        Lane::Medium | Lane::Low | Lane::Background => 0,
    }
}

#[cfg(test)]
mod tests;
