//! Who is told about the moves of a circuit, outside of every lock.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::machine::Move;
use super::primitives::{AtomicU64, Mutex, Relaxed};
use super::{State, Transition};

type Listener = dyn Fn(&Transition) + Send + Sync;

#[derive(Default)]
pub(super) struct Hook {
    listener: Mutex<Option<Arc<Listener>>>,
    panicked: AtomicU64,
}

/// A move, and whose it was.
pub(super) struct Told<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) shadow: bool,
    pub(super) told: Move,
}

impl Hook {
    pub(super) fn set(&self, listener: Arc<Listener>) {
        let before = self.listener.lock().replace(listener);
        // Not under the lock: what it held may do anything when it is dropped.
        drop(before);
    }

    pub(super) fn panicked(&self) -> u64 {
        self.panicked.load(Relaxed)
    }

    /// Who panics over it, a listener or who writes the log, has done so by himself: it is counted,
    /// and the call that brought it about, which may be panicking itself, knows nothing of it.
    pub(super) fn tell(&self, told: &Told<'_>) {
        self.apart(|| log(told));
        let Some(listener) = self.listener.lock().clone() else { return };
        let transition = transition(told);
        let heard = self.apart(|| listener(&transition));
        #[cfg(feature = "tracing")]
        if !heard {
            self.apart(|| {
                tracing::error!(
                    breaker = &**told.name,
                    "the listener for transitions has panicked"
                );
            });
        }
        #[cfg(not(feature = "tracing"))]
        let _unused = heard;
    }

    /// Whether it ended without a panic.
    fn apart(&self, run: impl FnOnce()) -> bool {
        let ended = catch_unwind(AssertUnwindSafe(run)).is_ok();
        if !ended {
            self.panicked.fetch_add(1, Relaxed);
        }
        ended
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("panicked", &self.panicked).finish_non_exhaustive()
    }
}

fn transition(Told { name, shadow, told }: &Told<'_>) -> Transition {
    let Move { from, to, reason, sequence, open_for, figures } = *told;
    let breaker = name.to_string();
    Transition { breaker, from, to, reason, sequence, shadow: *shadow, open_for, figures }
}

fn log(Told { name, shadow, told }: &Told<'_>) {
    let Move { from, to, reason, open_for, figures, .. } = told;
    let rejects = matches!(to, State::Open | State::HalfOpen | State::ForcedOpen);
    #[cfg(feature = "tracing")]
    if rejects && !shadow {
        tracing::warn!(breaker = &***name, %from, %to, %reason, ?open_for, ?figures, "circuit rejects calls");
    } else {
        tracing::info!(breaker = &***name, %from, %to, %reason, shadow, ?figures, "circuit moved");
    }
    #[cfg(not(feature = "tracing"))]
    let _unused = (name, shadow, from, reason, open_for, figures, rejects);
}
