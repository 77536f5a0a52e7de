//! Follows a PostgreSQL primary and its streaming standbys: who takes writes, who may be read from,
//! and how far behind each is, from the servers' own word.
//!
//! A [`Monitor`] asks every server of a set, again and again, on a connection of its own, and tells
//! the set what it found. It does not promote: Patroni, repmgr or a managed service does, and the
//! set follows. Use it for a primary with physical standbys (PostgreSQL 13 and later). Not for
//! logical replication, and not for standbys that only replay an archive: they do not say which
//! timeline they are on, and stay excluded; so do others while they go on by an archive.
//!
//! ```no_run
//! use escala_replicas::postgres::{Monitor, connect};
//! use escala_replicas::{BoxError, Member, Replicas};
//! use tokio_postgres::{Config, NoTls};
//!
//! # async fn example() -> Result<(), BoxError> {
//! // In earnest a node is a pool; here it is how its server is reached.
//! let server = |host: &str| -> Config {
//!     let mut config = Config::new();
//!     config.host(host).user("monitor").dbname("postgres").application_name("replicas");
//!     config
//! };
//! let db = Replicas::with_members([
//!     Member::unknown("db-0", server("db-0")),
//!     Member::unknown("db-1", server("db-1")).weight(3),
//!     Member::unknown("db-2", server("db-2")).weight(3),
//! ])
//! .build()?;
//!
//! let monitor = Monitor::builder(|_name, node: &Config| {
//!     let config = node.clone();
//!     async move { connect(&config, NoTls).await }
//! })
//! .on_event(|event| eprintln!("{event}"))
//! .start(&db)?;
//! monitor.settled().await;
//!
//! let pick = db.write()?; // whoever is the primary now
//! # let _ = pick;
//! # Ok(())
//! # }
//! ```
//!
//! # Roles
//! A server that takes writes is not necessarily the primary: an old one that comes back does, too.
//! The timeline decides. Every promotion begins a higher one, so the highest ever seen, be it only on
//! a standby that receives it, is the primary's; whoever takes writes on a lower one is fenced. Two
//! that take writes on the same timeline are a split brain: the known one stays, or if none is known
//! nobody takes writes, and it is [told](Event::SplitBrain). A server of another `system_identifier` is
//! refused. Before the first decision everybody is asked; the first to answer may be the old one.
//!
//! While the primary cannot be reached it stays the primary; nobody else may take its writes before
//! being promoted. All servers are then asked every
//! [50 ms](MonitorConfig#structfield.search_interval), and at once when a write fails.
//!
//! # Lag
//! The monitor remembers what the primary's log had reached, and when. A replica's lag is the age of
//! the newest such place that it has replayed, and 0 if it has the newest: right on an idle primary,
//! with replay paused, and with a walreceiver that hangs, where timestamps and received positions
//! mislead. It is off by the [interval](MonitorConfig#structfield.primary_interval) at most. What
//! sessions compare with their own bound is not this but the [time until
//! which](crate::Freshness::complete_until) the replica shows everything, which is never too late: the
//! word of the primary that it is known by may be an interval old. A replica whose lag is unknown is
//! excluded, as is one beyond a limit, until it is below half of it. One that could not be asked for as
//! long as the limit is [silent](crate::Exclusion::Silent), and used as if it lagged. While the primary
//! is silent no replica is excluded for that, but it shows everything only until the primary's last
//! word: nobody knows what was written since. So where only the monitor cannot reach the primary,
//! the limit holds for sessions with needs, and for the others it does not.
//!
//! Lag is measured within a timeline. After a promotion a standby is excluded until it receives the
//! new one, for it may have gone further on the old one.
//!
//! # Cost
//! A connection and a statement of 0.3 ms ten times a second on the primary, half as often on
//! replicas. Picks read what the monitor stored, without a lock.
//!
//! # Limits
//! A standby that attached to a new timeline and lost it again between two questions is taken to be on
//! the old one. A server that was moved to another name without a promotion is a rival of itself until
//! the old name is [removed](crate::Members::remove). After `pg_upgrade` the system is another one, and
//! the monitor must be started anew.
//!
//! A copy that was restored to a point in time has the same `system_identifier` and a higher timeline,
//! so nothing tells it from a promoted standby: in the set it takes the writes, and the real primary is
//! fenced. Keep such copies out of the set, out of its DNS name and its Patroni cluster. Once one was
//! in, to remove it is not enough, for the highest timeline is never forgotten: else an old primary
//! would take writes as soon as the new one is out of the set. End the monitor by its
//! [shutdown](MonitorBuilder::shutdown) and start another one on the same set.
//!
//! What was committed with `synchronous_commit = off` comes into the log up to three times
//! `wal_writer_delay` later (0.6 s by default), and counts as written only then: so much more than its
//! [bound](crate::Session::max_lag) a session may miss of it.

mod config;
mod connect;
mod event;
mod monitor;
mod stats;

mod desk;
mod engine;
mod gate;
mod history;
mod lsn;
mod roles;
mod sample;
mod supervisor;

pub use config::MonitorConfig;
pub use connect::connect;
pub use event::Event;
pub use lsn::{Lsn, ParseLsnError};
pub use monitor::{Monitor, MonitorBuilder};
pub use stats::{MonitorStats, NodeMonitorStats};
