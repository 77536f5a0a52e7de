//! Which address counts, by table: true chains, spoofed ones, and what is no address at all.

use http::header::HeaderName;
use proptest::prelude::*;

use super::*;

const PROXY: &str = "10.0.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn client(header: ForwardedBy) -> ClientIp {
    ClientIp::default()
        .header(header)
        .trust("10.0.0.0/8".parse().expect("a network"))
        .trust("fd00::/8".parse().expect("a network"))
}

fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let value = HeaderValue::from_bytes(line.as_bytes()).expect("a value");
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

#[test]
fn x_forwarded_for_is_read_from_its_end_as_far_as_it_is_ours() {
    let client = client(ForwardedBy::XForwardedFor);
    for (lines, expected) in [
        // As proxies write it.
        (&["203.0.113.7"][..], "203.0.113.7"),
        (&["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (&["203.0.113.7,10.0.0.2 ,\t10.1.2.3"], "203.0.113.7"),
        (&["2001:db8::7"], "2001:db8::7"),
        (&["2001:db8::7, fd00::1"], "2001:db8::7"),
        // Several lines are one list.
        (&["203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        (&["6.6.6.6", "203.0.113.7, 10.0.0.2", "10.0.0.3"], "203.0.113.7"),
        // With ports, brackets, zones, and IPv4 in IPv6 clothes.
        (&["203.0.113.7:4711"], "203.0.113.7"),
        (&["[2001:db8::7]:4711"], "2001:db8::7"),
        (&["[2001:db8::7]"], "2001:db8::7"),
        (&["fe80::1%eth0"], "fe80::1"),
        (&["[fe80::1%25eth0]:80"], "fe80::1"),
        (&["::ffff:203.0.113.7"], "203.0.113.7"),
        (&["203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7"),
        // What the client has made up stands further left. tower_governor 0.8 takes the leftmost.
        (&["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        (&["10.0.0.9, 203.0.113.7"], "203.0.113.7"),
        (&["6.6.6.6, 10.0.0.9, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (&["\u{fe}\u{ff} nonsense, 203.0.113.7"], "203.0.113.7"),
        (&["nonsense", "203.0.113.7"], "203.0.113.7"),
        (&[",,, 203.0.113.7"], "203.0.113.7"),
        // Nothing but proxies: the first of them is as far as anybody knows.
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (&[], PROXY),
        (&[""], PROXY),
        (&[" , "], PROXY),
        // What is no address ends the search. axum-governor 2.1 skips it, and takes what the client
        // has put to the left.
        (&["6.6.6.6, unknown"], PROXY),
        // So does nothing, as a proxy writes it whose variable is not set.
        (&["6.6.6.6, "], PROXY),
        (&["6.6.6.6, ,"], PROXY),
        (&["6.6.6.6,, 10.0.0.2"], "10.0.0.2"),
        (&["6.6.6.6", ""], PROXY),
        (&["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
        (&["6.6.6.6, 203.0.113.7:port"], PROXY),
        (&["6.6.6.6, 203.0.113.7:+80"], PROXY),
        (&["6.6.6.6, 203.0.113.7:99999"], PROXY),
        (&["6.6.6.6, 203.0.113.7:"], PROXY),
        (&["6.6.6.6, [2001:db8::7]x"], PROXY),
        (&["6.6.6.6, [2001:db8::7"], PROXY),
        (&["6.6.6.6, [203.0.113.7]"], PROXY),
        (&["6.6.6.6, 203.0.113"], PROXY),
        (&["6.6.6.6, 203.0.113.007"], PROXY),
        (&["6.6.6.6, \"203.0.113.7\""], PROXY),
        (&["6.6.6.6; 203.0.113.7"], PROXY),
    ] {
        let headers = headers("x-forwarded-for", lines);
        assert_eq!(client.resolve(ip(PROXY), &headers), ip(expected), "{lines:?}");
    }
}

#[test]
fn forwarded_is_read_from_its_end_as_far_as_it_is_ours() {
    let client = client(ForwardedBy::Forwarded);
    for (lines, expected) in [
        (&["for=203.0.113.7"][..], "203.0.113.7"),
        (&["For=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7"),
        (&["proto=https; for=203.0.113.7 ;host=example.org"], "203.0.113.7"),
        (&["for=\"203.0.113.7:4711\", for=10.0.0.2"], "203.0.113.7"),
        (&["for=\"[2001:db8::7]:4711\""], "2001:db8::7"),
        (&["for=\"[2001:db8::7]\", for=\"[fd00::1]\""], "2001:db8::7"),
        (&["for=203.0.113.7", "for=10.0.0.2"], "203.0.113.7"),
        // Made up by the client. axum-governor 2.1 takes the leftmost here.
        (&["for=6.6.6.6, for=203.0.113.7"], "203.0.113.7"),
        // An open quote of the client's does not swallow what the proxy has appended.
        (&["for=\", for=203.0.113.7"], "203.0.113.7"),
        (&["for=\"6.6.6.6, for=203.0.113.7"], "203.0.113.7"),
        // Nor does the client's Host that the proxy has put into quotes end the element, or begin
        // another.
        (&["for=203.0.113.7;host=\"a,for=6.6.6.6;x=\""], "203.0.113.7"),
        (&["for=203.0.113.7;host=\"a,for=6.6.6.6;x=\";proto=https"], "203.0.113.7"),
        (&["host=\"a,b\";for=203.0.113.7"], "203.0.113.7"),
        (&["for=203.0.113.7;host=\"a;for=6.6.6.6\""], "203.0.113.7"),
        (&["for=203.0.113.7;host=\"a\\\",for=6.6.6.6\""], "203.0.113.7"),
        (&["for=203.0.113.7;host=\"a,for=6.6.6.6;x=\\\\\""], "203.0.113.7"),
        (&["for=\"6.6.6.6, for=203.0.113.7;host=\"a,b\", for=10.0.0.2"], "203.0.113.7"),
        // No address ends the search.
        (&["for=6.6.6.6, "], PROXY),
        (&["for=6.6.6.6, host=\"a\\\";for=203.0.113.7"], PROXY),
        (&["for=6.6.6.6, for=unknown"], PROXY),
        (&["for=6.6.6.6, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        (&["for=6.6.6.6, proto=https"], PROXY),
        (&["for=6.6.6.6, for=203.0.113.7;for=6.6.6.6"], PROXY),
        (&["for=6.6.6.6, for=\"203.0.113.7"], PROXY),
        (&["for=6.6.6.6, for"], PROXY),
        (&["for=6.6.6.6, 203.0.113.7"], PROXY),
        (&[], PROXY),
    ] {
        let headers = headers("forwarded", lines);
        assert_eq!(client.resolve(ip(PROXY), &headers), ip(expected), "{lines:?}");
    }
}

#[test]
fn x_real_ip_is_a_single_address() {
    let client = client(ForwardedBy::XRealIp);
    for (lines, expected) in [
        (&["203.0.113.7"][..], "203.0.113.7"),
        (&["2001:db8::7"], "2001:db8::7"),
        (&["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        (&["6.6.6.6, 203.0.113.7"], PROXY),
        (&["unknown"], PROXY),
        (&[], PROXY),
    ] {
        let headers = headers("x-real-ip", lines);
        assert_eq!(client.resolve(ip(PROXY), &headers), ip(expected), "{lines:?}");
    }
}

#[test]
fn who_is_not_trusted_is_the_client_whatever_he_says() {
    let mut all = headers("x-forwarded-for", &["6.6.6.6"]);
    all.extend(headers("forwarded", &["for=6.6.6.6"]));
    all.extend(headers("x-real-ip", &["6.6.6.6"]));
    for header in [ForwardedBy::XForwardedFor, ForwardedBy::Forwarded, ForwardedBy::XRealIp] {
        let client = client(header);
        assert_eq!(client.resolve(ip("203.0.113.7"), &all), ip("203.0.113.7"));
        assert_eq!(client.resolve(ip("::ffff:10.0.0.1"), &all), ip("6.6.6.6"));
        let nobody = ClientIp::default().header(header);
        assert_eq!(nobody.resolve(ip(PROXY), &all), ip(PROXY));
    }
}

#[test]
fn networks_of_ipv4_in_ipv6_clothes_are_those_of_ipv4() {
    let headers = headers("x-forwarded-for", &["203.0.113.7"]);
    for (network, peer, trusted) in [
        ("::ffff:10.0.0.0/104", PROXY, true),
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.1", true),
        ("::ffff:10.0.0.0/104", "11.0.0.1", false),
        // All of IPv6 is not all of IPv4.
        ("::/0", PROXY, false),
        ("::/0", "2001:db8::1", true),
    ] {
        let client = ClientIp::default().trust(network.parse().expect("a network"));
        let believed = client.resolve(ip(peer), &headers) == ip("203.0.113.7");
        assert_eq!(believed, trusted, "{network} {peer}");
    }
}

#[test]
fn a_prefix_that_no_address_has_is_refused() {
    for (bits, valid) in [(0, false), (1, true), (64, true), (128, true), (129, false)] {
        let checked = ClientIp::default().ipv6_prefix(bits).validate();
        assert_eq!(checked.is_ok(), valid, "{bits}");
    }
}

#[test]
fn headers_other_than_the_chosen_one_are_not_looked_at() {
    let client = client(ForwardedBy::Forwarded);
    let headers = headers("x-forwarded-for", &["6.6.6.6"]);
    assert_eq!(client.resolve(ip(PROXY), &headers), ip(PROXY));
}

#[test]
fn ipv6_counts_by_its_network_and_ipv4_by_itself() {
    let client = ClientIp::default();
    assert_eq!(client.network(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
    assert_eq!(client.network(ip("203.0.113.7")), ip("203.0.113.7"));
    assert_eq!(client.network(ip("::ffff:203.0.113.7")), ip("203.0.113.7"));
    let wide = ClientIp::default().ipv6_prefix(56);
    assert_eq!(wide.network(ip("2001:db8:1:2ff::1")), ip("2001:db8:1:200::"));
    assert_eq!(wide.ipv6_prefix(0).network(ip("2001:db8::1")), ip("::"));
    for all in [128, 255] {
        let exact = ClientIp::default().ipv6_prefix(all);
        assert_eq!(exact.network(ip("2001:db8::1")), ip("2001:db8::1"));
    }
}

proptest! {
    // A proxy appends the client's address to whatever the client has sent.
    #[test]
    fn nothing_a_client_sends_changes_who_it_is(
        sent in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(
                    prop_oneof![Just(b'\t'), 0x20..0x7f_u8, 0x80..=0xff_u8],
                    0..40,
                ),
                Just(b"10.0.0.5, 10.0.0.6".to_vec()),
                Just(b"for=10.0.0.5, for=\"".to_vec()),
            ],
            0..4,
        ),
        appended in any::<bool>(),
        which in 0..3_usize,
        host in "[-a-z0-9.:,;=\"\\\\]{0,30}",
    ) {
        // The client's as well, but within quotes of the proxy's.
        let host = host.replace('\\', "\\\\").replace('"', "\\\"");
        let (name, header, truth) = vec![
            ("x-forwarded-for", ForwardedBy::XForwardedFor, "203.0.113.7".to_owned()),
            ("forwarded", ForwardedBy::Forwarded, format!("for=203.0.113.7;host=\"{host}\"")),
            ("forwarded", ForwardedBy::Forwarded, format!("host=\"{host}\";for=203.0.113.7")),
        ].swap_remove(which);
        let mut lines = sent;
        match lines.last_mut() {
            Some(last) if appended => {
                last.extend_from_slice(b", ");
                last.extend_from_slice(truth.as_bytes());
            }
            _ => lines.push(truth.as_bytes().to_vec()),
        }
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(&line).expect("no control characters");
            headers.append(HeaderName::from_static(name), value);
        }
        prop_assert_eq!(client(header).resolve(ip(PROXY), &headers), ip("203.0.113.7"));
    }
}

#[cfg(feature = "serde")]
#[test]
fn it_reads_from_a_file() {
    let text = r#"{"trusted":["10.0.0.0/8","fd00::/8"],"header":"forwarded"}"#;
    let read: ClientIp = serde_json::from_str(text).expect("valid");
    assert_eq!(read, client(ForwardedBy::Forwarded));
    assert!(serde_json::from_str::<ClientIp>(r#"{"trust":[]}"#).is_err());
}
