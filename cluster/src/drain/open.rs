//! What is open besides requests (jobs, upgraded connections), and by name what a drain has cut.

use std::borrow::Cow;
use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::watch as channel;
use tokio::time::Instant;

use super::report::{CUT_LISTED, Cut, CutKind};

/// Registered things come and go far less often than requests: a lock is good enough.
#[derive(Debug, Default)]
pub(super) struct Open {
    entries: Mutex<Entries>,
    /// Jobs that have not ended.
    jobs: channel::Sender<usize>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    live: BTreeMap<u64, Entry>,
    /// `Some` once the drain cuts; the first ones, up to the bound.
    cut: Option<Vec<Cut>>,
    /// All of them.
    cut_total: u64,
    figures: OpenStats,
}

#[derive(Debug)]
struct Entry {
    kind: CutKind,
    name: Cow<'static, str>,
    since: Instant,
}

impl Entry {
    fn cut(&self) -> Cut {
        Cut { kind: self.kind, name: self.name.as_ref().to_owned(), age: self.since.elapsed() }
    }
}

/// `jobs_started` = those running + `jobs_ended` + `jobs_cut`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OpenStats {
    pub(super) upgraded: u64,
    pub(super) jobs_running: u64,
    pub(super) jobs_started: u64,
    pub(super) jobs_ended: u64,
    pub(super) jobs_cut: u64,
}

impl Open {
    /// The number under which [`leave`](Self::leave) takes it out again.
    pub(super) fn enter(&self, kind: CutKind, name: Cow<'static, str>) -> u64 {
        let mut entries = self.entries.lock();
        let number = entries.next;
        entries.next += 1;
        entries.live.insert(number, Entry { kind, name, since: Instant::now() });
        if kind == CutKind::Job {
            entries.figures.jobs_started += 1;
            entries.figures.jobs_running += 1;
            self.jobs.send_modify(|jobs| *jobs += 1);
        } else {
            entries.figures.upgraded += 1;
        }
        number
    }

    pub(super) fn leave(&self, number: u64) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.live.remove(&number) else { return };
        if entry.kind == CutKind::Job {
            entries.figures.jobs_running -= 1;
            if entries.cut.is_some() {
                entries.figures.jobs_cut += 1;
            } else {
                entries.figures.jobs_ended += 1;
            }
            self.jobs.send_modify(|jobs| *jobs -= 1);
        } else {
            entries.figures.upgraded -= 1;
        }
        entries.list(|| entry.cut());
    }

    /// From now on what ends was cut.
    pub(super) fn cut(&self) {
        self.entries.lock().cut.get_or_insert_default();
    }

    /// A request that its server has cut. Does nothing unless a drain is what cuts it.
    pub(super) fn cut_request(&self, request: impl FnOnce() -> Cut) {
        self.entries.lock().list(request);
    }

    /// What was cut and what should have ended by now, the oldest first and up to the bound; and how
    /// much that is without the bound.
    pub(super) fn listed(&self) -> (Vec<Cut>, u64) {
        let entries = self.entries.lock();
        let mut listed = entries.cut.clone().unwrap_or_default();
        listed.extend(entries.live.values().map(Entry::cut).take(CUT_LISTED - listed.len()));
        listed.sort_by_key(|cut| std::cmp::Reverse(cut.age));
        (listed, entries.cut_total + entries.live.len() as u64)
    }

    pub(super) fn stats(&self) -> OpenStats {
        self.entries.lock().figures
    }

    /// Ends when no job is left.
    pub(super) async fn jobs_ended(&self) {
        // The sender is here: there is no error.
        drop(self.jobs.subscribe().wait_for(|jobs| *jobs == 0).await);
    }
}

impl Entries {
    /// If the drain cuts.
    fn list(&mut self, cut: impl FnOnce() -> Cut) {
        let Some(list) = &mut self.cut else { return };
        self.cut_total += 1;
        if list.len() < CUT_LISTED {
            list.push(cut());
        }
    }
}
