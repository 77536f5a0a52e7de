//! What a leader's request has come to, for those who wait for it.

use std::sync::Arc;

use crate::http::engine::{Failure, StoredHead};
use crate::http::growing::Growing;
use crate::http::stored::StoredResponse;

/// An answer that may be shared.
#[derive(Clone)]
pub(crate) enum Landing {
    /// The origin's, being stored.
    Live(Live),
    /// A stored one that the origin confirmed.
    Confirmed(StoredResponse),
    /// A stored one in place of a failure.
    StandIn(StoredResponse, Failure),
}

/// An answer whose body is under way.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) head: Arc<StoredHead>,
    pub(crate) body: Arc<Growing>,
}
