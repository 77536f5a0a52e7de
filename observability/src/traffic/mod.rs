//! Requests, errors and durations of an axum service, by route template.
//!
//! [`HttpLayer`] is the tower face, `series` holds the handles it records into, `tally` the
//! figures the dashboard and the signals are read from.

mod body;
mod future;
mod latency;
mod layer;
mod series;
mod tally;

pub use body::ObservedBody;
pub use future::ResponseFuture;
pub use layer::{HttpLayer, HttpService};
pub(crate) use series::HttpSeries;
pub(crate) use tally::Totals;
