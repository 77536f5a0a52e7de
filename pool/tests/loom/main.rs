//! The gate under every order in which its callers may meet: the files themselves, with loom's lock
//! and a channel made of it in the place of their own.

#![expect(dead_code, reason = "the gate offers more than its races need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "../../src/backoff.rs"]
mod backoff;
#[path = "../../src/gate/lock.rs"]
mod lock;
#[path = "../../src/meter.rs"]
mod meter;
mod primitives;
#[path = "../../src/gate/queue.rs"]
mod queue;
mod races;
#[path = "../../src/gate/state.rs"]
mod state;
#[path = "../../src/stats.rs"]
#[expect(unreachable_pub, reason = "it is public in the library")]
mod stats;
#[path = "../../src/gate/tokens.rs"]
mod tokens;

mod error {
    //! What an acquire that fails is told.

    use std::error::Error;
    use std::sync::Arc;

    pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

    /// Stands for the library's own.
    #[derive(Debug)]
    pub(crate) enum PoolError {
        AcquireTimeout {},
        ConnectTimeout {},
        TooManyWaiters { limit: usize },
        Closed,
    }
}
