//! The words of a decision: what is asked ([`Route`]), of whom ([`Role`]), and why that node
//! ([`Reason`]).

use std::fmt;

use crate::Session;

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

    /// What a read must be able to see; by default what any replica has.
    fn session(&self) -> Option<&Session> {
        None
    }
}

/// What a node is in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Role {
    /// Takes all writes, and reads only as a fallback or on demand. A set has one at most.
    Primary,
    /// Takes reads by weight.
    Replica,
    /// Takes nothing: not known yet, or fenced.
    None,
}

impl Role {
    /// The name used in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::None => "none",
        }
    }
}

/// Declares [`Reason`] together with the list of all reasons and their names, so that none of the
/// three can lack one.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a node was picked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name used in statistics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// It was the replica's turn: [`Strategy::RoundRobin`](crate::Strategy::RoundRobin) or
    /// [`Strategy::Weighted`](crate::Strategy::Weighted).
    Weighted = "weighted",
    /// The replica had the least load for its weight, or the turn among equals: all other
    /// strategies.
    Balanced = "balanced",
    /// The set has no other node, so its health does not matter.
    OnlyNode = "only_node",
    /// A write, which only the primary may take.
    Write = "write",
    /// A read of a session pinned to the primary.
    Pinned = "pinned",
    /// Another eligible replica, after a node failed this read.
    Failover = "failover",
    /// An ejected node whose time is up, tried with this one request (only without a probe).
    Trial = "trial",
    /// The primary, because no replica may serve the read, for more than one cause; or because all
    /// that may have failed it.
    PrimaryFallback = "primary_fallback",
    /// The primary, because all replicas are ejected.
    Ejected = "ejected",
    /// The primary, because all replicas lag too far behind, or further than the session's
    /// [`max_lag`](crate::Session::max_lag).
    LagExcluded = "lag_excluded",
    /// A replica that has what the session wrote, or the primary, because none has.
    RywToken = "ryw_token",
    /// Too few replicas are healthy, or none and the primary cannot help: ejection, or lag (known or
    /// not) where the session does not mind, was ignored.
    PanicMode = "panic_mode",
    /// A replica of the caller's own zone.
    Zone = "zone",
    /// A replica of another zone, because the caller's own has none or is overloaded.
    ZoneSpill = "zone_spill",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
