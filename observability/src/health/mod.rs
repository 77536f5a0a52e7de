//! Health: checks that run in the background, expire, and never hold up an answer.
//!
//! `state` is the pure cache of one check, `runner` runs what is due, `document` writes the
//! `application/health+json` answer, `redact` keeps secrets out of it.

mod check;
mod document;
mod redact;
mod runner;
mod state;

pub use check::Check;
pub(crate) use document::{Document, Group, MEDIA_TYPE, millis};
pub(crate) use runner::{Checks, View};
pub use state::CheckStatus;
