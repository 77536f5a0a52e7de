//! From answers to roles, lag and exclusions: what a monitor knows, apart from how it asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Gate, Limits, Verdict};
use super::history::{History, Lag};
use super::roles::{Change, Name, Recovery, Roles, Seen, Standing};
use super::sample::{Sample, State};
use super::stats::{Counts, MonitorStats, NodeMonitorStats};
use super::{Event, Lsn, MonitorConfig};
use crate::{Exclusion, Observation, Role};

/// What follows from one answer.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// To be made known in this order: whoever becomes the primary comes last.
    pub(super) observations: Vec<(Name, Observation)>,
    pub(super) events: Vec<Event>,
}

/// A place in a history, and when the server was asked for it.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// 0 if unknown.
    timeline: u32,
    lsn: Lsn,
    asked: Instant,
}

#[derive(Debug, Default)]
struct Node {
    /// The server's run that `timeline` was seen in.
    run: Box<str>,
    /// The last one that was seen: a standby whose primary is gone receives nothing, and stays on
    /// it. It cannot leave it but by receiving another one, from an archive, or while it is down.
    timeline: u32,
    place: Option<Place>,
    gate: Gate,
    /// It was told to lag, and has not been told to have caught up.
    lags: bool,
    /// Whether the last attempt succeeded; `None` before the first.
    answers: Option<bool>,
    /// When it answered last.
    heard: Option<Instant>,
    /// It was told to be silent, and has not answered since.
    silent: bool,
    /// The run in which it was told to be fenced.
    fenced_in: Option<Box<str>>,
    samples: u64,
    missed: u64,
    lag: Option<Duration>,
    lag_bytes: Option<u64>,
}

/// The state of a monitor. Times are arguments.
#[derive(Debug)]
pub(super) struct Engine {
    roles: Roles,
    history: History,
    nodes: BTreeMap<Name, Node>,
    limits: Limits,
    /// How old the newest word of the primary may be for a replica that has all of it to be current.
    current: Duration,
    /// When the first node answered.
    heard_at: Option<Instant>,
    counts: Counts,
}

impl Engine {
    pub(super) fn new(config: &MonitorConfig, declared: Option<Name>) -> Self {
        Self {
            roles: Roles::new(config.system, declared),
            history: History::default(),
            nodes: BTreeMap::new(),
            limits: Limits { time: config.max_lag, bytes: config.max_lag_bytes },
            // Some questions may be late on a busy machine without the primary being silent.
            current: config.primary_interval * 5,
            heard_at: None,
            counts: Counts::default(),
        }
    }

    /// When the first node answered.
    pub(super) fn heard_at(&self) -> Option<Instant> {
        self.heard_at
    }

    /// A node that is new in the set: it takes nothing until it has answered.
    pub(super) fn join(&mut self, node: &Name, now: Instant) -> Step {
        self.roles.join(Arc::clone(node));
        self.nodes.insert(Arc::clone(node), Node::default());
        let mut step = Step::default();
        self.observe(node, now, &mut step);
        step
    }

    /// A node that is no longer in the set.
    pub(super) fn leave(&mut self, node: &str, now: Instant) -> Step {
        self.nodes.remove(node);
        let changes = self.roles.leave(node);
        self.follow(None, &changes, now)
    }

    /// Decides although some nodes have not answered.
    pub(super) fn settle(&mut self, now: Instant) -> Step {
        let changes = self.roles.settle();
        self.follow(None, &changes, now)
    }

    /// A node has answered at `now` what it was asked at `asked`.
    pub(super) fn saw(
        &mut self,
        node: &Name,
        sample: &Sample,
        asked: Instant,
        now: Instant,
    ) -> Step {
        let Some(known) = self.nodes.get_mut(node) else { return Step::default() };
        let before = known.answers.replace(true);
        (known.heard, known.silent) = (Some(now), false);
        let recovery = known.learn(sample, asked);
        self.heard_at.get_or_insert(now);
        let changes = self.roles.saw(node, Seen { system: sample.system, recovery });
        let mut step = self.follow(Some(node), &changes, now);
        if before == Some(false) {
            step.events.push(Event::Reached { node: node.to_string() });
        }
        self.tell_fenced(node, sample, &mut step);
        step
    }

