//! Which side of a split or of a toggle a request goes to. Pure.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::error::SettingError;

/// What makes two requests the same user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Ip,
    Cookie(String),
    Header(HeaderName),
}

impl Key {
    pub(super) fn parse(field: &str, text: &str) -> Result<Self, SettingError> {
        let refused = || {
            let rule = "be ip, cookie:NAME or header:NAME";
            SettingError::new(field, text, rule)
        };
        match text.split_once(':') {
            None if text == "ip" => Ok(Self::Ip),
            Some(("cookie", name)) if !name.is_empty() && !name.contains(['=', ';', ' ']) => {
                Ok(Self::Cookie(name.to_owned()))
            }
            Some(("header", name)) => {
                HeaderName::from_bytes(name.as_bytes()).map(Self::Header).map_err(|_| refused())
            }
            _ => Err(refused()),
        }
    }

    /// Where in 0..1 this user is, always the same: in every process, after every restart. A
    /// request without the cookie or header goes by its address. `salt` makes two decisions about
    /// the same user independent.
    pub(super) fn place(&self, headers: &HeaderMap, client: IpAddr, salt: u64) -> f64 {
        let value = match self {
            Self::Ip => None,
            Self::Cookie(name) => cookie(headers, name),
            Self::Header(name) => headers.get(name).map(|value| value.as_bytes()),
        };
        let hash = match (value.filter(|value| !value.is_empty()), client) {
            (Some(value), _) => xxh3_64_with_seed(value, salt),
            (None, IpAddr::V4(client)) => xxh3_64_with_seed(&client.octets(), salt),
            (None, IpAddr::V6(client)) => xxh3_64_with_seed(&client.octets(), salt),
        };
        share(hash)
    }
}

/// Of one decision on one route. Of users that a toggle takes, a split beside it must not take those
/// of one side.
pub(super) fn salt(route: &str, role: &str) -> u64 {
    xxh3_64(format!("{role} {route}").as_bytes())
}

/// The upper half of a hash as a number in 0..1.
fn share(hash: u64) -> f64 {
    // A u32 is a whole number of an f64, so that 1 is never reached by rounding.
    let upper = u32::try_from(hash >> 32).unwrap_or(u32::MAX);
    f64::from(upper) / (f64::from(u32::MAX) + 1.0)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|&b| b == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        (&pair[..equals] == name.as_bytes()).then(|| &pair[equals + 1..])
    });
    values.next()
}

/// Places in 0..1 for requests that no key holds together, spread as evenly as can be: after n of
/// them each share is right to a few requests, where dice would be wrong by the root of n.
#[derive(Debug, Default)]
pub(super) struct Spread(AtomicU64);

impl Spread {
    pub(super) fn next(&self) -> f64 {
        // The golden ratio: its multiples leave the gaps between each other as even as possible.
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        share(self.0.fetch_add(1, Relaxed).wrapping_mul(STEP))
    }
}

/// The side that a place falls to, of sides with weights above zero in sum.
pub(super) fn side(weights: &[u32], place: f64) -> usize {
    let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut left = place * sum;
    for (side, &weight) in weights.iter().enumerate() {
        left -= f64::from(weight);
        if left < 0.0 {
            return side;
        }
    }
    weights.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn with(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn a_spread_is_exact_to_a_few_requests() {
        let spread = Spread::default();
        let mut counts = [0_u32; 3];
        for _ in 0..10_000 {
            counts[side(&[90, 9, 1], spread.next())] += 1;
        }
        for (count, expected) in counts.into_iter().zip([9_000_u32, 900, 100]) {
            assert!(count.abs_diff(expected) <= 5, "{counts:?}");
        }
    }

    #[test]
    fn a_side_without_weight_gets_nothing() {
        for step in 0..1_000 {
            let place = f64::from(step) / 1_000.0;
            assert_eq!(side(&[0, 1, 0], place), 1, "{place}");
        }
        assert_eq!(side(&[1, 1], 0.4999), 0);
        assert_eq!(side(&[1, 1], 0.5), 1);
    }

    #[test]
    fn users_stay_where_they_are_and_are_spread_by_percent() {
        let key = Key::parse("sticky", "cookie:sid").unwrap();
        let mut moved = [0_u32; 3];
        for user in 0..10_000 {
            let place = key.place(&with("cookie", &format!("a=b; sid=user-{user}")), NOBODY, 1);
            let again = key.place(&with("cookie", &format!("sid=user-{user}; c=d")), NOBODY, 1);
            assert!((place - again).abs() < f64::EPSILON);
            // Who is below 10 % is below 20 %: nobody moves back when the share grows.
            for (count, percent) in moved.iter_mut().zip([1.0, 10.0, 50.0]) {
                *count += u32::from(place * 100.0 < percent);
            }
        }
        for (count, expected) in moved.into_iter().zip([100_u32, 1_000, 5_000]) {
            assert!(count.abs_diff(expected) < expected / 5 + 30, "{moved:?}");
        }
    }

    #[test]
    fn a_toggle_takes_as_many_from_each_side_of_a_split() {
        let key = Key::parse("sticky", "cookie:sid").unwrap();
        let (split, toggle) = (salt("* /", "split"), salt("* /", "toggle new"));
        let mut left = [0_u32; 2];
        for user in 0..10_000 {
            let headers = with("cookie", &format!("sid=user-{user}"));
            if key.place(&headers, NOBODY, toggle) >= 0.5 {
                left[side(&[1, 1], key.place(&headers, NOBODY, split))] += 1;
            }
        }
        assert!(left.into_iter().all(|left| left.abs_diff(2_500) < 250), "{left:?}");
    }

    #[test]
    fn without_a_cookie_the_address_decides() {
        let key = Key::parse("sticky", "cookie:sid").unwrap();
        let ip = Key::parse("sticky", "ip").unwrap();
        for headers in [HeaderMap::new(), with("cookie", "sid="), with("cookie", "asid=1")] {
            let place = key.place(&headers, NOBODY, 1);
            assert!((place - ip.place(&HeaderMap::new(), NOBODY, 1)).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn keys_that_cannot_be_are_refused() {
        for text in ["", "ip:", "cookie", "cookie:", "cookie:a=b", "header:a b", "path"] {
            let error = Key::parse("routes[0].sticky", text).unwrap_err();
            assert_eq!((error.field.as_str(), error.value.as_str()), ("routes[0].sticky", text));
        }
    }
}
