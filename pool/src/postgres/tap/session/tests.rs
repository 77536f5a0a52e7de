//! Conversations as they pass, each byte string a run of message types.

use proptest::prelude::*;

use super::*;

/// One message each: from the client (`>`) or the server (`<`).
fn play(session: &mut Session, script: &str) {
    for word in script.split_whitespace() {
        let (direction, kinds) = word.split_at(1);
        for kind in kinds.bytes() {
            // No transaction is open, except where a test says so by itself.
            let body: &[u8] = if direction == "<" && kind == b'Z' { b"I" } else { b"" };
            let bytes = message(kind, body);
            if direction == ">" { session.sent(&bytes) } else { session.received(&bytes) }
        }
    }
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as i32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A session after its handshake.
fn started() -> Session {
    let mut session = Session::new();
    session.sent(b"\0\0\0\x08\0\x03\0\0");
    assert!(session.state().is_busy(), "the handshake is a request");
    play(&mut session, "<RSK");
    session.received(&message(b'Z', b"I"));
    assert_eq!(session.state(), State::default());
    session
}

fn after(script: &str) -> State {
    let mut session = started();
    play(&mut session, script);
    session.state()
}

const QUIET: State = State {
    outstanding: 0,
    status: TransactionStatus::Idle,
    copying: false,
    stuck: false,
    doubtful: false,
    lost: false,
    closed: false,
    in_hot_standby: None,
    default_read_only: None,
};
const OWES: State = State { outstanding: 1, ..QUIET };
const DOUBTFUL: State = State { doubtful: true, ..QUIET };
const COPIES: State = State { copying: true, ..QUIET };

#[test]
fn the_server_tells_its_process_once_however_it_arrives() {
    let key = [1234_i32.to_be_bytes(), [9; 4]].concat();
    for size in [1, 3, 100] {
        let mut session = Session::new();
        session.sent(b"\0\0\0\x08\0\x03\0\0");
        assert_eq!(session.backend(), None);
        message(b'K', &key).chunks(size).for_each(|bytes| session.received(bytes));
        assert_eq!(session.backend(), Some(1234));
    }
}

#[test]
fn each_request_is_owed_one_answer() {
    for (script, state) in [
        ("", QUIET),
        (">PDS", OWES),
        (">PDS <1tnZ", QUIET),
        (">Q <CCC", OWES),
        (">Q <CZ", QUIET),
        (">BES >BES >Q", State { outstanding: 3, ..QUIET }),
        (">BES >BES >Q <2DCZ <N <2A", State { outstanding: 2, ..QUIET }),
        (">F <VZ", QUIET),
        // An error in one request of several.
        (">BES >BES <EZ <2CZ", QUIET),
        // COPY to the client.
        (">BES <2HdddcC", OWES),
        (">BES <2HdddcCZ", QUIET),
        // Nobody asked.
        ("<Z", State { lost: true, ..QUIET }),
        (">S <ZZ", State { lost: true, ..QUIET }),
        // Replication.
        (">Q <W", State { lost: true, ..OWES }),
    ] {
        assert_eq!(after(script), state, "{script}");
    }
}

#[test]
fn a_copy_from_the_client_is_owed_one_answer_for_two_syncs() {
    for (script, state) in [
        (">BES <2", OWES),
        (">BES <2G", COPIES),
        (">BES <2G >dd", COPIES),
        (">BES <2G >ddcS", State { outstanding: 1, ..COPIES }),
        (">BES <2G >ddcS <C", OWES),
        (">BES <2G >ddcS <CZ", QUIET),
        // A request that the driver writes behind it, and one that was ahead of it.
        (">BES <2G >dcS >BES <CZ", OWES),
        (">BES <2G >dcS >BES <CZ <2CZ", QUIET),
        (">Q >BES <CZ <2G", COPIES),
        // Given up by the client: the sink was dropped.
        (">BES <2G >dfS <EZ", DOUBTFUL),
        (">BES <2G >dfS >Q <EZ", State { outstanding: 1, ..DOUBTFUL }),
        (">BES <2G >dfS >Q <EZ <IZ", QUIET),
        // Refused by the server in the middle, before and after the client ended it.
        (">BES <2G >d <E", COPIES),
        (">BES <2G >d <E >fS", State { outstanding: 1, ..COPIES }),
        (">BES <2G >d <E >dcS <Z", DOUBTFUL),
        (">BES <2G >d <E >dcS <Z >BES <2CZ", QUIET),
    ] {
        assert_eq!(after(script), state, "{script}");
    }
}

/// The driver expects one answer to a COPY. Where the server gives two, the next caller would get
/// the second.
#[test]
fn a_copy_that_is_answered_twice_loses_the_session() {
    for script in [
        // It failed between its beginning and the first look at the data.
        ">BES <2G >dcS <EZZ",
        ">BES <2G >dcS >Q <EZZ",
        // The end of a COPY that there is not.
        ">c",
        ">BES <2CZ >fS",
        ">BES <2G >dc >c",
    ] {
        assert!(after(script).lost, "{script}");
    }
    assert!(!after(">BES <2G >dcS >Q <EZ").lost, "not yet known");
}

#[test]
fn the_end_of_a_copy_passes_when_somebody_reads_it() {
    let end = b"f\0\0\0\x05\0S\0\0\0\x04Q\0\0\0\x04";
    let done = b"c\0\0\0\x04S\0\0\0\x04";
    for (script, passage) in [
        (">BES", Passage::Hold),
        (">BES <2", Passage::Hold),
        (">Q >BES <E", Passage::Hold),
        (">Q >BES <EZ", Passage::Hold),
        (">BES <2G", Passage::Write(11)),
        (">BES <2GE", Passage::Write(11)),
        (">BES <2E", Passage::Drop(11)),
        (">BES <EZ", Passage::Drop(11)),
        (">Q >BES <CZ <2EZ", Passage::Drop(11)),
        (">BES <2GEZ", Passage::Drop(11)),
    ] {
        let mut session = started();
        play(&mut session, script);
        assert_eq!(session.passage(end), passage, "{script}");
        if passage == Passage::Drop(11) {
            assert_eq!(session.passage(done), Passage::Drop(10), "{script}");
        }
        // What stands before it passes first, and the same bytes in a message are none.
        assert_eq!(
            session.passage(&[&message(b'd', b"row"), &end[..]].concat()),
            Passage::Write(8)
        );
        let hidden = message(b'd', end);
        assert_eq!(session.passage(&hidden), Passage::Write(hidden.len()));
        for cut in 1..hidden.len() {
            let mut session = session.clone();
            session.sent(&hidden[..cut]);
            let rest = hidden.len() - cut;
            assert_eq!(session.passage(&hidden[cut..]), Passage::Write(rest), "{cut}");
            let both = [&hidden[cut..], end].concat();
            assert_eq!(session.passage(&both), Passage::Write(rest), "{cut}");
        }
    }
}

#[test]
fn a_copy_in_a_simple_query_leaves_the_session_stuck() {
    let stuck = State { outstanding: 1, stuck: true, ..COPIES };
    assert_eq!(after(">Q <G"), stuck);
    // A Sync is dropped by the server.
    assert_eq!(after(">Q <G >S"), stuck);
    assert_eq!(after(">Q <G >dc <C"), OWES);
    assert_eq!(after(">Q <G >dc <CZ"), QUIET);
    assert_eq!(after(">Q <G >f <EZ"), QUIET, "nothing was dropped, so nothing is doubtful");
}

#[test]
fn status_and_parameters_are_those_of_the_last_message() {
    let mut session = started();
    for (byte, status) in [
        (b"T", TransactionStatus::Active),
        (b"E", TransactionStatus::Failed),
        (b"I", TransactionStatus::Idle),
    ] {
        play(&mut session, ">Q <C");
        session.received(&message(b'Z', byte));
        assert_eq!(session.state(), State { status, ..QUIET });
    }
    for (name, value) in [
        ("in_hot_standby", "on"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_read_only", "off"),
        ("server_version", "15.18 with a name that is far longer than anything that is kept"),
    ] {
        session.received(&message(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    let (standby, read_only) = (Some(true), Some(false));
    let known = State { in_hot_standby: standby, default_read_only: read_only, ..QUIET };
    assert_eq!(session.state(), known);
    session.received(&message(b'Z', b"?"));
    assert!(session.state().lost);
}

proptest! {
    #[test]
    fn bytes_may_arrive_in_any_pieces(
        script in prop::sample::select(vec![
            ">PDS <1tnZ >BES <2DDDCZ",
            ">BES <2G >ddcS >Q <CZ <DCZ",
            ">BES <2G >fS <EZ >Q <IZ",
        ]),
        cuts in prop::collection::vec(1_usize..7, 1..40),
    ) {
        let mut whole = started();
        play(&mut whole, script);
        let mut split = started();
        for word in script.split_whitespace() {
            let (direction, kinds) = word.split_at(1);
            let bytes: Vec<u8> = kinds
                .bytes()
                .flat_map(|kind| message(kind, if kind == b'Z' { b"I" } else { b"body" }))
                .collect();
            let (mut rest, mut sizes) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let size = rest.len().min(*sizes.next().unwrap());
                let piece;
                (piece, rest) = rest.split_at(size);
                if direction == ">" { split.sent(piece) } else { split.received(piece) }
            }
        }
        prop_assert_eq!(split.state(), whole.state());
        prop_assert_eq!(split.answered(), whole.answered());
    }

    #[test]
    fn hostile_bytes_do_no_harm(
        turns in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..64)), 0..64),
    ) {
        let mut session = Session::new();
        for (client, bytes) in &turns {
            if *client { session.sent(bytes) } else { session.received(bytes) }
        }
        let answered = session.answered();
        session.received(&[]);
        prop_assert_eq!(session.answered(), answered);
    }
}
