//! The breaker, and the count of a drain, under every order in which their callers may meet: the files themselves, with loom's
//! atomics and locks in the place of their own.

#![expect(dead_code, reason = "the breaker offers more than its races need")]
#![expect(unreachable_pub, reason = "what is public in the library is not in a test")]

#[path = "../../src/error.rs"]
mod error;
#[cfg(feature = "axum")]
#[path = "../../src/problem.rs"]
mod problem;
mod races;
#[cfg(feature = "axum")]
#[path = "../../src/retry_after.rs"]
mod retry_after;
#[path = "../../src/stats.rs"]
mod stats;

pub(crate) use self::error::ConfigError;
pub(crate) use self::stats::Emit;

#[path = "../../src/breaker"]
mod breaker {
    //! All of it but what makes a tower service of it.

    mod cell;
    mod config;
    mod core;
    mod handle;
    mod hook;
    mod machine;
    mod open;
    mod outcome;
    mod permit;
    #[path = "../../tests/loom/primitives.rs"]
    pub(crate) mod primitives;
    mod shard;
    mod state;
    mod stats;
    mod transition;
    mod watch;
    #[path = "../../tests/loom/watching.rs"]
    mod watching;
    mod window;
    mod word;

    pub use self::config::BreakerConfig;
    pub use self::handle::Breaker;
    pub use self::open::Open;
    pub use self::outcome::{Judgement, Outcome};
    pub use self::permit::Permit;
    pub use self::state::State;
    pub use self::stats::BreakerStats;
    pub use self::transition::{Figures, Reason, Transition};
}

#[path = "../../src/drain"]
mod drain {
    //! How a drain counts requests.

    #[path = "../../tests/loom/counting.rs"]
    mod counting;
    mod tally;

    mod primitives {
        pub(super) use crate::breaker::primitives::{
            Acquire, Arc, AtomicU64, Mutex, Relaxed, Release,
        };
    }
}
