//! The `Cache-Control` field, read strictly where it restricts the cache and mistrustfully where
//! it allows something (RFC 9111 sections 4.2.1 and 5.2).

use http::HeaderName;
use http::header::{self, HeaderMap};

use super::fields::{self, all_members, delta_seconds, is_token, members, unquote};

/// A lifetime as a response names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Seconds {
    /// Not named.
    #[default]
    Absent,
    /// A number of seconds.
    Is(u64),
    /// Named with a value that is none, or with two different ones: the response counts as stale.
    Invalid,
}

impl Seconds {
    fn read(value: Option<u64>) -> Self {
        value.map_or(Self::Invalid, Self::Is)
    }

    /// Joins two occurrences: equal ones are one, others contradict each other.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Absent, seconds) | (seconds, Self::Absent) => seconds,
            (one, two) if one == two => one,
            _ => Self::Invalid,
        }
    }

    /// The value if it is a valid one.
    pub(crate) fn valid(self) -> Option<u64> {
        if let Self::Is(seconds) = self { Some(seconds) } else { None }
    }
}

/// A directive that may be about some fields only (`no-cache`, `private`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Scope {
    /// Not there.
    #[default]
    Absent,
    /// About these fields of the response, not about the rest.
    Fields(Vec<HeaderName>),
    /// About the whole response.
    Whole,
}

impl Scope {
    /// Joins two occurrences: the stricter one wins.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Absent, scope) | (scope, Self::Absent) => scope,
            (Self::Fields(mut names), Self::Fields(more)) => {
                names.extend(more);
                Self::Fields(names)
            }
            _ => Self::Whole,
        }
    }

    /// Reads a list of field names. Anything else, and a list with a field that the cache itself
    /// goes by, is about the whole response.
    pub(crate) fn of_names(list: &[u8]) -> Self {
        let mut names = Vec::new();
        for member in members(list) {
            match HeaderName::from_bytes(member) {
                Ok(name) if !goes_by(&name) => names.push(name),
                _ => return Self::Whole,
            }
        }
        if names.is_empty() { Self::Whole } else { Self::Fields(names) }
    }

    /// Whether it is about the whole response.
    pub(crate) fn is_whole(&self) -> bool {
        *self == Self::Whole
    }

    /// The fields it is about.
    pub(crate) fn names(&self) -> &[HeaderName] {
        if let Self::Fields(names) = self { names } else { &[] }
    }
}

/// The directives of a response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CacheControl {
    pub(crate) max_age: Seconds,
    pub(crate) s_maxage: Seconds,
    pub(crate) no_cache: Scope,
    pub(crate) private: Scope,
    pub(crate) no_store: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) must_understand: bool,
    pub(crate) public: bool,
    /// RFC 8246.
    pub(crate) immutable: bool,
    pub(crate) stale_while_revalidate: Seconds,
    pub(crate) stale_if_error: Seconds,
    /// Something was unreadable in a way that may hide a directive: a string without an end.
    pub(crate) broken: bool,
}

impl CacheControl {
    /// Reads all `Cache-Control` lines of a response.
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::CACHE_CONTROL).iter();
        Self::parse_values(lines.map(|value| value.as_bytes()))
    }

    /// Reads lines of a `Cache-Control` field.
    pub(crate) fn parse_values<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut directives = Self::default();
        for line in lines {
            directives.broken |= fields::has_open_string(line);
            for member in members(line) {
                directives.take(&Directive::read(member));
            }
        }
        directives
    }

    /// A directive that restricts counts however it is written; one that allows something counts
    /// only if it is written as its definition says.
    fn take(&mut self, directive: &Directive<'_>) {
        let name = directive.name;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("max-age") {
            self.max_age = self.max_age.and(directive.seconds());
        } else if is("s-maxage") {
            self.s_maxage = self.s_maxage.and(directive.seconds());
        } else if is("no-cache") {
            self.no_cache = std::mem::take(&mut self.no_cache).and(directive.scope());
        } else if is("private") {
            self.private = std::mem::take(&mut self.private).and(directive.scope());
        } else if is("no-store") {
            self.no_store = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("public") {
            self.public |= directive.is_bare();
        } else if is("immutable") {
            self.immutable |= directive.is_bare();
        } else if is("must-understand") {
            self.must_understand |= directive.is_bare();
        } else if is("stale-while-revalidate") {
            self.stale_while_revalidate = self.stale_while_revalidate.and(directive.seconds());
        } else if is("stale-if-error") {
            self.stale_if_error = self.stale_if_error.and(directive.seconds());
        }
    }
}

