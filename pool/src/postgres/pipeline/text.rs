//! Which texts may share a connection: what their first word says, and what was learnt of them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Texts known at a time. A program has some hundreds; one that writes values into its texts has no
/// end of them, and forgets the oldest.
const MOST: usize = 4096;
/// Times that a text may hold up its neighbours before it goes alone. One may be the machine's
/// fault.
const STRIKES: u8 = 2;
/// Runs next to others without holding any up after which a text is trusted.
const PROVEN: u8 = 100;
/// Fast runs alone, one after the other, after which a slow text is trusted again. Twice as many
/// each time that it turns out to be slow again.
const FAST_RUNS: u16 = 16;
/// Doublings at most: then it is 4,096 runs.
const MOST_RELAPSES: u8 = 8;

/// The identity of a text. Two texts with the same one share what is learnt, which costs at most
/// speed: the server refuses a write that was taken for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TextId(u64);

/// How a text runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Together with others. When a text that has proven itself stands still, the machine is to
    /// blame sooner than the text.
    Shared { proven: bool },
    /// Alone, since it is not known to be a read without other effects.
    Alone,
    /// Alone, since it held up its neighbours. The caller shall say how fast it ran.
    Slow,
}

#[derive(Debug, Clone, Copy)]
enum Known {
    Shared { strikes: u8, runs: u8, relapses: u8 },
    Alone,
    Slow { fast: u16, relapses: u8 },
}

/// What is known of the texts of one pool.
#[derive(Debug)]
pub(super) struct Texts {
    known: HashMap<TextId, Known>,
    /// In the order they came.
    order: VecDeque<TextId>,
    hasher: RandomState,
}

