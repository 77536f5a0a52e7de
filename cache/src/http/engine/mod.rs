//! What RFC 9111 (caching), RFC 9110 (validators, conditional requests, ranges), RFC 5861 (stale
//! content), RFC 9211 (`Cache-Status`) and RFC 9213 (targeted fields) demand of a shared cache.
//!
//! Nothing here waits, reads a clock, does I/O or touches a body. Every function is total: bytes
//! from outside never panic, and the work is linear in their number (sorting within one field
//! apart). The way of a request:
//!
//! 1. [`RequestView::new`], once.
//! 2. [`decide`] over the stored heads of its key: serve, validate, forward, or 504.
//! 3. Serve: [`answer`], which evaluates the client's conditions and ranges.
//! 4. Validate: [`Validation::apply`] to the request that goes to the origin. A 304 goes to
//!    [`nominated`] and [`freshen`]; a failure to [`Validation::may_serve_stale`].
//! 5. Any other answer: [`invalidations`] if the method is unsafe, [`head_update`] if it is `HEAD`,
//!    [`admit`] to learn whether it may be stored.

mod age;
mod answer;
#[cfg(test)]
mod bounds;
pub(crate) mod cache_control;
pub(crate) mod cache_status;
mod conditional;
pub(crate) mod date;
mod decide;
pub(crate) mod fields;
mod freshen;
mod freshness;
mod head;
mod head_update;
mod invalidation;
pub(crate) mod multipart;
mod policy;
pub(crate) mod range;
mod request;
mod storable;
pub(crate) mod targeted;
#[cfg(test)]
mod testing;
mod time;
mod validators;
pub(crate) mod vary;

pub(crate) use answer::{Answer, answer};
pub(crate) use cache_status::{CacheStatus, Fwd};
pub(crate) use decide::{Decision, Failure, Forward, Served, Validation, decide};
pub(crate) use freshen::{Fate, Freshened, freshen, nominated};
pub(crate) use head::{Retention, StoredHead};
pub(crate) use head_update::{HeadUpdate, head_update};
pub(crate) use invalidation::invalidations;
pub use policy::{Authorized, Policy};
pub(crate) use request::RequestView;
pub(crate) use storable::{Refusal, admit};
pub(crate) use time::UnixMs;
