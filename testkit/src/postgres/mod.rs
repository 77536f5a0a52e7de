//! A PostgreSQL primary with streaming standbys.

mod builder;
mod cluster;
mod node;
mod template;
mod tools;

pub use builder::PgBuilder;
pub use cluster::PgCluster;
pub use node::PgNode;
