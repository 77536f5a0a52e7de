//! Learns which nodes there are: from DNS, or from Patroni.
//!
//! A discovery adds nodes to a set and removes them, which drains them. It does not say what they
//! are: for PostgreSQL the servers' own word counts, by a
//! [`Monitor`](crate::postgres::Monitor); for other nodes they are what their member says.
//! A list that does not change needs none of this: build the set with it. Start the discovery first,
//! wait until it has [answered](Discovery::answered), then start the monitor, whose first decision
//! waits for the nodes that are there.

mod config;
mod dns;
#[cfg(feature = "patroni")]
mod patroni;
mod roster;
mod stats;
mod task;

pub use config::DiscoveryConfig;
pub use dns::Dns;
#[cfg(feature = "patroni")]
pub use patroni::{Patroni, PatroniMember, PatroniTags};
pub use stats::DiscoveryStats;
pub use task::Discovery;
