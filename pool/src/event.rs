//! What happens in the background and would otherwise be unseen, told to `tracing`.
//!
//! Without the feature each function is empty, so that the logic carries no `cfg`.

use crate::error::Cause;

/// A connection could not be made.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn connect_failed(cause: &Cause) {
    #[cfg(feature = "tracing")]
    tracing::warn!(error = ?cause, "a connection could not be made");
}

/// A pool was closed while leases were out.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn abandoned(leases: usize) {
    #[cfg(feature = "tracing")]
    tracing::warn!(leases, "the pool closed while leases were still out");
}

/// A lease came back in the middle of a query or a transaction.
#[cfg(feature = "postgres")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn dirty_lease(interrupted: bool, fit: bool) {
    #[cfg(feature = "tracing")]
    tracing::debug!(interrupted, fit, "a lease came back dirty");
}

/// The server or the network ended a connection.
#[cfg(feature = "postgres")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody to tell"))]
pub(crate) fn connection_lost(error: &tokio_postgres::Error) {
    #[cfg(feature = "tracing")]
    tracing::info!(?error, "a connection was lost");
}
