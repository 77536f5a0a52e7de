//! Follows a PostgreSQL primary and its streaming standbys.

mod gate;
mod history;
mod lsn;
mod roles;

pub use lsn::{Lsn, ParseLsnError};