    /// A node could not be asked.
    pub(super) fn missed(&mut self, node: &Name, error: &str, now: Instant) -> Step {
        let is_replica = self.roles.standing(node) == Standing::Replica;
        let Some(known) = self.nodes.get_mut(node) else { return Step::default() };
        known.missed += 1;
        let before = known.answers.replace(false);
        let mut step = Step::default();
        if is_replica {
            (known.lag, known.lag_bytes) = (None, None);
            let age = known.heard.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            // It may well answer others, and show them what it had then.
            if age > self.limits.time && !std::mem::replace(&mut known.silent, true) {
                let silent = Observation::new(Role::Replica).excluded(Exclusion::Silent);
                step.observations.push((Arc::clone(node), silent));
            }
        }
        if before != Some(false) {
            let (node, error) = (node.to_string(), error.to_owned());
            step.events.push(Event::Unreachable { node, error });
        }
        step
    }

    pub(super) fn is_settled(&self) -> bool {
        self.roles.is_settled()
    }

    pub(super) fn is_primary(&self, node: &str) -> bool {
        self.roles.standing(node) == Standing::Primary
    }

    /// Whether writes wait for a primary to be found.
    pub(super) fn is_searching(&self) -> bool {
        let primary = self.roles.primary().and_then(|name| self.nodes.get(name));
        self.is_settled() && primary.is_none_or(|node| node.answers != Some(true))
    }

    pub(super) fn system(&self) -> Option<u64> {
        self.roles.system()
    }

    pub(super) fn stats(&self) -> MonitorStats {
        let nodes = self.nodes.iter().map(|(name, node)| NodeMonitorStats {
            name: name.to_string(),
            standing: self.roles.standing(name).as_str(),
            answers: node.answers == Some(true),
            timeline: node.place.map_or(0, |place| place.timeline),
            position: node.place.map_or(0, |place| place.lsn.position()),
            lag: node.lag,
            lag_bytes: node.lag_bytes,
            samples_total: node.samples,
            missed_total: node.missed,
        });
        MonitorStats {
            system: self.roles.system(),
            timeline: self.roles.highest(),
            primary: self.roles.primary().map(|name| name.to_string()),
            searching: self.is_searching(),
            nodes: nodes.collect(),
            promotions_total: self.counts.promotions,
            fenced_total: self.counts.fenced,
            split_brains_total: self.counts.split_brains,
            foreign_systems_total: self.counts.foreign_systems,
            lag_exclusions_total: self.counts.lag_exclusions,
        }
    }

    /// Draws the conclusions from what `node` said, or from nobody's word, and from what it changed.
    fn follow(&mut self, node: Option<&Name>, changes: &[Change], now: Instant) -> Step {
        let mut step = Step::default();
        let changed = |name: &Name| changes.iter().any(|change| change.node == *name);
        // The primary's word comes first: replicas are measured by it.
        let primary = self.roles.primary().cloned();
        if let Some(primary) = primary.filter(|name| node == Some(name) || changed(name)) {
            let place = self.nodes.get(&primary).and_then(|node| node.place);
            if let Some(Place { timeline, lsn, asked }) = place {
                self.history.record(timeline, lsn, asked);
            }
        }
        if let Some(node) = node.filter(|node| !changed(node)) {
            self.observe(node, now, &mut step);
        }
        for change in changes {
            self.observe(&change.node, now, &mut step);
        }
        for change in changes {
            self.tell(change, &mut step);
        }
        step
    }

    /// What the set must be told of a node.
    fn observe(&mut self, name: &Name, now: Instant, step: &mut Step) {
        let standing = self.roles.standing(name);
        let system = self.system().unwrap_or_default();
        let Some(node) = self.nodes.get_mut(name) else { return };
        let (timeline, lsn) = node.place.map_or((0, Lsn::default()), |p| (p.timeline, p.lsn));
        let of = |role| Observation::new(role).of_system(system).at(timeline, lsn.position());
        (node.lag, node.lag_bytes) = (None, None);
        let observation = match standing {
            Standing::Unheard => of(Role::None).excluded(Exclusion::Unknown),
            Standing::Fenced | Standing::Rival | Standing::Foreign => {
                of(Role::None).excluded(Exclusion::Fenced)
            }
            Standing::Primary => of(Role::Primary).lag(Some(Duration::ZERO), Some(0)),
            Standing::Replica => {
                let verdict = self.measure(name, now, step);
                let node = self.nodes.get(name);
                let lag = node.map_or((None, None), |node| (node.lag, node.lag_bytes));
                let observation = of(Role::Replica)
                    .lag(lag.0, lag.1)
                    .complete_until(self.history.complete_until(timeline, lsn));
                match verdict {
                    Verdict::Fresh => observation,
                    Verdict::Lagging => observation.excluded(Exclusion::Lag),
                    Verdict::Unknown => observation.excluded(Exclusion::Unknown),
                }
            }
        };
        step.observations.push((Arc::clone(name), observation));
    }

