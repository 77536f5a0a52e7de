//! Which route a request takes: by host, then the longest path. Pure.

use super::error::SettingError;
use super::path;

/// Which requests a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matcher {
    host: Host,
    /// Plain, without a slash at its end; empty for all paths.
    path: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    /// In lower case.
    Exact(String),
    /// What follows the star, with its dot.
    Below(String),
    Any,
}

impl Matcher {
    /// `field` is the route's place in the file.
    pub(super) fn parse(field: &str, host: Option<&str>, path: &str) -> Result<Self, SettingError> {
        if !path.starts_with('/') || path.contains(['?', '#', ' ', ';']) || has_code_of(path, ';') {
            let rule = "begin with / and have no query and no parameters";
            return Err(SettingError::new(format!("{field}.path"), path, rule));
        }
        let host = match host {
            None => Host::Any,
            Some(host) => parse_host(&format!("{field}.host"), host)?,
        };
        let plain = path::plain(path)
            .map_err(|refusal| SettingError::new(format!("{field}.path"), path, refusal.rule))?;
        let mut path = plain.into_owned();
        while path.ends_with(b"/") {
            path.pop();
        }
        Ok(Self { host, path })
    }

    /// The order in which routes are asked: exact hosts first, and the longer path before the
    /// shorter, so that the first that fits is the best.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let host = match &self.host {
            Host::Exact(_) => (0, 0),
            Host::Below(suffix) => (1, usize::MAX - suffix.len()),
            Host::Any => (2, 0),
        };
        (host, usize::MAX - self.path.len())
    }

    /// `host` as in the header, with or without a port; `path` [`plain`](path::plain).
    pub(super) fn fits(&self, host: &str, path: &[u8]) -> bool {
        let ends = match path.strip_prefix(&self.path[..]) {
            Some([] | [b'/', ..]) => true,
            // `OPTIONS *` asks about the whole of a host.
            Some(rest) => rest == b"*" && self.path.is_empty(),
            None => false,
        };
        ends && self.is_host(host)
    }

    fn is_host(&self, host: &str) -> bool {
        let host = without_port(host);
        // The same name, said to be complete.
        let host = host.strip_suffix('.').unwrap_or(host);
        match &self.host {
            Host::Any => true,
            Host::Exact(own) => host.eq_ignore_ascii_case(own),
            Host::Below(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .and_then(|start| host.get(start..).filter(|_| start > 0))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
        }
    }
}

/// Whether a path has this character in encoded form.
fn has_code_of(path: &str, character: char) -> bool {
    let code = format!("%{:02x}", u32::from(character));
    path.to_ascii_lowercase().contains(&code)
}

fn parse_host(field: &str, text: &str) -> Result<Host, SettingError> {
    let (wild, name) = match text.strip_prefix('*') {
        Some(suffix) => (true, suffix),
        None => (false, text),
    };
    let rest = if wild { name.strip_prefix('.') } else { Some(name) };
    let is_name = |rest: &str| {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        !rest.is_empty() && rest.bytes().all(is_of_name) && without_port(rest) == rest
    };
    if !rest.is_some_and(is_name) {
        let rule = "be a name such as shop.example or *.shop.example, without a port";
        return Err(SettingError::new(field, text, rule));
    }
    let name = name.to_ascii_lowercase();
    Ok(if wild { Host::Below(name) } else { Host::Exact(name) })
}

/// An IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(routes: &[(Option<&str>, &str)], host: &str, path: &str) -> Option<usize> {
        let mut routes: Vec<(usize, Matcher)> = routes
            .iter()
            .enumerate()
            .map(|(index, (host, path))| (index, Matcher::parse("r", *host, path).unwrap()))
            .collect();
        routes.sort_by_cached_key(|(_, matcher)| matcher.rank());
        routes
            .iter()
            .find(|(_, matcher)| matcher.fits(host, path.as_bytes()))
            .map(|(index, _)| *index)
    }

    #[test]
    fn the_longest_path_of_the_closest_host_wins() {
        let routes = [
            (None, "/"),
            (None, "/pdf"),
            (Some("shop.example"), "/"),
            (Some("*.shop.example"), "/pdf/"),
            (None, "/pdf/new"),
        ];
        for (host, path, route) in [
            ("a", "/", 0),
            ("a", "/pdfs", 0),
            ("a", "/pdf", 1),
            ("a:80", "/pdf/1", 1),
            ("a", "/pdf/new/1", 4),
            ("Shop.Example:8080", "/pdf", 2),
            ("de.shop.example", "/pdf/new", 3),
            ("de.shop.example", "/", 0),
            (".shop.example", "/pdf", 1),
            ("evilshop.example", "/pdf", 1),
            ("[::1]:80", "/pdf", 1),
            ("shop.example.", "/pdf", 2),
            ("shop.example.:80", "/pdf", 2),
            ("a", "*", 0),
        ] {
            assert_eq!(first(&routes, host, path), Some(route), "{host}{path}");
        }
        assert_eq!(first(&routes[2..3], "other", "/"), None);
        assert_eq!(first(&[(Some("[::1]"), "/")], "[::1]:8080", "/"), Some(0));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (host, path, field) in [
            (None, "pdf", "routes[2].path"),
            (None, "/a?b", "routes[2].path"),
            (None, "/a/../b", "routes[2].path"),
            (Some(""), "/", "routes[2].host"),
            (Some("a:80"), "/", "routes[2].host"),
            (Some("*a"), "/", "routes[2].host"),
            (Some("a/b"), "/", "routes[2].host"),
        ] {
            assert_eq!(Matcher::parse("routes[2]", host, path).unwrap_err().field, field);
        }
    }
}
