//! The public surface of the queue, in one binary.

mod accounting;
mod borrow;
mod bounds;
mod contract;
#[cfg(feature = "tracing")]
mod events;
mod order;
mod retry;
mod scene;
mod settings;
mod stop;
mod timeout;
