//! How long a server's thread goes on before it lets others on its core go first.
//!
//! What a proxy sends wakes servers and clients on the same machine, often on its own core. There they
//! would wait until it has nothing to do or has used up its slice, some milliseconds.
//!
//! A runtime tells only when no task is ready, just before it asks the kernel for more. So a turn may be
//! longer than the bound, but it is the last before others have theirs.

use std::cell::Cell;
use std::thread::yield_now;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::Instant;

/// After so long, others go first. Measured beside nginx: shorter turns make the slowest answers no quicker,
/// and beside a neighbour that computes all the time each may cost a slice of his. Who yielded at each wait
/// would lose most of his time to such a one.
const LONGEST: Duration = Duration::from_millis(1);

/// Who waits for longer gives the core to whoever wants it. Asking the kernel for what is there already
/// takes less.
const WAIT: Duration = Duration::from_micros(20);

/// Has a runtime with one thread take turns with others.
pub(crate) fn taken(builder: &mut Builder) -> &mut Builder {
    builder.on_thread_park(before_wait).on_thread_unpark(after_wait)
}

thread_local! {
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

fn before_wait() {
    let now = Instant::now();
    let turn = TURN.get().unwrap_or(Turn::beginning(now));
    TURN.set(Some(turn.before_wait(now, || {
        yield_now();
        Instant::now()
    })));
}

fn after_wait() {
    let now = Instant::now();
    TURN.set(TURN.get().map(|turn| turn.after_wait(now)));
}

/// A time in which a thread has had the core to itself.
#[derive(Debug, Clone, Copy)]
struct Turn {
    began: Instant,
    waits_since: Instant,
}

impl Turn {
    fn beginning(now: Instant) -> Self {
        Self { began: now, waits_since: now }
    }

    /// Ends it if it was long enough: `let_others_go` says when they have gone.
    fn before_wait(self, now: Instant, let_others_go: impl FnOnce() -> Instant) -> Self {
        if now.duration_since(self.began) >= LONGEST {
            Self::beginning(let_others_go())
        } else {
            Self { waits_since: now, ..self }
        }
    }

    /// Begins another one if others could go meanwhile.
    fn after_wait(self, now: Instant) -> Self {
        if now.duration_since(self.waits_since) >= WAIT { Self::beginning(now) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_go_first_after_a_millisecond_without_a_wait() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let mut turn = Turn::beginning(start);
        // When it waits and goes on, and whether others go first and come back at 5,000.
        for (waits, goes_on, yields) in [
            (600, 605, false),
            (999, 1_010, false),
            (1_020, 5_001, true),
            (5_900, 5_905, false),
            // This was a wait, in which others could go.
            (5_990, 6_100, false),
            (7_099, 7_100, false),
            (7_100, 7_101, true),
        ] {
            let mut yielded = false;
            turn = turn.before_wait(at(waits), || {
                yielded = true;
                at(waits.max(5_000))
            });
            assert_eq!(yielded, yields, "{waits}");
            turn = turn.after_wait(at(goes_on));
        }
    }

    #[test]
    fn a_runtime_tells_of_its_waits() {
        let mut builder = Builder::new_current_thread();
        let runtime = taken(builder.enable_time()).build().unwrap();
        let start = Instant::now();
        runtime.block_on(async { tokio::time::sleep(LONGEST).await });
        let turn = TURN.get();
        assert!(turn.is_some_and(|turn| turn.began > start), "{turn:?}, {start:?}");
    }
}