impl Texts {
    pub(super) fn new() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), hasher: RandomState::new() }
    }

    /// Hashes outside any lock.
    pub(super) fn hasher(&self) -> RandomState {
        self.hasher.clone()
    }

    /// How it shall run now; `None` if it was not looked at yet.
    pub(super) fn class(&mut self, text: TextId) -> Option<Class> {
        Some(match self.known.get_mut(&text)? {
            Known::Shared { runs, .. } => {
                *runs = runs.saturating_add(1);
                Class::Shared { proven: *runs > PROVEN }
            }
            Known::Alone => Class::Alone,
            Known::Slow { .. } => Class::Slow,
        })
    }

    /// Takes in what [`is_read`] said of a text.
    pub(super) fn learn(&mut self, text: TextId, read: bool) {
        self.set(
            text,
            if read { Known::Shared { strikes: 0, runs: 0, relapses: 0 } } else { Known::Alone },
        );
    }

    /// The server refused it as a write.
    pub(super) fn writes(&mut self, text: TextId) {
        self.set(text, Known::Alone);
    }

    /// It held up its neighbours, a little or for long.
    pub(super) fn strike(&mut self, text: TextId, long: bool) {
        let Some(known) = self.known.get_mut(&text) else { return };
        if let Known::Shared { strikes, runs, relapses } = known {
            *runs = 0;
            *strikes = if long { STRIKES } else { *strikes + 1 };
            if *strikes >= STRIKES {
                *known = Known::Slow { fast: 0, relapses: *relapses };
            }
        }
    }

    /// A slow text ran alone.
    pub(super) fn ran(&mut self, text: TextId, quick: bool) {
        let Some(known) = self.known.get_mut(&text) else { return };
        if let Known::Slow { fast, relapses } = known {
            *fast = if quick { *fast + 1 } else { 0 };
            if *fast >= FAST_RUNS << *relapses {
                let relapses = (*relapses + 1).min(MOST_RELAPSES);
                *known = Known::Shared { strikes: 0, runs: 0, relapses };
            }
        }
    }

    fn set(&mut self, text: TextId, known: Known) {
        if self.known.insert(text, known).is_none() {
            self.order.push_back(text);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

/// The identity of a text under the hasher of its pool.
pub(super) fn identify(hasher: &RandomState, sql: &str) -> TextId {
    TextId(hasher.hash_one(sql))
}

/// Whether a text may be run twice and next to others, once the server refuses its writes.
///
/// That leaves what PostgreSQL allows in a read-only transaction although it acts: locks, messages,
/// settings, other sessions, files. Their functions are known by name. One hidden inside a function
/// of the user is not found.
pub(super) fn is_read(sql: &str) -> bool {
    let text = skip_blank(sql);
    let word = text.find(|c: char| !c.is_ascii_alphabetic()).map_or(text, |end| &text[..end]);
    ["select", "with", "values", "table"].iter().any(|read| word.eq_ignore_ascii_case(read))
        && !acts(text)
}

/// How the names of functions begin that act in a read-only transaction.
const ACTING: [&str; 25] = [
    "dblink",
    "lo_",
    "lowrite",
    "pg_advisory_",
    "pg_backup_",
    "pg_cancel_",
    "pg_copy_",
    "pg_create_",
    "pg_drop_",
    "pg_export_",
    "pg_file_",
    "pg_log",
    "pg_notify",
    "pg_promote",
    "pg_reload_",
    "pg_replication_",
    "pg_rotate_",
    "pg_st",
    "pg_switch_",
    "pg_sync_",
    "pg_terminate_",
    "pg_try_advisory_",
    "pg_wal_",
    "set_config",
    "setseed",
];

fn acts(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let mut inside = false;
    for (start, byte) in bytes.iter().enumerate() {
        let begins = is_name(*byte) && !inside;
        inside = is_name(*byte);
        if begins && matches!(byte.to_ascii_lowercase(), b'd' | b'l' | b'p' | b's') {
            let rest = &bytes[start..];
            let named = |name: &&str| {
                rest.get(..name.len())
                    .is_some_and(|head| head.eq_ignore_ascii_case(name.as_bytes()))
            };
            if ACTING.iter().any(named) {
                return true;
            }
        }
    }
    false
}

/// The text without leading blanks, parentheses and comments. Block comments nest in PostgreSQL.
fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(');
        if let Some(comment) = text.strip_prefix("--") {
            text = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if text.starts_with("/*") {
            text = skip_block(text);
        } else {
            return text;
        }
    }
}

fn skip_block(text: &str) -> &str {
    let (mut rest, mut depth) = (text, 0_usize);
    loop {
        if let Some(inner) = rest.strip_prefix("/*") {
            (rest, depth) = (inner, depth + 1);
        } else if let Some(outer) = rest.strip_prefix("*/") {
            (rest, depth) = (outer, depth - 1);
            if depth == 0 {
                return rest;
            }
        } else {
            let mut chars = rest.chars();
            if chars.next().is_none() {
                return rest;
            }
            rest = chars.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_told_by_their_first_word_behind_blanks_and_comments() {
        for read in [
            "select 1",
            " \n(( SELECT 1) union select 2)",
            "-- name: get\nWith t as (select 1) table t",
            "/* a /* nested */ é */values (1)",
            "table quotes",
            "select solo_artist, flo_id, last_start from t",
            "select",
        ] {
            assert!(is_read(read), "{read}");
        }
        for other in [
            "",
            "(",
            "/* select",
            "-- select 1",
            "selection",
            "sélect",
            "insert into t values (1)",
            "show all",
            "explain select 1",
            "begin",
            "select pg_advisory_lock(1)",
            "select pg_catalog.PG_NOTIFY('a', 'b')",
            "select(set_config('a', 'b', false))",
            "select lo_create(0)",
            "select * from dblink('a', 'b')",
            "select pg_copy_logical_replication_slot('a', 'b')",
            "select setseed(0.5)",
        ] {
            assert!(!is_read(other), "{other}");
        }
    }

    fn texts(text: TextId) -> Texts {
        let mut texts = Texts::new();
        texts.learn(text, true);
        texts
    }

    #[test]
    fn a_text_that_holds_up_its_neighbours_goes_alone_until_it_is_fast_again() {
        let text = TextId(1);
        let mut texts = texts(text);
        texts.strike(text, false);
        assert_eq!(texts.class(text), Some(Class::Shared { proven: false }));
        texts.strike(text, false);
        assert_eq!(texts.class(text), Some(Class::Slow));
        for _ in 1..FAST_RUNS {
            texts.ran(text, true);
        }
        texts.ran(text, false);
        assert_eq!(texts.class(text), Some(Class::Slow), "one slow run begins the count anew");
        for _ in 0..FAST_RUNS {
            texts.ran(text, true);
        }
        assert_eq!(texts.class(text), Some(Class::Shared { proven: false }));
        // It takes longer the second time.
        texts.strike(text, true);
        for _ in 0..2 * FAST_RUNS - 1 {
            texts.ran(text, true);
        }
        assert_eq!(texts.class(text), Some(Class::Slow));
        texts.ran(text, true);
        assert_eq!(texts.class(text), Some(Class::Shared { proven: false }));
    }

    #[test]
    fn a_text_is_proven_by_many_runs_and_has_to_begin_anew_when_it_holds_others_up() {
        let text = TextId(1);
        let mut texts = texts(text);
        for _ in 0..PROVEN {
            assert_eq!(texts.class(text), Some(Class::Shared { proven: false }));
        }
        assert_eq!(texts.class(text), Some(Class::Shared { proven: true }));
        texts.strike(text, false);
        assert_eq!(texts.class(text), Some(Class::Shared { proven: false }));
    }

    #[test]
    fn a_text_that_writes_stays_alone() {
        let text = TextId(1);
        let mut texts = texts(text);
        texts.writes(text);
        for _ in 0..100 {
            texts.ran(text, true);
        }
        assert_eq!(texts.class(text), Some(Class::Alone));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut texts = Texts::new();
        for text in 0..2 * MOST as u64 {
            texts.learn(TextId(text), true);
        }
        assert_eq!((texts.known.len(), texts.order.len()), (MOST, MOST));
        assert_eq!(texts.class(TextId(0)), None);
        let last = texts.class(TextId(2 * MOST as u64 - 1));
        assert_eq!(last, Some(Class::Shared { proven: false }));
    }
}