/// How stale a response a request accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaxStale {
    /// However stale.
    Any,
    /// So many seconds past its lifetime.
    Seconds(u64),
}

/// The directives of a request. What cannot be read is ignored: they are the client's wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RequestDirectives {
    pub(crate) no_cache: bool,
    pub(crate) no_store: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<u64>,
    pub(crate) min_fresh: Option<u64>,
    pub(crate) max_stale: Option<MaxStale>,
    pub(crate) stale_if_error: Option<u64>,
}

impl RequestDirectives {
    /// Reads `Cache-Control`, and `Pragma` if there is none (RFC 9111 section 5.4).
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            directives.no_cache = all_members(headers, &header::PRAGMA)
                .any(|member| Directive::read(member).name.eq_ignore_ascii_case(b"no-cache"));
            return directives;
        }
        for member in all_members(headers, &header::CACHE_CONTROL) {
            directives.take(&Directive::read(member));
        }
        directives
    }

    /// Of two numbers for one directive the more demanding one counts.
    fn take(&mut self, directive: &Directive<'_>) {
        let name = directive.name;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age = smaller(self.max_age, directive.seconds().valid());
        } else if is("min-fresh") {
            self.min_fresh = self.min_fresh.max(directive.seconds().valid());
        } else if is("stale-if-error") {
            self.stale_if_error = smaller(self.stale_if_error, directive.seconds().valid());
        } else if is("max-stale") {
            self.max_stale = match (directive.seconds(), self.max_stale) {
                (Seconds::Is(new), Some(MaxStale::Seconds(old))) => {
                    Some(MaxStale::Seconds(new.min(old)))
                }
                (Seconds::Is(new), _) => Some(MaxStale::Seconds(new)),
                (_, None) if directive.is_bare() => Some(MaxStale::Any),
                (_, old) => old,
            };
        }
    }
}

fn smaller(one: Option<u64>, two: Option<u64>) -> Option<u64> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    }
}

/// One member: its name, and whatever follows the name.
struct Directive<'a> {
    name: &'a [u8],
    /// From the first byte after the name on; starts with `=` in a well-formed argument.
    rest: &'a [u8],
}

impl<'a> Directive<'a> {
    fn read(member: &'a [u8]) -> Self {
        let len = member.iter().position(|&byte| !is_token(byte)).unwrap_or(member.len());
        let (name, rest) = member.split_at(len);
        Self { name, rest }
    }

    fn is_bare(&self) -> bool {
        self.rest.is_empty()
    }

    /// A number, as a token or as a quoted string, which a recipient has to accept alike.
    fn seconds(&self) -> Seconds {
        match self.rest.strip_prefix(b"=") {
            Some(quoted) if quoted.first() == Some(&b'"') => {
                Seconds::read(unquote(quoted).and_then(|text| delta_seconds(&text)))
            }
            Some(token) => Seconds::read(delta_seconds(token)),
            None => Seconds::Invalid,
        }
    }

    fn scope(&self) -> Scope {
        match self.rest.strip_prefix(b"=") {
            Some(quoted) if quoted.first() == Some(&b'"') => {
                unquote(quoted).map_or(Scope::Whole, |list| Scope::of_names(&list))
            }
            Some(token) => Scope::of_names(token),
            None => Scope::Whole,
        }
    }
}

/// The fields by which the cache decides. Without them a stored response would be read wrongly,
/// so a directive against one of them is taken to be against the whole response.
fn goes_by(name: &HeaderName) -> bool {
    [
        header::AGE,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::DATE,
        header::ETAG,
        header::EXPIRES,
        header::LAST_MODIFIED,
        header::VARY,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests;
