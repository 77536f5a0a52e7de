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

/// Servers are asked in quick succession for so long after the primary was lost. Later nobody waits
/// for a write any more, and a set may well have none at all.
const LONGEST_SEARCH: Duration = Duration::from_secs(60);

/// How far the monitor has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Since when there is no primary that answers.
    searching_since: Option<Instant>,
}

/// An error with its causes, of which tokio-postgres tells only the first. Servers write some of them,
/// so the length is bounded.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    const LONGEST: usize = 400;
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
    }
    text
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
            books: Mutex::new(Books { engine, seated: BTreeMap::new(), searching_since: None }),
            phase: watch::Sender::new(Phase::Settling),
            hook,
        }
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn end(&self) {
        self.enter(Phase::Ended);
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
                    books.engine.missed(name, &in_full(error.as_ref()), now)
                }
            };
            vec![step]
        });
    }

    /// Makes the first decision, if its time has come; else returns when it will have.
    ///
    /// The time runs from the first answer: servers that start together with us may all be down yet.
    pub(super) fn settle<N>(&self, set: &Shared<N>, patience: Duration) -> Option<Instant> {
        let now = Instant::now();
        let heard = self.books.lock().engine.heard_at();
        match heard.map(|heard| heard + patience) {
            Some(due) if due <= now => {
                self.act(set, |books| vec![books.engine.settle(now)]);
                None
            }
            Some(due) => Some(due),
            None => {
                // Whoever waits is told that there is nothing to wait for.
                self.enter(Phase::Settled);
                Some(now + patience)
            }
        }
    }

    /// Goes on to a later phase.
    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|at| std::mem::replace(at, (*at).max(phase)) < phase);
    }

    /// How long the next question to a node that answers has time.
    pub(super) fn interval(&self, node: &str, config: &MonitorConfig) -> Duration {
        let books = self.books.lock();
        if books.searching_since.is_some_and(|since| since.elapsed() < LONGEST_SEARCH) {
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
                self.enter(Phase::Settled);
            }
            let before = books.searching_since;
            let searching = books.engine.is_searching();
            books.searching_since = searching.then(|| before.unwrap_or_else(Instant::now));
            searching && before.is_none()
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
