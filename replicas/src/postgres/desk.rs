//! Where all answers come together, and from where the set is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::engine::{Engine, Step};
use super::monitor::{Hook, tell};
use super::roles::Name;
use super::sample::Sample;
use super::{MonitorConfig, MonitorStats};
use crate::BoxError;
use crate::shared::Shared;

/// How far the monitor has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Settling,
    Settled,
    Ended,
}

/// The engine, and those it reports to.
pub(super) struct Desk {
    books: Mutex<Books>,
    phase: watch::Sender<Phase>,
    hook: Option<Hook>,
}

struct Books {
    engine: Engine,
    /// The identity of the node that has the name now; a name may be given anew.
    seated: BTreeMap<Name, u64>,
}

/// An answer of a server, or why there is none.
pub(super) struct Report {
    pub(super) asked: Instant,
    pub(super) result: Result<Sample, BoxError>,
}

impl Desk {
    pub(super) fn new(config: &MonitorConfig, declared: Option<&str>, hook: Option<Hook>) -> Self {
        let engine = Engine::new(config, declared.map(Name::from));
        Self {
            books: Mutex::new(Books { engine, seated: BTreeMap::new() }),
            phase: watch::Sender::new(Phase::Settling),
            hook,
        }
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn end(&self) {
        self.phase.send_replace(Phase::Ended);
    }

    pub(super) fn system(&self) -> Option<u64> {
        self.books.lock().engine.system()
    }

    pub(super) fn stats(&self) -> MonitorStats {
        self.books.lock().engine.stats()
    }

    /// Takes in who is in the set now: names and identities.
    pub(super) fn seat<N>(&self, set: &Shared<N>, seats: &BTreeMap<Name, u64>) {
        self.act(set, |books| {
            let now = Instant::now();
            let mut steps = Vec::new();
            let gone = |(name, id): &(&Name, &u64)| seats.get(*name) != Some(*id);
            let left: Vec<Name> =
                books.seated.iter().filter(gone).map(|(name, _)| Arc::clone(name)).collect();
            for name in left {
                books.seated.remove(&name);
                steps.push(books.engine.leave(&name, now));
            }
            for (name, id) in seats {
                if books.seated.insert(Arc::clone(name), *id).is_none() {
                    steps.push(books.engine.join(name, now));
                }
            }
            steps
        });
    }

    /// Takes in what a server answered.
    pub(super) fn report<N>(&self, set: &Shared<N>, name: &Name, id: u64, report: &Report) {
        self.act(set, |books| {
            if books.seated.get(name) != Some(&id) {
                return Vec::new();
            }
            let now = Instant::now();
            let step = match &report.result {
                Ok(sample) => books.engine.saw(name, sample, report.asked, now),
                Err(error) => {
                    set.forget_node(id);
                    books.engine.missed(name, &error.to_string(), now)
                }
            };
            vec![step]
        });
    }

    /// The time for the first decision is up.
    pub(super) fn settle<N>(&self, set: &Shared<N>) {
        self.act(set, |books| vec![books.engine.settle(Instant::now())]);
    }

    /// How long the next question to a node that answers has time.
    pub(super) fn interval(&self, node: &str, config: &MonitorConfig) -> Duration {
        let books = self.books.lock();
        if books.engine.is_searching() {
            config.search_interval
        } else if books.engine.is_primary(node) {
            config.primary_interval
        } else {
            config.replica_interval
        }
    }

    fn act<N>(&self, set: &Shared<N>, act: impl FnOnce(&mut Books) -> Vec<Step>) {
        let mut events = Vec::new();
        let search = {
            let mut books = self.books.lock();
            let before = books.engine.is_searching();
            for step in act(&mut books) {
                // Under the lock: of two answers that come at once, the set must not be told the
                // older one last.
                for (name, observation) in step.observations {
                    if let Some(id) = books.seated.get(&name) {
                        set.observe_node(*id, observation);
                    }
                }
                events.extend(step.events);
            }
            if books.engine.is_settled() {
                self.phase.send_if_modified(|phase| {
                    let settles = *phase == Phase::Settling;
                    if settles {
                        *phase = Phase::Settled;
                    }
                    settles
                });
            }
            !before && books.engine.is_searching()
        };
        tell(self.hook.as_ref(), &events);
        if search {
            // Whoever was promoted is asked now, not when its turn comes.
            for seat in &set.topology.load().seats {
                seat.node.kick.notify_one();
            }
        }
    }
}
