//! Header fields that end at a proxy, and those that a proxy adds (RFC 9110, section 7.6). Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use super::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is meant for one connection, whether `Connection` names it or not.
static HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TRANSFER_ENCODING,
    TE,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What proxies say of a client, beside all of `X-Forwarded-`. Where nobody in front is believed,
/// nobody shall read it. `Proxy` is read as a setting by CGI (CVE-2016-5385). `Trailer` announces
/// fields that come after the body, where nobody looks at them; none are sent on.
const TOLD_BY_PROXIES: [&str; 26] = [
    "forwarded",
    "forwarded-for",
    "x-forwarded",
    "x-real-ip",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-envoy-external-address",
    "x-host",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "proxy",
    "trailer",
];

/// Whether a name is one of these, or looks like one to a server for which `_` and `-` are the same.
fn is_told_by_proxies(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // Most of the usual fields end here.
    if !matches!(name.first(), Some(b'x' | b'f' | b't' | b'c' | b'p')) {
        return false;
    }
    let begins = |known: &str| {
        let known = known.as_bytes();
        let same = |(&own, &known): (&u8, &u8)| own == known || own == b'_' && known == b'-';
        name.len() >= known.len() && name.iter().zip(known).all(same)
    };
    let is = |known: &&str| name.len() == known.len() && begins(known);
    begins("x-forwarded-") || TOLD_BY_PROXIES.iter().any(is)
}

/// Takes off what is meant for one connection: the fields known to be, and those that `Connection`
/// names.
///
/// A message framed by `Transfer-Encoding` loses its `Content-Length` too, which says nothing then
/// and would be believed once the other is gone (RFC 9112, section 6.3).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One look at each name costs less than one search for each of ours; most have none of them.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    if let Some(value) = headers.get(CONNECTION) {
        let usual = value == "keep-alive" || value == "close";
        if usual && headers.get_all(CONNECTION).iter().nth(1).is_none() {
            headers.remove(CONNECTION);
        } else {
            strip_named(headers);
        }
    }
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What `Connection` may not take off: who is asked, and where the message ends.
fn strip_named(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    headers.remove(CONNECTION);
    for name in values.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
        match HeaderName::from_bytes(name.trim_ascii()) {
            Ok(HOST | CONTENT_LENGTH | TRANSFER_ENCODING) | Err(_) => {}
            Ok(name) => drop(headers.remove(name)),
        }
    }
}

/// Brings the host that a request is for into `Host`: that of an absolute target wins (RFC 9112,
/// section 3.2.2), and HTTP/2 has it nowhere else. False if there is more than one.
pub(super) fn settle_host(headers: &mut HeaderMap, target: &Uri) -> bool {
    if let Some(authority) = target.authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let Ok(host) = HeaderValue::from_str(host) else { return false };
        headers.insert(HOST, host);
    }
    headers.get_all(HOST).iter().nth(1).is_none()
}

/// The protocol that a message asks to change to, if it is one of `allowed` and nothing else.
///
/// A list (`h2c, websocket`) is not followed: the two sides could choose differently.
pub(super) fn upgrade(headers: &HeaderMap, allowed: &[String]) -> Option<HeaderValue> {
    let named = headers.get_all(CONNECTION).iter().any(|value| {
        let mut members = value.as_bytes().split(|&byte| byte == b',');
        members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    if !named {
        return None;
    }
    let mut values = headers.get_all(UPGRADE).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let is = |name: &String| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    allowed.iter().any(is).then(|| value.clone())
}

/// Makes a message ask for, or agree to, another protocol.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The other end of the connection that a request came on, as the server has seen it. Put it into the
/// request's extensions, for [`ReverseProxy`](super::ReverseProxy).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether the connection was encrypted.
    pub https: bool,
}

/// Which fields tell a node whom the request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Introduction<'a> {
    pub(super) trusted: &'a [Network],
    pub(super) forwarded: bool,
    pub(super) via: Option<&'a str>,
}

/// Adds what a node should know: from whom the request came, and through whom.
///
/// A peer among `trusted` is a proxy whose own words are kept and added to; of anybody else, they
/// are replaced, for a client could say there what it likes.
pub(super) fn introduce(
    headers: &mut HeaderMap,
    version: Version,
    peer: Option<Peer>,
    with: Introduction<'_>,
) {
    // Fulfilled here: hyper sends the 100 when the node asks for the body.
    headers.remove(EXPECT);
    let is_trusted = |peer: &Peer| with.trusted.iter().any(|net| net.contains(peer.address));
    let believed = peer.as_ref().is_some_and(is_trusted);
    if !believed && headers.keys().any(is_told_by_proxies) {
        let told = headers.keys().filter(|name| is_told_by_proxies(name));
        for name in told.cloned().collect::<Vec<HeaderName>>() {
            headers.remove(name);
        }
    }
    let https = peer.is_some_and(|peer| peer.https);
    let proto = HeaderValue::from_static(if https { "https" } else { "http" });
    let host = headers.get(HOST).cloned();
    if let Some(Peer { address, .. }) = peer {
        append(headers, X_FORWARDED_FOR, &text(address.to_canonical()));
        if with.forwarded {
            append(headers, FORWARDED, &element(address, host.as_ref(), https));
        }
    }
    if !believed || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, proto);
    }
    if let Some(host) = host
        && (!believed || !headers.contains_key(X_FORWARDED_HOST))
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if let Some(name) = with.via {
        via(headers, version, name);
    }
}

/// An address as text. That of every request, so that the usual kind is written digit by digit: the
/// standard library's formatting takes several times as long.
fn text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

/// One element of `Forwarded` (RFC 7239): an IPv6 address in brackets and quotes, a host quoted.
fn element(address: IpAddr, host: Option<&HeaderValue>, https: bool) -> String {
    let mut element = match address.to_canonical() {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    let quotable = |host: &&str| !host.contains(['"', '\\']);
    if let Some(host) = host.and_then(|host| host.to_str().ok()).filter(quotable) {
        let _ = write!(element, ";host=\"{host}\"");
    }
    element.push_str(if https { ";proto=https" } else { ";proto=http" });
    element
}

/// Adds this proxy to the ones a message came through; `version` is that of the message received.
pub(super) fn via(headers: &mut HeaderMap, version: Version, name: &str) {
    let version = if version == Version::HTTP_10 { "1.0" } else { "1.1" };
    append(headers, VIA, &format!("{version} {name}"));
}

/// As a further member of a list, in one line: not every reader joins lines.
fn append(headers: &mut HeaderMap, name: HeaderName, member: &str) {
    let name = match headers.entry(name) {
        Entry::Occupied(entry) => entry.key().clone(),
        Entry::Vacant(entry) => {
            if let Ok(value) = HeaderValue::from_str(member) {
                entry.insert(value);
            }
            return;
        }
    };
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(member.as_bytes());
    // Each part was a value or is ASCII, so the list is one.
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

/// The client's own address: the peer's, or, of a peer that is believed, the last one in
/// `X-Forwarded-For` that is not a believed proxy's.
///
/// Read from the right, since only what believed proxies have appended can be. An entry that is no
/// address ends the search at the proxy that passed it on.
#[must_use]
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[Network]) -> IpAddr {
    let believed = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    if trusted.is_empty() || !believed(client) {
        return client;
    }
    let lines: Vec<&HeaderValue> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    let members = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    for member in members {
        let text = std::str::from_utf8(member.trim_ascii()).ok();
        let Some(address) = text.and_then(|text| text.parse::<IpAddr>().ok()) else { break };
        client = address.to_canonical();
        if !believed(client) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests;
