//! Short reads on their caller's thread.
//!
//! A point read takes SQLite some microseconds, and the way to a thread and back several times that.
//! So a text that is known to be short runs where it was asked for, on the session of a reader that
//! has nothing to do. SQLite counts its instructions meanwhile and ends it past a number of them; it
//! is then run again on a reader, which is harmless since it only read.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use tokio::time::Instant;

use super::busy::Patience;
use super::config::SqliteConfig;
use super::verbs::{Found, Statement};
use super::worker::{Jobs, is_busy};

/// Texts known to be short. A program has some hundreds; one that writes values into its texts has
/// no end of them, and forgets the oldest.
const MOST: usize = 4096;

/// A read that takes longer keeps other tasks from their thread for too long, whatever it does:
/// one instruction may read a large row or count a table. As long as four hops to a thread.
const SHORT: Duration = Duration::from_micros(100);

/// Runs on a reader at most that a text must be short in before it is tried here again.
const MOST_RUNS: u16 = 1024;

/// What a session needs in order to run something briefly.
#[derive(Debug)]
pub(super) struct Brief {
    /// Whether SQLite is to give up at the next look.
    limited: Arc<AtomicBool>,
    patience: Patience,
    usual: Duration,
}

impl Brief {
    pub(super) fn install(
        conn: &mut Connection,
        patience: Patience,
        config: &SqliteConfig,
    ) -> rusqlite::Result<Option<Self>> {
        if config.inline_steps == 0 {
            return Ok(None);
        }
        let limited = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&limited);
        // It is asked each time that so many instructions were carried out.
        let every = config.inline_steps as i32;
        conn.progress_handler(every, Some(move || told.load(Ordering::Relaxed)))?;
        Ok(Some(Self { limited, patience, usual: config.busy_timeout }))
    }

    /// Runs something that is to be ended when it is long, or meets a lock.
    fn run<R>(&self, read: impl FnOnce() -> R) -> R {
        struct Limited<'a>(&'a Brief);
        impl Drop for Limited<'_> {
            fn drop(&mut self) {
                self.0.limited.store(false, Ordering::Relaxed);
                self.0.patience.set(self.0.usual);
            }
        }
        self.limited.store(true, Ordering::Relaxed);
        self.patience.set(Duration::ZERO);
        let _limited = Limited(self);
        read()
    }
}

/// The reads of a pool that run on their caller's thread.
#[derive(Debug)]
pub(super) struct Inline {
    steps: usize,
    texts: Mutex<Texts>,
    hasher: RandomState,
}

/// How a read went that was tried here.
pub(super) enum Tried {
    /// As it would have on a reader.
    Ran { found: rusqlite::Result<Found>, took: Duration },
    /// It was ended since it was long; it has had no effect.
    Ended,
    /// It was not begun, or met a lock.
    NotNow,
}

impl Inline {
    /// `None` if all reads go to threads.
    pub(super) fn new(steps: usize) -> Option<Self> {
        let texts = Mutex::new(Texts::default());
        (steps > 0).then(|| Self { steps, texts, hasher: RandomState::new() })
    }

    /// The identity of a text that may run here. Two texts with the same one share what is learnt.
    pub(super) fn identify(&self, sql: &str) -> Option<TextId> {
        // Others, such as `PRAGMA`, may do something, and would do it twice.
        only_selects(sql).then(|| TextId(self.hasher.hash_one(sql)))
    }

    /// Runs a read here if its text is known to be short, a reader has nothing to do and nobody
    /// waits.
    pub(super) fn run(&self, text: TextId, call: &Statement, readers: &Jobs) -> Tried {
        let Some(suspect) = self.texts.lock().look(text) else { return Tried::NotNow };
        let ran = readers.borrow(|session| {
            let brief = session.brief.as_ref()?;
            let begun = Instant::now();
            let result = brief.run(|| call.select(&session.conn));
            Some((result, begun.elapsed()))
        });
        let Some((result, took)) = ran.flatten() else { return Tried::NotNow };
        let short = took <= SHORT;
        let ended = result.as_ref().is_err_and(was_ended);
        if ended || !short || suspect {
            self.texts.lock().ran_here(text, short && !ended);
        }
        match result {
            _ if ended => Tried::Ended,
            Err(error) if is_busy(&error) => Tried::NotNow,
            found => Tried::Ran { found, took },
        }
    }

