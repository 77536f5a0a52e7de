//! The client's address behind proxies: nobody is believed who is not trusted.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::header::{FORWARDED, GetAll, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::ConfigError;

/// How to find out who a request comes from.
///
/// Each proxy appends the address it was called from to a header. So the header is read from its
/// end: as long as an address belongs to a proxy of ours, what that proxy has written is true, and
/// the first address that does not is the client's. What stands further left was sent by the client
/// and can be anything. Where a proxy has written what is no address (`unknown`, a name, nothing at
/// all), the search ends and the proxy counts as the client.
///
/// Without a trusted proxy, which is the default, the client is who the connection comes from.
///
/// ```
/// use escala_cluster::ClientIp;
///
/// let client = ClientIp::default().trust("10.0.0.0/8".parse()?);
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.0.0.2".parse()?);
/// let address = client.resolve("10.0.0.1".parse()?, &headers);
/// assert_eq!(address, "203.0.113.7".parse::<std::net::IpAddr>()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ClientIp {
    /// The networks of our own proxies. None: a header that anybody can send is not believed until
    /// you say who writes it.
    pub trusted: Vec<IpNet>,
    /// The header they write. `X-Forwarded-For`, which most do. One only: a proxy passes the others
    /// on as the client has sent them.
    pub header: ForwardedBy,
    /// The bits of an IPv6 address by which clients are told apart, 1 to 128. 64, since whoever
    /// has one address of such a network has all of them; 56 where providers give those to homes.
    pub ipv6_prefix: u8,
}

/// A header in which proxies write where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ForwardedBy {
    /// `X-Forwarded-For`, a list.
    #[default]
    XForwardedFor,
    /// `Forwarded`, a list (RFC 7239).
    Forwarded,
    /// `X-Real-IP`, a single address: that of whoever called the proxy.
    XRealIp,
}

impl Default for ClientIp {
    fn default() -> Self {
        Self { trusted: Vec::new(), header: ForwardedBy::default(), ipv6_prefix: 64 }
    }
}

impl ClientIp {
    /// Adds a network to [`trusted`](Self#structfield.trusted).
    #[must_use]
    pub fn trust(mut self, network: IpNet) -> Self {
        self.trusted.push(network);
        self
    }

    /// Sets [`header`](Self#structfield.header).
    #[must_use]
    pub fn header(mut self, header: ForwardedBy) -> Self {
        self.header = header;
        self
    }

    /// Sets [`ipv6_prefix`](Self#structfield.ipv6_prefix).
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if (1..=128).contains(&self.ipv6_prefix) {
            return Ok(());
        }
        let rule = "be between 1 and 128";
        Err(ConfigError::new("ipv6_prefix", &self.ipv6_prefix, rule))
    }

    /// The client's address. `peer` is where the connection comes from.
    #[must_use]
    #[inline]
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if self.trusts(peer) { self.behind(peer, headers) } else { peer }
    }

    /// The client's address, as a proxy of ours tells it.
    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        match self.header {
            ForwardedBy::XForwardedFor => {
                let lines = headers.get_all(HeaderName::from_static("x-forwarded-for"));
                self.walk(peer, &lines, address)
            }
            ForwardedBy::Forwarded => self.walk(peer, &headers.get_all(FORWARDED), forwarded_for),
            ForwardedBy::XRealIp => {
                let name = HeaderName::from_static("x-real-ip");
                // The last: the proxy may have added it to one of the client's.
                let value = headers.get_all(name).iter().next_back();
                let value = value.and_then(|value| value.to_str().ok());
                value.and_then(address).unwrap_or(peer)
            }
        }
    }

    /// What clients are told apart by: the address, of IPv6 its network.
    #[must_use]
    #[inline]
    pub fn network(&self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let host_bits = 128_u32.saturating_sub(u32::from(self.ipv6_prefix));
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        }
    }

    /// From the right, as far as those who have written it are trusted.
    fn walk(
        &self,
        peer: IpAddr,
        lines: &GetAll<'_, HeaderValue>,
        read: fn(&str) -> Option<IpAddr>,
    ) -> IpAddr {
        let mut client = peer;
        // Several lines are one list, in their order.
        for line in lines.iter().rev() {
            // Hop by hop: what a client has put further left may be no text at all.
            let mut rest = Some(line.as_bytes());
            while let Some(list) = rest {
                let Some((others, hop)) = split_last(list, b',') else {
                    return client;
                };
                let hop = std::str::from_utf8(hop).ok();
                let Some(address) = hop.and_then(read) else {
                    return client;
                };
                client = address;
                if !self.trusts(client) {
                    return client;
                }
                rest = others;
            }
        }
        client
    }

    #[inline]
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| match (network, address) {
            // IPv4 in IPv6 clothes. A wider network that has it in is meant for IPv6.
            (IpNet::V6(network), IpAddr::V4(v4)) if network.prefix_len() >= 96 => {
                network.contains(&v4.to_ipv6_mapped())
            }
            _ => network.contains(&address),
        })
    }
}

/// What stands behind the last separator outside of quotes, and what stands before it. `None` if a
/// quote has no partner.
///
/// Read from the right as well: what proxies have written is well formed, and a quote that the
/// client has left open further left is never reached. Within quotes of a proxy's there may be
/// words of the client's, such as its `Host`.
fn split_last(list: &[u8], separator: u8) -> Option<(Option<&[u8]>, &[u8])> {
    let mut quoted = false;
    for (at, &byte) in list.iter().enumerate().rev() {
        if byte == b'"' {
            let escapes = list[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
            // Within quotes it is a sign like others; outside there is nothing to escape.
            if escapes % 2 == 0 {
                quoted = !quoted;
            } else if !quoted {
                return None;
            }
        } else if byte == separator && !quoted {
            return Some((Some(&list[..at]), &list[at + 1..]));
        }
    }
    (!quoted).then_some((None, list))
}

fn trim(hop: &str) -> &str {
    hop.trim_matches([' ', '\t'])
}

/// An address with or without port, brackets and zone: `203.0.113.7:80`, `[2001:db8::1%eth0]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = trim(text);
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, rest) = rest.split_once(']')?;
        if !(rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)) {
            return None;
        }
        return ipv6(inside);
    }
    if let Ok(v4) = text.split_once(':').map_or(text, |(host, _)| host).parse() {
        let port = text.split_once(':').map(|(_, port)| port);
        return port.is_none_or(is_port).then_some(IpAddr::V4(v4));
    }
    ipv6(text)
}

fn ipv6(text: &str) -> Option<IpAddr> {
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    let v6: Ipv6Addr = text.parse().ok()?;
    Some(IpAddr::V6(v6).to_canonical())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The address in one element of `Forwarded`: `for=203.0.113.7;proto=https`,
/// `For="[2001:db8::1]:4711"`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = Some(element.as_bytes());
    while let Some(pairs) = rest {
        let (others, pair) = split_last(pairs, b';')?;
        rest = others;
        let (name, value) = trim(std::str::from_utf8(pair).ok()?).split_once('=')?;
        if !name.eq_ignore_ascii_case("for") {
            continue;
        }
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"')?,
            // What needs quotes is an IPv6 address, or an address with a port.
            None => value,
        };
        // Twice in one element is no element: who knows which of them is true.
        if found.replace(address(value)?).is_some() {
            return None;
        }
    }
    found
}

#[cfg(test)]
mod tests;
