//! What is taken off and what is told, by example.

use super::*;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn peer(address: &str, https: bool) -> Option<Peer> {
    Some(Peer { address: address.parse().unwrap(), https })
}

#[test]
fn what_is_meant_for_one_connection_is_taken_off() {
    let mut given = headers(&[
        ("connection", "close, x-one"),
        ("connection", "X-Two ,,\t, host, content-length, no such"),
        ("host", "a"),
        ("content-length", "3"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("proxy-authenticate", "Basic"),
    ]);
    strip_hop_by_hop(&mut given);
    let left = headers(&[
        ("host", "a"),
        ("content-length", "3"),
        ("x-three", "3"),
        ("proxy-authenticate", "Basic"),
    ]);
    assert_eq!(given, left);
}

#[test]
fn a_length_beside_a_transfer_encoding_is_taken_off_with_it() {
    for connection in ["transfer-encoding", "content-length", "close"] {
        let mut given = headers(&[
            ("connection", connection),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
        ]);
        strip_hop_by_hop(&mut given);
        assert_eq!(given, HeaderMap::new(), "{connection}");
    }
    let mut given = headers(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
    strip_hop_by_hop(&mut given);
    assert_eq!(given, HeaderMap::new());
}

#[test]
fn of_a_stranger_nothing_is_believed() {
    let mut given = headers(&[
        ("host", "shop.example"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/evil"),
        ("x-real-ip", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-ssl", "on"),
        ("x_forwarded_for", "192.0.2.1"),
        ("x-forwarded_scheme", "https"),
        ("x-client-ip", "192.0.2.1"),
        ("client-ip", "192.0.2.1"),
        ("client_ip", "192.0.2.1"),
        ("x-forwarded", "for=192.0.2.1"),
        ("cf-connecting-ipv6", "::1"),
        ("front-end-https", "on"),
        ("true-client-ip", "192.0.2.1"),
        ("true_client_ip", "192.0.2.1"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("proxy", "http://evil.example"),
        ("trailer", "x-forwarded-for"),
        ("expect", "100-continue"),
    ]);
    let with = Introduction { trusted: &[], forwarded: true, via: Some("gate") };
    introduce(&mut given, Version::HTTP_10, peer("::ffff:192.0.2.2", false), with);
    let told = headers(&[
        ("host", "shop.example"),
        ("x-forwarded-for", "192.0.2.2"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=192.0.2.2;host=\"shop.example\";proto=http"),
        ("via", "1.0 gate"),
    ]);
    assert_eq!(given, told);
}

#[test]
fn of_a_known_proxy_the_words_are_kept_and_added_to() {
    let mut given = headers(&[
        ("host", "shop.example"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-for", "192.0.2.2"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=192.0.2.1"),
    ]);
    let trusted = ["fd00::/8".parse().unwrap()];
    let with = Introduction { trusted: &trusted, forwarded: true, via: None };
    introduce(&mut given, Version::HTTP_11, peer("fd00::1", false), with);
    let told = headers(&[
        ("host", "shop.example"),
        ("x-forwarded-for", "192.0.2.1, 192.0.2.2, fd00::1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("forwarded", "for=192.0.2.1, for=\"[fd00::1]\";host=\"shop.example\";proto=http"),
    ]);
    assert_eq!(given, told);
}

#[test]
fn an_upgrade_is_followed_only_to_one_protocol_that_is_allowed() {
    let allowed = ["websocket".to_owned()];
    for (connection, protocol, followed) in [
        ("Upgrade", "websocket", true),
        ("keep-alive, upgrade", "WebSocket", true),
        ("keep-alive", "websocket", false),
        ("upgrade", "h2c", false),
        ("upgrade", "h2c, websocket", false),
        ("upgrade", "", false),
    ] {
        let given = headers(&[("connection", connection), ("upgrade", protocol)]);
        assert_eq!(upgrade(&given, &allowed).is_some(), followed, "{connection}: {protocol}");
    }
    let twice = headers(&[("connection", "upgrade"), ("upgrade", "h2c"), ("upgrade", "websocket")]);
    assert_eq!(upgrade(&twice, &allowed), None);
}

#[test]
fn the_client_is_the_last_address_that_no_known_proxy_has() {
    let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
    for (peer, line, client) in [
        ("192.0.2.9", "203.0.113.1", "192.0.2.9"),
        ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.1, 10.0.0.2", "203.0.113.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
    ] {
        let given = headers(&[("x-forwarded-for", line)]);
        let found = client_address(&given, peer.parse().unwrap(), &trusted);
        assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer}: {line}");
    }
}

#[test]
fn a_request_has_one_host_and_that_of_its_target_wins() {
    for (target, given, host) in [
        ("/", &["a"][..], Some("a")),
        ("/", &[], None),
        ("http://b:80/", &["a"], Some("b:80")),
        ("http://u:p@b/", &["a", "c"], Some("b")),
    ] {
        let lines: Vec<(&'static str, &str)> = given.iter().map(|&host| ("host", host)).collect();
        let mut given = headers(&lines);
        assert!(settle_host(&mut given, &target.parse().unwrap()), "{target}");
        let found = given.get(HOST).map(|host| host.to_str().unwrap());
        assert_eq!(found, host, "{target}");
    }
    let mut twice = headers(&[("host", "a"), ("host", "a")]);
    assert!(!settle_host(&mut twice, &Uri::from_static("/")));
}

#[test]
fn an_address_is_written_as_everybody_writes_it() {
    for octet in 0..=u8::MAX {
        let address = IpAddr::from([octet, 0, 255 - octet, octet]);
        assert_eq!(text(address), address.to_string());
    }
    assert_eq!(text("2001:db8::1".parse().unwrap()), "2001:db8::1");
}
