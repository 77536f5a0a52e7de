//! The words of a decision: what is asked ([`Route`], [`Session`]), of whom ([`Role`]), and why
//! that node ([`Reason`]).

use std::fmt;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// Any replica may answer.
    Read,
    /// Only the primary may answer.
    Write,
}

/// A request that knows where it must go.
pub trait Routed {
    /// What this request needs. Called once per request.
    fn route(&self) -> Route;
}

/// What one caller's reads must be able to see.
///
/// The default sees whatever a replica has, which may trail the primary. A session
/// [pinned to the primary](Session::pinned_to_primary) sees its own writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    pinned: bool,
}

impl Session {
    /// A session whose reads any replica may serve.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A session whose reads go to the primary and nowhere else, because they must see what the
    /// session wrote. They fail with the primary; a replica could answer, but wrongly.
    #[must_use]
    pub fn pinned_to_primary() -> Self {
        Self { pinned: true }
    }

    /// Whether reads of this session go to the primary only.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }
}

/// What a node is in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Role {
    /// Takes all writes, and reads only as a fallback or on demand.
    Primary,
    /// Takes reads by weight.
    Replica,
}

impl Role {
    /// The name used in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// Why a node was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Reason {
    /// It was the replica's turn: [`Strategy::RoundRobin`](crate::Strategy::RoundRobin) or
    /// [`Strategy::Weighted`](crate::Strategy::Weighted).
    Weighted,
    /// The replica had the least load for its weight, or the turn among equals:
    /// [`Strategy::LeastLoaded`](crate::Strategy::LeastLoaded).
    Balanced,
    /// The set has no other node, so its health does not matter.
    OnlyNode,
    /// A write, which only the primary may take.
    Write,
    /// A read of a session pinned to the primary.
    Pinned,
    /// Another eligible replica, after a node failed this read.
    Failover,
    /// An ejected node whose time is up, tried with this one request (only without a probe).
    Trial,
    /// No replica is eligible, or all that were failed this read: the primary serves it.
    PrimaryFallback,
    /// Every node is ejected, or failed this read; an ejected one beats none.
    PanicMode,
}

impl Reason {
    pub(crate) const ALL: [Self; 9] = [
        Self::Weighted,
        Self::Balanced,
        Self::OnlyNode,
        Self::Write,
        Self::Pinned,
        Self::Failover,
        Self::Trial,
        Self::PrimaryFallback,
        Self::PanicMode,
    ];

    /// The name used in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weighted => "weighted",
            Self::Balanced => "balanced",
            Self::OnlyNode => "only_node",
            Self::Write => "write",
            Self::Pinned => "pinned",
            Self::Failover => "failover",
            Self::Trial => "trial",
            Self::PrimaryFallback => "primary_fallback",
            Self::PanicMode => "panic_mode",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
