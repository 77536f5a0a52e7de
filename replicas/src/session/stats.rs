//! What a layer has seen of tokens, as plain figures.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::keys::TokenError;
use crate::Emit;

/// A snapshot of a [`SessionLayer`](super::SessionLayer).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SessionStats {
    /// Tokens of requests that were opened and count.
    pub accepted_total: u64,
    /// Tokens whose time was up.
    pub expired_total: u64,
    /// Texts that no secret in use sealed: forged, damaged, or of a secret that was removed.
    pub refused_total: u64,
    /// Tokens handed to clients.
    pub issued_total: u64,
}

impl SessionStats {
    /// Hands every figure to `emit`.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self { accepted_total, expired_total, refused_total, issued_total } = self;
        for (result, value) in
            [("accepted", accepted_total), ("expired", expired_total), ("refused", refused_total)]
        {
            emit("replicas_tokens_total", &[("result", result)], *value as f64);
        }
        emit("replicas_tokens_issued_total", &[], *issued_total as f64);
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: AtomicU64,
    expired: AtomicU64,
    refused: AtomicU64,
    issued: AtomicU64,
}

impl Counts {
    pub(super) fn opened<T>(&self, result: &Result<T, TokenError>) {
        let count = match result {
            Ok(_) => &self.accepted,
            Err(TokenError::Expired) => &self.expired,
            Err(_) => &self.refused,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(super) fn issued(&self) {
        self.issued.fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self) -> SessionStats {
        SessionStats {
            accepted_total: self.accepted.load(Relaxed),
            expired_total: self.expired.load(Relaxed),
            refused_total: self.refused.load(Relaxed),
            issued_total: self.issued.load(Relaxed),
        }
    }
}
