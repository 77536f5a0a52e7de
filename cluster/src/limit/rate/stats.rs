//! The figures of one limit, handed out as a snapshot.

use crate::Emit;

/// A limit's figures at one moment.
///
/// Each check of a key counts as allowed, limited or limited in shadow. What was allowed may be
/// refunded later, by a layer once at most. The figures are read one after the other, without stopping anybody.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RateLimitStats {
    /// The name the limit was made with.
    pub name: String,
    /// Keys kept in this process. Some of them may have a full bucket again and wait to be
    /// forgotten.
    pub keys: u64,
    /// Checks that found their units.
    pub allowed_total: u64,
    /// Checks that did not, and were refused.
    pub limited_total: u64,
    /// Checks that did not, and were let through because the limit is in shadow mode.
    pub shadow_limited_total: u64,
    /// Times that units were put back: by a layer because a later limit or layer refused the request,
    /// or by a call of `give_back`, whether or not the key was lacking any.
    pub refunded_total: u64,
    /// Requests without a key.
    pub keyless_total: u64,
    /// Checks of a new key for which there was no room.
    pub overflow_total: u64,
    /// Keys forgotten because their bucket was full again.
    pub evicted_total: u64,
    /// Checks that the store could not decide. They are neither allowed nor limited, unless
    /// [`StoreFailure::Local`](crate::StoreFailure::Local) had them decided here.
    pub errors_total: u64,
}

impl RateLimitStats {
    /// Hands out each figure under its field's name with the label `limit`.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            keys,
            allowed_total,
            limited_total,
            shadow_limited_total,
            refunded_total,
            keyless_total,
            overflow_total,
            evicted_total,
            errors_total,
        } = self;
        let labels = [("limit", name.as_str())];
        for (figure, value) in [
            ("keys", keys),
            ("allowed_total", allowed_total),
            ("limited_total", limited_total),
            ("shadow_limited_total", shadow_limited_total),
            ("refunded_total", refunded_total),
            ("keyless_total", keyless_total),
            ("overflow_total", overflow_total),
            ("evicted_total", evicted_total),
            ("errors_total", errors_total),
        ] {
            emit(figure, &labels, *value as f64);
        }
    }
}
