//! Who is the primary, from what the servers say of themselves: a pure state machine.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A node's name.
pub(super) type Name = Arc<str>;

/// What one server said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The identifier that `initdb` gave and that all copies of the data share.
    pub(super) system: u64,
    pub(super) recovery: Recovery,
}

/// Whether a server takes writes, and which history it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// It replays somebody's log; the timeline is that of what it receives, if it is known.
    Standby { timeline: Option<u32> },
    /// It writes a log of its own.
    Writable { timeline: u32 },
}

/// What a node is to the set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not answered yet, or nothing has been decided yet.
    #[default]
    Unheard,
    /// The one that takes writes.
    Primary,
    /// A standby.
    Replica,
    /// It takes writes on a timeline that has been left behind: an old primary that came back.
    Fenced,
    /// It takes writes on the newest timeline, as another one does too: a split brain.
    Rival,
    /// Its data has another origin.
    Foreign,
}

/// A node whose standing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) node: Name,
    pub(super) from: Standing,
    pub(super) to: Standing,
}

#[derive(Debug, Default)]
struct Member {
    seen: Option<Seen>,
    standing: Standing,
}

/// Everything that is known about who is who.
///
/// A server that takes writes is not necessarily the primary. The timeline decides: every
/// promotion begins a higher one, so the highest ever seen, be it only on a standby that receives
/// it, is the primary's, and whoever takes writes on a lower one is an old primary. On equal
/// timelines nothing decides; then the one that is known stays.
#[derive(Debug, Default)]
pub(super) struct Roles {
    system: Option<u64>,
    highest: u32,
    primary: Option<Name>,
    /// The node that the set was built with as its primary; only its system counts.
    declared: Option<Name>,
    members: BTreeMap<Name, Member>,
    settled: bool,
}

impl Roles {
    /// A set whose members will be told by [`Self::join`]. With `system` given, no other is
    /// accepted; else it is the declared primary's, or that of most nodes.
    pub(super) fn new(system: Option<u64>, declared: Option<Name>) -> Self {
        Self { system, declared, ..Self::default() }
    }

    pub(super) fn system(&self) -> Option<u64> {
        self.system
    }

    pub(super) fn highest(&self) -> u32 {
        self.highest
    }

    pub(super) fn primary(&self) -> Option<&Name> {
        self.primary.as_ref()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    pub(super) fn standing(&self, node: &str) -> Standing {
        self.members.get(node).map(|member| member.standing).unwrap_or_default()
    }

    /// The system that a node said it is of.
    pub(super) fn system_of(&self, node: &str) -> Option<u64> {
        Some(self.members.get(node)?.seen?.system)
    }

    pub(super) fn join(&mut self, node: Name) {
        self.members.entry(node).or_default();
    }

    /// Forgets a node. Its timeline is not forgotten: a lower one stays fenced.
    pub(super) fn leave(&mut self, node: &str) -> Vec<Change> {
        self.members.remove(node);
        self.decide()
    }

    /// Takes note of an answer. A node that does not answer stays what it was: nobody else becomes
    /// the primary because one cannot be reached from here.
    ///
    /// The first decision waits for everybody, or for [`Self::settle`]: an old primary that answers
    /// first would get writes until the new one has answered.
    pub(super) fn saw(&mut self, node: &str, seen: Seen) -> Vec<Change> {
        let Some(member) = self.members.get_mut(node) else { return Vec::new() };
        member.seen = Some(seen);
        self.settled = self.settled || self.members.values().all(|member| member.seen.is_some());
        self.decide()
    }

    /// Decides with what is known: the nodes that have not answered had their time.
    pub(super) fn settle(&mut self) -> Vec<Change> {
        self.settled = true;
        self.decide()
    }

    fn decide(&mut self) -> Vec<Change> {
        if !self.settled {
            return Vec::new();
        }
        self.system = self.system.or_else(|| self.likeliest_system());
        let own = self.members.values().filter_map(|member| self.own(member));
        let newest = own.filter_map(Recovery::timeline).max().unwrap_or(0);
        self.highest = self.highest.max(newest);
        self.choose_primary();

        let mut changes = Vec::new();
        let standings: Vec<Standing> =
            self.members.iter().map(|(name, member)| self.judge(name, member)).collect();
        for ((name, member), to) in self.members.iter_mut().zip(standings) {
            let from = std::mem::replace(&mut member.standing, to);
            if from != to {
                changes.push(Change { node: Arc::clone(name), from, to });
            }
        }
        // Whoever takes over comes last, when nobody else is the primary any more.
        changes.sort_by_key(|change| change.to == Standing::Primary);
        changes
    }

    fn choose_primary(&mut self) {
        let stays = self.primary.as_deref().is_some_and(|name| {
            self.members.get(name).is_some_and(|member| self.may_be_primary(member))
        });
        if stays {
            return;
        }
        let mut able = self.members.iter().filter(|(_, member)| self.may_be_primary(member));
        let first = able.next().map(|(name, _)| Arc::clone(name));
        // Two on the newest timeline: each may have promised something to somebody.
        self.primary = if able.next().is_none() { first } else { None };
    }

    fn may_be_primary(&self, member: &Member) -> bool {
        self.own(member) == Some(Recovery::Writable { timeline: self.highest })
    }

    fn judge(&self, name: &Name, member: &Member) -> Standing {
        let Some(seen) = member.seen else { return Standing::Unheard };
        if self.system != Some(seen.system) {
            return Standing::Foreign;
        }
        match seen.recovery {
            Recovery::Standby { .. } => Standing::Replica,
            Recovery::Writable { timeline } if timeline < self.highest => Standing::Fenced,
            Recovery::Writable { .. } if self.primary.as_ref() == Some(name) => Standing::Primary,
            Recovery::Writable { .. } => Standing::Rival,
        }
    }

    /// What a node of the right origin said.
    fn own(&self, member: &Member) -> Option<Recovery> {
        let seen = member.seen.filter(|seen| self.system == Some(seen.system))?;
        Some(seen.recovery)
    }

    fn likeliest_system(&self) -> Option<u64> {
        let declared = self.declared.as_deref().and_then(|name| self.members.get(name));
        if let Some(seen) = declared.and_then(|member| member.seen) {
            return Some(seen.system);
        }
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        for seen in self.members.values().filter_map(|member| member.seen) {
            *votes.entry(seen.system).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(system, _)| system)
    }
}

impl Standing {
    /// The name used in statistics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unheard => "unheard",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Fenced => "fenced",
            Self::Rival => "rival",
            Self::Foreign => "foreign",
        }
    }
}

impl Recovery {
    pub(super) fn timeline(self) -> Option<u32> {
        match self {
            Self::Standby { timeline } => timeline,
            Self::Writable { timeline } => Some(timeline),
        }
    }
}

#[cfg(test)]
mod tests;