    /// Takes in how a read went on a reader.
    pub(super) fn learn(&self, text: TextId, steps: usize, took: Duration) {
        self.texts.lock().ran_there(text, steps <= self.steps && took <= SHORT);
    }
}

fn was_ended(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

fn only_selects(sql: &str) -> bool {
    let sql = sql.trim_start();
    let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    ["select", "with", "values"].iter().any(|read| word.eq_ignore_ascii_case(read))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TextId(u64);

/// What is known of texts: no clock and no I/O. A text that is not known goes to a reader.
#[derive(Debug, Default)]
struct Texts {
    known: HashMap<TextId, Known>,
    /// In the order they came.
    order: VecDeque<TextId>,
}

/// A text that was short. Whether it is again may depend on its values and on the machine, so it
/// is judged by all its runs: each that was long here doubles what the next one costs it, and each
/// short one takes one off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    /// Short runs on a reader that are due before it is tried here again.
    due: u16,
    /// What was due the last time.
    penalty: u16,
}

impl Texts {
    /// `Some` if it may run here: whether its short runs matter.
    fn look(&self, text: TextId) -> Option<bool> {
        self.known.get(&text).filter(|known| known.due == 0).map(|known| known.penalty > 0)
    }

    fn ran_here(&mut self, text: TextId, short: bool) {
        let Some(known) = self.known.get_mut(&text) else { return };
        if short {
            known.penalty = known.penalty.saturating_sub(1);
        } else {
            known.penalty = (known.penalty * 2 + 1).min(MOST_RUNS);
            known.due = known.penalty;
        }
    }

    fn ran_there(&mut self, text: TextId, short: bool) {
        if let Some(known) = self.known.get_mut(&text) {
            known.due = if short { known.due.saturating_sub(1) } else { known.due.max(1) };
        } else if short {
            self.known.insert(text, Known::default());
            self.order.push_back(text);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: TextId = TextId(7);

    #[test]
    fn a_text_runs_here_once_it_was_short_on_a_reader() {
        let mut texts = Texts::default();
        texts.ran_there(TEXT, false);
        assert_eq!(texts.look(TEXT), None, "it was long");
        texts.ran_there(TEXT, true);
        assert_eq!(texts.look(TEXT), Some(false));
        texts.ran_there(TEXT, false);
        assert_eq!(texts.look(TEXT), None, "it was long since");
        texts.ran_there(TEXT, true);
        assert_eq!(texts.look(TEXT), Some(false));
    }

    #[test]
    fn a_text_that_is_long_here_again_and_again_is_tried_less_and_less() {
        let mut texts = Texts::default();
        texts.ran_there(TEXT, true);
        for due in [1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1024, 1024] {
            assert!(texts.look(TEXT).is_some());
            texts.ran_here(TEXT, false);
            for _ in 0..due {
                assert_eq!(texts.look(TEXT), None);
                texts.ran_there(TEXT, true);
            }
        }
        // Each short run here takes one off.
        for _ in 0..1024 {
            assert_eq!(texts.look(TEXT), Some(true));
            texts.ran_here(TEXT, true);
        }
        assert_eq!(texts.look(TEXT), Some(false));
    }

    #[test]
    fn the_oldest_text_is_forgotten() {
        let mut texts = Texts::default();
        for text in 0..=MOST as u64 {
            texts.ran_there(TextId(text), true);
            texts.ran_there(TextId(text), true);
        }
        assert_eq!((texts.look(TextId(0)), texts.look(TextId(1))), (None, Some(false)));
        assert_eq!((texts.known.len(), texts.order.len()), (MOST, MOST));
    }

    #[test]
    fn only_what_cannot_act_runs_here() {
        for (sql, expected) in [
            ("select 1", true),
            ("  WITH x as (select 1) select * from x", true),
            ("values (1)", true),
            ("pragma cache_size = 5", false),
            ("selected", false),
            ("/* x */ select 1", false),
            ("", false),
        ] {
            assert_eq!(only_selects(sql), expected, "{sql}");
        }
    }
}