    /// How far behind a replica is, and whether that excludes it.
    fn measure(&mut self, name: &Name, now: Instant, step: &mut Step) -> Verdict {
        let Some(node) = self.nodes.get_mut(name) else { return Verdict::Unknown };
        let place = node.place.filter(|place| place.timeline != 0);
        let bytes = place.and_then(|place| self.history.bytes_ahead(place.timeline, place.lsn));
        let lag = |now| match place {
            Some(Place { timeline, lsn, .. }) => self.history.lag(timeline, lsn, now, self.current),
            None => Lag::Unknown,
        };
        // While the primary is silent a replica that had all it was known to have is as good as
        // before, or a dead primary would take its replicas with it.
        let heard = place.and_then(|place| self.history.last_heard(place.timeline));
        let silent = heard.filter(|heard| now.saturating_duration_since(*heard) > self.current);
        let verdict = node.gate.judge(lag(silent.unwrap_or(now)), bytes, self.limits);
        let (time, at_least) = match lag(now) {
            Lag::Unknown => (None, Duration::ZERO),
            Lag::AtLeast(time) => (None, time),
            Lag::Known(time) => (Some(time), time),
        };
        (node.lag, node.lag_bytes) = (time, bytes);
        // While it is unknown, neither has it caught up nor does it lag anew.
        match verdict {
            Verdict::Lagging if !std::mem::replace(&mut node.lags, true) => {
                self.counts.lag_exclusions += 1;
                let (node, bytes) = (name.to_string(), bytes.unwrap_or(0));
                step.events.push(Event::LagExcluded { node, lag: at_least, bytes });
            }
            Verdict::Fresh if std::mem::replace(&mut node.lags, false) => {
                step.events.push(Event::LagAdmitted { node: name.to_string() });
            }
            _ => {}
        }
        verdict
    }

    fn tell(&mut self, change: &Change, step: &mut Step) {
        let node = change.node.to_string();
        let known = self.nodes.get(&change.node);
        let timeline = known.and_then(|node| node.place).map_or(0, |place| place.timeline);
        match change.to {
            Standing::Primary => {
                self.counts.promotions += 1;
                let previous = self.counts.last_primary.replace(node.clone());
                step.events.push(Event::Promoted { node, timeline, previous });
            }
            Standing::Rival => {
                self.counts.split_brains += 1;
                let primary = self.roles.primary().map(|name| name.to_string());
                step.events.push(Event::SplitBrain { node, primary, timeline });
            }
            Standing::Foreign => {
                self.counts.foreign_systems += 1;
                let system = self.roles.system_of(&change.node).unwrap_or(0);
                let expected = self.roles.system().unwrap_or(0);
                step.events.push(Event::ForeignSystem { node, system, expected });
            }
            // Fenced is also who died as the primary, and takes no writes: see `tell_fenced`.
            Standing::Fenced | Standing::Replica | Standing::Unheard => {}
        }
    }

    /// A node that has just said that it takes writes on a timeline that was left is told of, once in
    /// each of its runs.
    fn tell_fenced(&mut self, name: &Name, sample: &Sample, step: &mut Step) {
        let is_fenced = self.roles.standing(name) == Standing::Fenced;
        let Some(node) = self.nodes.get_mut(name).filter(|_| is_fenced) else { return };
        if node.fenced_in.as_ref() != Some(&sample.run) {
            node.fenced_in = Some(sample.run.clone());
            self.counts.fenced += 1;
            let (node, timeline, newest) = (name.to_string(), node.timeline, self.roles.highest());
            step.events.push(Event::Fenced { node, timeline, newest });
        }
    }
}

impl Node {
    /// Takes in what the server said; returns what that means for its role.
    fn learn(&mut self, sample: &Sample, asked: Instant) -> Recovery {
        self.samples += 1;
        if self.run != sample.run {
            self.run = sample.run.clone();
            self.timeline = 0;
        }
        let (recovery, lsn) = match sample.state {
            State::Writable { timeline, written } => {
                self.timeline = timeline;
                (Recovery::Writable { timeline }, Some(written))
            }
            State::Standby { timeline, replayed, received } => {
                // What it replays beyond what it received comes from an archive, of whatever timeline.
                let strayed = timeline.is_none() && replayed > received;
                let stays = if strayed { 0 } else { self.timeline };
                self.timeline = timeline.unwrap_or(stays);
                let timeline = (self.timeline != 0).then_some(self.timeline);
                (Recovery::Standby { timeline }, replayed)
            }
        };
        self.place = lsn.map(|lsn| Place { timeline: self.timeline, lsn, asked });
        recovery
    }
}

#[cfg(test)]
mod tests;
