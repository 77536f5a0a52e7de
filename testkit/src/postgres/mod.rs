//! A PostgreSQL primary with streaming standbys.

mod builder;
mod cluster;
mod node;
mod template;
pub(crate) mod tools;

pub(crate) use builder::for_each;

pub use builder::PgBuilder;
pub use cluster::PgCluster;
pub use node::PgNode;
