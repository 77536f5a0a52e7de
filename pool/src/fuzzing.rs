//! What the fuzzers call, each with bytes that mean anything: they must return, whatever these
//! are, and panic only where a promise is broken.
//!
//! `cargo fuzz` runs them for as long as one likes (`fuzz/`), a test runs them over the corpus.

use crate::postgres::fuzzing::{Session, parse};

/// Both directions of a connection in turns. The first byte of a turn is its length, its highest
/// bit set if the client speaks. Whole turns and single bytes must be read alike.
pub fn tap(mut bytes: &[u8]) {
    let (mut whole, mut split) = (Session::new(), Session::new());
    let mut total = 0_u64;
    while let Some((head, rest)) = bytes.split_first() {
        let (turn, later) = rest.split_at(usize::from(head & 0x7f).min(rest.len()));
        bytes = later;
        total += turn.len() as u64;
        let client = head & 0x80 != 0;
        whole.passage(turn);
        pass(&mut whole, client, turn);
        turn.chunks(1).for_each(|byte| pass(&mut split, client, byte));
        let state = whole.state();
        assert_eq!(state, split.state());
        assert_eq!(whole.answered(), split.answered());
        assert!(u64::from(state.outstanding) <= total && whole.answered() <= total);
        assert!(!state.stuck || state.copying);
    }
}

fn pass(session: &mut Session, client: bool, bytes: &[u8]) {
    if client { session.sent(bytes) } else { session.received(bytes) }
}

/// A connection string. What is refused is not shown.
pub fn url(bytes: &[u8]) {
    const SECRET: &str = "hunter2hunter2";
    let text = String::from_utf8_lossy(bytes).replace('\u{fffd}', SECRET);
    if let Err(error) = parse(&text) {
        assert!(!format!("{error}{error:?}").contains(SECRET), "{error}");
    }
}
