//! What a load has seen of the shared layer before it began.

use super::control::Control;
use crate::frame::Fingerprint;

/// What a load must know to write its value: what stood there before it began.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(super) control: Control,
    /// How the bytes under the key began, if there were any.
    pub(super) expected: Option<Fingerprint>,
}

#[cfg(feature = "http")]
impl View {
    /// The same key, as a load sees it that began when `earlier` was taken: what was removed since
    /// then is newer than what it brings.
    pub(crate) fn with_control_of(self, earlier: &Self) -> Self {
        Self { control: earlier.control, ..self }
    }
}
