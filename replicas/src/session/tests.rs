//! Which replicas a session admits, and texts that are no tokens.

use proptest::prelude::*;
use tokio::time::{advance, pause};

use super::*;
use crate::{Observation, Role};

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const DB: u64 = 7_311_111_111_111_111_111;

fn epoch(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn token(timeline: u32, position: u64) -> Token {
    Token::new(DB, timeline, position, epoch(0))
}

fn seen(timeline: u32, position: u64, lag: Option<Duration>, now: Instant) -> Freshness {
    let observation = Observation::new(Role::Replica).of_system(DB).at(timeline, position);
    observation.lag(lag, None).freshness(now)
}

/// A session that wrote now.
fn writer(token: Token, now: Instant) -> Session {
    let mut session = Session::new();
    session.wrote_for(token, TOKEN_LIFE, token.issued(), now);
    session
}

#[test]
fn a_token_is_satisfied_by_its_position_in_its_history_and_by_nothing_else() {
    let now = Instant::now();
    let session = writer(token(3, 100), now);
    for (timeline, position, expected) in [
        (3, 99, false),
        (3, 100, true),
        (3, 101, true),
        // The history may have branched off before the write.
        (4, 1_000, false),
        // The replica has yet to follow.
        (2, 1_000, false),
        (0, 0, false),
    ] {
        let admitted = session.admits(&seen(timeline, position, None, now), now);
        assert_eq!(admitted, expected, "{timeline}: {position}");
    }
    let foreign = Freshness { system: DB + 1, ..seen(3, 1_000, None, now) };
    assert!(!session.admits(&foreign, now), "another database of the same timeline");
    assert!(!session.admits(&Freshness::default(), now), "never observed");
    let zero = writer(Token::new(0, 0, 0, epoch(0)), now);
    assert!(!zero.admits(&Freshness::default(), now), "never observed, whatever the token says");
    let unplaced = writer(Token::unplaced(epoch(0)), now);
    assert!(!unplaced.admits(&seen(0, u64::MAX, Some(Duration::ZERO), now), now));
}

#[tokio::test]
async fn a_token_counts_for_its_life() {
    pause();
    let start = Instant::now();
    let session = writer(token(1, 100), start);
    let behind = seen(1, 0, None, start);
    assert!(session.has_needs());
    advance(TOKEN_LIFE - MS).await;
    assert!(!session.admits(&behind, Instant::now()) && session.awaits_writes(Instant::now()));
    advance(MS).await;
    assert!(session.admits(&behind, Instant::now()) && !session.awaits_writes(Instant::now()));
}

#[test]
fn a_token_from_outside_has_the_rest_of_its_life() {
    let now = Instant::now() + 100 * S;
    let mut session = Session::new();
    session.wrote_for(token(1, 100), TOKEN_LIFE, epoch(20), now);
    let behind = seen(1, 0, None, now);
    assert!(!session.admits(&behind, now + 9 * S));
    assert!(session.admits(&behind, now + 10 * S));
    for (wall, alive) in [(epoch(29), true), (epoch(30), false), (epoch(1 << 30), false)] {
        let mut session = Session::new();
        session.wrote_for(token(1, 100), TOKEN_LIFE, wall, now);
        assert_eq!(session.token().is_some(), alive);
    }
    // Clocks that are apart: within a life it is new, further ahead it is nothing.
    for (ahead, alive) in [(S, true), (TOKEN_LIFE, true), (TOKEN_LIFE + MS, false)] {
        let token = Token::new(DB, 1, 100, epoch(0) + ahead);
        assert_eq!(token.remaining(TOKEN_LIFE, epoch(0)), alive.then_some(TOKEN_LIFE));
    }
    let forever = Token::new(DB, 1, 100, SystemTime::UNIX_EPOCH + Duration::MAX / 2_000);
    assert_eq!(forever.remaining(Duration::MAX, epoch(0)), Some(Duration::MAX));
    session.wrote_for(forever, Duration::MAX, epoch(0), now);
}

#[test]
fn two_writes_are_one_token() {
    let unplaced = Token::unplaced(epoch(0));
    for (one, other, both) in [
        (token(1, 5), token(1, 7), token(1, 7)),
        // What the higher timeline has not is lost to everybody.
        (token(1, 9), token(2, 7), token(2, 7)),
        (token(1, 5), Token::new(DB + 1, 1, 7, epoch(0)), unplaced),
        (token(1, 5), unplaced, unplaced),
        (unplaced, unplaced, unplaced),
    ] {
        assert_eq!(one.merge(other), both);
        assert_eq!(other.merge(one), both);
    }
    let later = Token::new(DB, 1, 5, epoch(9));
    assert_eq!(later.merge(token(1, 7)), Token::new(DB, 1, 7, epoch(9)));
}

#[tokio::test]
async fn the_later_write_is_the_one_that_is_waited_for() {
    pause();
    let start = Instant::now();
    let mut session = writer(token(1, 100), start);
    session.wrote_for(token(1, 90), TOKEN_LIFE, epoch(10), start + 10 * S);
    let at = |position| seen(1, position, None, start);
    assert!(!session.admits(&at(99), start + 10 * S) && session.admits(&at(100), start + 10 * S));
    // One that has expired is no part of the next.
    let mut session = writer(token(1, 100), start);
    let next = start + TOKEN_LIFE;
    session.wrote_for(Token::new(DB + 1, 9, 3, epoch(30)), TOKEN_LIFE, epoch(30), next);
    assert_eq!(session.token().map(|token| token.system()), Some(DB + 1));
}

#[test]
fn a_bound_counts_from_the_last_look() {
    let now = Instant::now();
    let session = Session::new().max_lag(S);
    assert!(session.has_needs());
    for (lag, age, expected) in [
        (Some(Duration::ZERO), Duration::ZERO, true),
        (Some(S), Duration::ZERO, true),
        (Some(S), MS, false),
        (Some(400 * MS), 600 * MS, true),
        (Some(400 * MS), 601 * MS, false),
        (Some(Duration::MAX), S, false),
        (None, Duration::ZERO, false),
    ] {
        let admitted = session.admits(&seen(1, 1, lag, now), now + age);
        assert_eq!(admitted, expected, "{lag:?} {age:?}");
    }
    assert!(!session.admits(&Freshness::default(), now));
}

#[test]
fn a_bound_counts_from_when_the_primary_was_known_to_have_no_more() {
    let now = Instant::now() + 100 * S;
    let session = Session::new().max_lag(S);
    // It had all that was known, by a look at the primary that is old by now.
    for (age, expected) in [(S, true), (S + MS, false)] {
        let seen = Observation::new(Role::Replica).lag(Some(Duration::ZERO), Some(0));
        let seen = seen.complete_until(Some(now - age)).freshness(now);
        assert_eq!(session.admits(&seen, now), expected, "{age:?}");
        assert!(session.may_come_to_admit(&seen, now, 50 * MS), "the next looks may tell");
    }
}

#[test]
fn both_needs_have_to_be_met() {
    let now = Instant::now();
    let session = writer(token(1, 100), now).max_lag(S);
    for (position, lag, expected) in
        [(100, MS, true), (99, MS, false), (100, 2 * S, false), (99, 2 * S, false)]
    {
        assert_eq!(session.admits(&seen(1, position, Some(lag), now), now), expected);
    }
    assert!(!Session::new().has_needs() && Session::new().admits(&Freshness::default(), now));
}

#[test]
fn a_wait_is_for_those_that_can_make_it_in_time() {
    let now = Instant::now() + 100 * S;
    let within = 50 * MS;
    let session = writer(token(1, 100), now);
    for (seen, expected) in [
        (seen(1, 99, Some(Duration::ZERO), now), true),
        (seen(1, 99, None, now), true),
        // The measured lag may be wrong by a quarter of a second.
        (seen(1, 99, Some(300 * MS), now), true),
        (seen(1, 99, Some(301 * MS), now), false),
        (seen(1, 99, Some(Duration::MAX), now), false),
        (seen(2, 99, Some(Duration::ZERO), now), false),
        (Freshness { system: 1, ..seen(1, 99, Some(Duration::ZERO), now) }, false),
        (Freshness::default(), false),
        // It is there already.
        (seen(1, 100, Some(Duration::MAX), now), true),
    ] {
        assert_eq!(session.may_come_to_admit(&seen, now, within), expected, "{seen:?}");
    }
    // An older write is nearer.
    let late = seen(1, 99, Some(2 * S), now);
    assert!(session.may_come_to_admit(&late, now + 2 * S, within));
    let bounded = Session::new().max_lag(S);
    for (lag, expected) in [(Some(1_300 * MS), true), (Some(1_301 * MS), false), (None, false)] {
        let seen = seen(1, 1, lag, now);
        assert_eq!(bounded.may_come_to_admit(&seen, now, within), expected, "{lag:?}");
    }
    assert!(!bounded.may_come_to_admit(&Freshness::default(), now, within));
}

proptest! {
    /// A replica is a prefix of one history. Whoever is admitted has every write of the session.
    #[test]
    fn whoever_is_admitted_has_every_write(
        writes in prop::collection::vec((1_u32..4, 0_u64..50), 1..6),
        replica in (1_u32..4, 0_u64..50),
    ) {
        let now = Instant::now();
        let mut session = Session::new();
        for &(timeline, position) in &writes {
            session.wrote_for(token(timeline, position), TOKEN_LIFE, epoch(0), now);
        }
        if session.admits(&seen(replica.0, replica.1, None, now), now) {
            let newest = writes.iter().map(|write| write.0).max().unwrap();
            prop_assert_eq!(replica.0, newest);
            let mine = writes.iter().filter(|write| write.0 == newest);
            prop_assert!(mine.max().unwrap().1 <= replica.1);
        }
    }
}

#[cfg(feature = "token")]
mod sealed {
    use super::*;

    fn keys(byte: u8) -> Keys {
        Keys::new(&[byte; 32]).unwrap()
    }

    fn open(keys: &Keys, text: &str) -> Result<Token, TokenError> {
        keys.open(text.as_bytes(), TOKEN_LIFE, epoch(0))
    }

    #[test]
    fn what_one_process_seals_another_opens_while_it_lives() {
        for token in
            [token(3, 0x16B_3748), Token::unplaced(epoch(0)), Token::new(0, 0, 0, epoch(0))]
        {
            let text = keys(1).seal(&token);
            assert_eq!(text.len(), TOKEN_TEXT_LEN);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            assert_eq!(open(&keys(1), &text), Ok(token));
            let bytes = text.as_bytes();
            let late = keys(1).open(bytes, TOKEN_LIFE, epoch(30));
            assert_eq!(late, Err(TokenError::Expired));
            let early = keys(1).open(bytes, TOKEN_LIFE, epoch(0) - 31 * S);
            assert_eq!(early, Err(TokenError::Expired));
        }
    }

    #[test]
    fn secrets_rotate() {
        let (old, new) = (keys(1), keys(2));
        let text = old.seal(&token(1, 1));
        assert_eq!(open(&new, &text), Err(TokenError::Forged));
        let first = old.clone().and(&[2; 32]).unwrap();
        assert_eq!(first.seal(&token(1, 1)), text, "the first secret seals");
        assert_eq!(open(&first, &new.seal(&token(1, 2))), Ok(token(1, 2)));
        let second = new.clone().and(&[1; 32]).unwrap();
        assert_eq!(open(&second, &text), Ok(token(1, 1)));
    }

    #[test]
    fn secrets_are_long_few_and_not_shown() {
        let error = Keys::new(b"swordfish").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"token secret is "9 bytes", but must have at least 32 bytes"#
        );
        let mut keys = keys(0x55);
        for byte in 2..=8 {
            keys = keys.and(&[byte; 32]).unwrap();
        }
        assert_eq!(format!("{keys:?}"), "Keys { count: 8, .. }");
        assert!(keys.and(&[9; 32]).is_err());
    }

    #[test]
    fn the_text_tells_nothing_of_the_position() {
        let base64 = |text: &str| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
        };
        let (one, next) = (keys(1).seal(&token(1, 100)), keys(1).seal(&token(1, 101)));
        let (one, next) = (base64(&one), base64(&next));
        // Each byte after the version agrees by chance alone: 8 of 42 do once in 10^12 tries.
        let same = one.iter().zip(&next).skip(1).filter(|(a, b)| a == b).count();
        assert!(same < 8, "{same} bytes");
        assert!(!one.windows(8).any(|bytes| bytes == DB.to_be_bytes()));
    }

    /// Another layout, or another way to derive, needs another version: old texts are still about.
    #[test]
    fn the_layout_stays() {
        let text = keys(1).seal(&token(3, 0x16B_3748));
        // By Python's hmac.
        assert_eq!(text, "Acpm76ya4vK-E_CWrQPMkOdQIZMYs5BBngZkpB_IBSpv0YtNlwi0XJLJjA");
    }

    proptest! {
        #[test]
        fn no_bytes_but_sealed_ones_are_opened(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(keys(1).open(&bytes, TOKEN_LIFE, epoch(0)).is_err());
        }

        #[test]
        fn no_text_of_the_right_form_is_opened(text in "AQ[A-Za-z0-9_-]{56}") {
            let error = open(&keys(1), &text).unwrap_err();
            prop_assert!(matches!(error, TokenError::Forged | TokenError::Malformed));
        }

        #[test]
        fn no_change_goes_unnoticed(at in 0..TOKEN_TEXT_LEN, byte in any::<u8>()) {
            let sealed = keys(1).seal(&token(1, 1));
            let mut text = sealed.clone().into_bytes();
            text[at] = byte;
            let changed = text != sealed.as_bytes();
            let opened = keys(1).open(&text, TOKEN_LIFE, epoch(0));
            prop_assert_eq!(opened.is_err(), changed);
        }

        #[test]
        fn every_token_comes_back(
            system in any::<u64>(), timeline in any::<u32>(), position in any::<u64>(),
        ) {
            let token = Token::new(system, timeline, position, epoch(0) + MS);
            prop_assert_eq!(open(&keys(1), &keys(1).seal(&token)), Ok(token));
        }
    }
}
