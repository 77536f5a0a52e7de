//! What the gate is made of. The loom tests put their own in its place, which try every order in
//! which threads may meet.

pub(super) use std::sync::Arc;

pub(super) use parking_lot::Mutex;
pub(super) use tokio::sync::oneshot;
