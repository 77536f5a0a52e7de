//! How long a server's thread goes on before it lets others on its core go first.
//!
//! What a proxy sends wakes servers and clients on the same machine, often on its own core. There they
//! would wait until it has nothing to do or has used up its slice, some three milliseconds.

use std::cell::Cell;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::Instant;

/// Measured beside nginx: shorter turns make the slowest answers no quicker, and beside a neighbour that
/// computes all the time each turn may cost a slice of his. Who would yield at each wait would lose nine
/// tenths of his requests to such a one.
const LONGEST: Duration = Duration::from_millis(1);

/// Who waits for longer gives the core to whoever wants it. Asking the kernel for what is there already
/// takes less.
const WAIT: Duration = Duration::from_micros(20);

/// Bounds the turns of a runtime with one thread.
pub(crate) fn bounded(builder: &mut Builder) -> &mut Builder {
    builder.on_thread_park(before_wait).on_thread_unpark(after_wait)
}

thread_local! {
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

fn before_wait() {
    let now = Instant::now();
    let turn = TURN.get().unwrap_or(Turn::beginning(now));
    if turn.is_over(now) {
        std::thread::yield_now();
        TURN.set(Some(Turn::beginning(Instant::now())));
    } else {
        TURN.set(Some(turn.waiting(now)));
    }
}

fn after_wait() {
    let now = Instant::now();
    TURN.set(TURN.get().map(|turn| turn.going_on(now)));
}

/// A time in which a thread has had the core to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    began: Instant,
    waits_since: Instant,
}

impl Turn {
    fn beginning(now: Instant) -> Self {
        Self { began: now, waits_since: now }
    }

    fn is_over(self, now: Instant) -> bool {
        now.duration_since(self.began) >= LONGEST
    }

    fn waiting(self, now: Instant) -> Self {
        Self { waits_since: now, ..self }
    }

    /// After a wait, which begins another turn if it was one.
    fn going_on(self, now: Instant) -> Self {
        if now.duration_since(self.waits_since) >= WAIT { Self::beginning(now) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_by_its_length_and_begins_anew_with_each_wait() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let turn = Turn::beginning(start).waiting(at(600)).going_on(at(605));
        assert!(!turn.is_over(at(999)) && turn.is_over(at(1_000)));
        let turn = turn.waiting(at(900)).going_on(at(920));
        assert!(!turn.is_over(at(1_919)) && turn.is_over(at(1_920)));
    }

    #[test]
    fn a_runtime_goes_on_whatever_its_turns() {
        let mut builder = Builder::new_current_thread();
        let runtime = bounded(builder.enable_time()).build().unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            // Longer than a turn, with a wait of each kind.
            while start.elapsed() < LONGEST * 3 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(LONGEST).await;
        });
        let turn = runtime.block_on(async { TURN.get() });
        assert!(turn.is_some(), "the runtime has waited");
    }
}
