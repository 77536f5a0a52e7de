//! The nodes of a set as its user names them, and how they are changed while it runs.

use std::fmt;
use std::sync::Arc;

use crate::node::Maker;
use crate::select::MAX_NODES;
use crate::topology::Seat;
use crate::{ConfigError, Role};

/// Far above any useful ratio; it bounds the table of turns.
const MAX_WEIGHT: u32 = 1_000;
/// Names become metric labels, and zones are compared on every pick.
const MAX_NAME: usize = 64;

/// A node with its name and its place in a set.
#[must_use = "a member does nothing until it is added to a set"]
pub struct Member<N> {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) node: N,
    pub(crate) settings: Settings,
}

/// What can be said of a node, and changed while it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) weight: u32,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) max_in_flight: Option<u64>,
}

impl<N> Member<N> {
    fn new(name: impl Into<String>, role: Role, node: N) -> Self {
        let settings = Settings { weight: 1, zone: None, max_in_flight: None };
        Self { name: name.into(), role, node, settings }
    }

    /// A node that takes reads in proportion to its weight. Its name appears in picks and
    /// statistics: 1 to 64 bytes, no control characters, not taken.
    pub fn replica(name: impl Into<String>, node: N) -> Self {
        Self::new(name, Role::Replica, node)
    }

    /// The node that takes all writes. A set has one at most.
    pub fn primary(name: impl Into<String>, node: N) -> Self {
        Self::new(name, Role::Primary, node)
    }

    /// A node that takes nothing until its role has been [observed](crate::Replicas::observe).
    pub fn unknown(name: impl Into<String>, node: N) -> Self {
        Self::new(name, Role::None, node)
    }

    /// Its share of the reads, 1 to 1,000; 1 if not said.
    pub fn weight(mut self, weight: u32) -> Self {
        self.settings.weight = weight;
        self
    }

    /// Where it stands, to be compared with the caller's own [zone](crate::ReplicasConfig::zone).
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.settings.zone = Some(zone.into().into());
        self
    }

    /// At most so many requests at once, at least 1. No bound if not said. Take the size of the
    /// node's own pool, so that requests queue here, where another node can take them.
    pub fn max_in_flight(mut self, requests: u64) -> Self {
        self.settings.max_in_flight = Some(requests);
        self
    }

    /// Checks all but whether the name is taken; `field` is how errors call this member.
    pub(crate) fn validate(&self, field: &str) -> Result<(), ConfigError> {
        check_name(&format!("{field}.name"), &self.name)?;
        self.settings.validate(field)
    }
}

impl Settings {
    fn validate(&self, field: &str) -> Result<(), ConfigError> {
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            let rule = "be from 1 to 1000; leave the node out to give it nothing";
            return Err(ConfigError::new(format!("{field}.weight"), self.weight.to_string(), rule));
        }
        if let Some(zone) = &self.zone {
            check_name(&format!("{field}.zone"), zone)?;
        }
        if self.max_in_flight == Some(0) {
            let rule = "be at least 1; leave the node out to give it nothing";
            return Err(ConfigError::new(format!("{field}.max_in_flight"), "0", rule));
        }
        Ok(())
    }
}

pub(crate) fn check_name(field: &str, name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let rule = "have 1 to 64 bytes and no control characters";
        return Err(ConfigError::new(field, name, rule));
    }
    Ok(())
}

/// The nodes of a set under [`Replicas::change`](crate::Replicas::change).
///
/// Nothing takes effect before the change as a whole has succeeded.
pub struct Members<'a, N> {
    pub(crate) seats: Vec<Seat<N>>,
    maker: &'a Maker<N>,
}

impl<'a, N> Members<'a, N> {
    pub(crate) fn new(seats: Vec<Seat<N>>, maker: &'a Maker<N>) -> Self {
        Self { seats, maker }
    }

    /// The names, in the order they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.seats.iter().map(|seat| seat.node.name.as_str())
    }

    /// Adds a node. A replica that joins a running set starts [slowly](crate::ReplicasConfig::slow_start).
    ///
    /// # Errors
    /// A name that is taken or out of bounds, a weight or a limit out of bounds.
    pub fn add(&mut self, member: Member<N>) -> Result<(), ConfigError> {
        member.validate("member")?;
        if self.names().any(|name| name == member.name) {
            let rule = "differ from every other node's name";
            return Err(ConfigError::new("member.name", member.name, rule));
        }
        self.seats.push(self.maker.seat(member));
        Ok(())
    }

    /// Takes a node out. It gets nothing new; the picks it has run to their end.
    ///
    /// # Errors
    /// No node has that name.
    pub fn remove(&mut self, name: &str) -> Result<(), ConfigError> {
        let position = self.position(name)?;
        self.seats.remove(position);
        Ok(())
    }

    /// Changes a node's weight, 1 to 1,000.
    ///
    /// # Errors
    /// No node has that name, or the weight is out of bounds.
    pub fn set_weight(&mut self, name: &str, weight: u32) -> Result<(), ConfigError> {
        self.set(name, |settings| settings.weight = weight)
    }

    /// Changes how many requests a node may have at once, at least 1; `None` for no bound. Those
    /// above a lowered bound run to their end.
    ///
    /// # Errors
    /// No node has that name, or the bound is zero.
    pub fn set_max_in_flight(&mut self, name: &str, max: Option<u64>) -> Result<(), ConfigError> {
        self.set(name, |settings| settings.max_in_flight = max)
    }

    fn set(&mut self, name: &str, set: impl FnOnce(&mut Settings)) -> Result<(), ConfigError> {
        let position = self.position(name)?;
        // On a copy: a caller may go on after an error.
        let mut settings = self.seats[position].settings.clone();
        set(&mut settings);
        settings.validate(name)?;
        self.seats[position].settings = settings;
        Ok(())
    }

    fn position(&self, name: &str) -> Result<usize, ConfigError> {
        let position = self.names().position(|other| other == name);
        position.ok_or_else(|| ConfigError::new("member", name, "be a node of the set"))
    }

    /// What the nodes are is not the caller's to change, and may have changed since.
    pub(crate) fn adopt_roles(&mut self, current: &[Seat<N>]) {
        for seat in &mut self.seats {
            if let Some(now) = current.iter().find(|other| other.node.id == seat.node.id) {
                (seat.role, seat.excluded) = (now.role, now.excluded);
            }
        }
    }

    /// The rules that hold for the set as a whole.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        check_set(self.seats.iter().map(|seat| seat.role))
    }
}

/// The rules that hold for a set as a whole, whatever its nodes.
pub(crate) fn check_set(roles: impl Iterator<Item = Role> + Clone) -> Result<(), ConfigError> {
    let count = roles.clone().count();
    if count == 0 || count > MAX_NODES {
        let rule = "be from 1 to 64, the primary included";
        return Err(ConfigError::new("number of nodes", count.to_string(), rule));
    }
    let primaries = roles.filter(|role| *role == Role::Primary).count();
    if primaries > 1 {
        let rule = "be at most 1";
        return Err(ConfigError::new("number of primaries", primaries.to_string(), rule));
    }
    Ok(())
}

impl<N> fmt::Debug for Member<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the node: it may hold a password.
        f.debug_struct("Member")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<N> fmt::Debug for Members<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
