//! Texts that are places, and texts that are not.

use proptest::prelude::*;

use super::{Lsn, ParseLsnError};

#[test]
fn the_server_s_texts_are_read_and_written() {
    for (text, position) in [
        ("0/0", 0),
        ("0/1A2B3C4", 0x01A2_B3C4),
        ("16/B374D848", 0x0016_B374_D848),
        ("FFFFFFFF/FFFFFFFF", u64::MAX),
    ] {
        let lsn: Lsn = text.parse().unwrap();
        assert_eq!(lsn.position(), position);
        assert_eq!(lsn.to_string(), text);
    }
    // Lower case and leading zeros are allowed by PostgreSQL's own parser.
    assert_eq!("0/0000abcd".parse::<Lsn>().unwrap(), Lsn::new(0xABCD));
}

#[test]
fn other_texts_are_refused() {
    for text in [
        "",
        "/",
        "0/",
        "/0",
        "0",
        "+1/0",
        "0/-1",
        "0/1/2",
        " 0/1",
        "0/1 ",
        "0/G",
        "0/123456789",
        "000000001/0",
        "0/é",
        "0x1/0",
    ] {
        assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text:?}");
    }
}

#[test]
fn bytes_are_counted_forwards_only() {
    let (early, late) = (Lsn::new(100), Lsn::new(0x1_0000_0000));
    assert_eq!(late.bytes_since(early), 0x1_0000_0000 - 100);
    assert_eq!(early.bytes_since(late), 0);
}

proptest! {
    #[test]
    fn every_place_survives_its_text(position: u64) {
        let lsn = Lsn::new(position);
        prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }

    #[test]
    fn no_text_panics(text in ".{0,24}") {
        let _ = text.parse::<Lsn>();
    }
}
