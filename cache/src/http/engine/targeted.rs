//! Targeted fields such as `CDN-Cache-Control` (RFC 9213): structured dictionaries that replace
//! `Cache-Control` and `Expires` for the caches they are meant for.

use std::convert::Infallible;

use http::HeaderName;
use http::header::HeaderMap;
use sfv::visitor::{
    DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor,
};
use sfv::{BareItemFromInput, KeyRef, Parser};

use super::cache_control::{CacheControl, Scope, Seconds};
use super::fields::MAX_DELTA_SECONDS;

/// The directives of the first field in `list` that is there, valid and not empty.
pub(crate) fn select(list: &[HeaderName], headers: &HeaderMap) -> Option<CacheControl> {
    list.iter().find_map(|name| {
        let mut lines = headers.get_all(name).iter();
        let first = lines.next()?;
        let mut value = first.as_bytes().to_vec();
        for line in lines {
            value.extend_from_slice(b", ");
            value.extend_from_slice(line.as_bytes());
        }
        parse(&value)
    })
}

/// Reads one targeted field; `None` if it has to be ignored.
///
/// A lifetime that is no integer makes the whole field invalid: ignoring that directive alone
/// would leave a field that says nothing and yet hides a `no-store` in `Cache-Control`.
pub(crate) fn parse(value: &[u8]) -> Option<CacheControl> {
    let read = Parser::new(value).parse_dictionary_with_visitor(Members::default()).ok()?;
    if read.is_empty {
        return None;
    }
    let [max_age, s_maxage, revalidating, if_error, rest @ ..] = read.values;
    let [no_cache, private, no_store, must_revalidate, proxy_revalidate, rest @ ..] = rest;
    let [must_understand, public, immutable] = rest;
    Some(CacheControl {
        max_age: max_age.seconds()?,
        s_maxage: s_maxage.seconds()?,
        stale_while_revalidate: revalidating.seconds()?,
        stale_if_error: if_error.seconds()?,
        no_cache: no_cache.scope(),
        private: private.scope(),
        // What restricts counts whatever its type; what allows something has to be plainly true.
        no_store: !no_store.is_unset(),
        must_revalidate: !must_revalidate.is_unset(),
        proxy_revalidate: !proxy_revalidate.is_unset(),
        must_understand: must_understand == Value::True,
        public: public == Value::True,
        immutable: immutable == Value::True,
        broken: false,
    })
}

/// The directives that count, in the order in which [`parse`] takes them apart.
const KEYS: [&str; 12] = [
    "max-age",
    "s-maxage",
    "stale-while-revalidate",
    "stale-if-error",
    "no-cache",
    "private",
    "no-store",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "public",
    "immutable",
];

/// The members read so far. The last one of a key counts, as structured fields have it.
#[derive(Debug)]
struct Members {
    values: [Value; KEYS.len()],
    is_empty: bool,
}

impl Default for Members {
    fn default() -> Self {
        Self { values: Default::default(), is_empty: true }
    }
}

/// The value of one directive.
#[derive(Debug, Default, PartialEq, Eq)]
enum Value {
    #[default]
    Absent,
    False,
    True,
    Integer(i64),
    /// A string, a token, or a list of those: field names, separated by commas.
    Names(String),
    /// Anything else.
    Other,
}

impl Value {
    /// `None` if it is of another type; a negative number is a lifetime that is invalid.
    fn seconds(self) -> Option<Seconds> {
        match self {
            Self::Absent => Some(Seconds::Absent),
            Self::Integer(number) => Some(match u64::try_from(number) {
                Ok(seconds) => Seconds::Is(seconds.min(MAX_DELTA_SECONDS)),
                Err(_) => Seconds::Invalid,
            }),
            _ => None,
        }
    }

    fn scope(self) -> Scope {
        match self {
            Self::Absent | Self::False => Scope::Absent,
            Self::Names(names) => Scope::of_names(names.as_bytes()),
            _ => Scope::Whole,
        }
    }

    fn is_unset(&self) -> bool {
        matches!(self, Self::Absent | Self::False)
    }

    fn of(item: &BareItemFromInput<'_>) -> Self {
        match item {
            BareItemFromInput::Boolean(false) => Self::False,
            BareItemFromInput::Boolean(true) => Self::True,
            BareItemFromInput::Integer(number) => Self::Integer(i64::from(*number)),
            BareItemFromInput::String(text) => Self::Names(text.as_str().to_owned()),
            BareItemFromInput::Token(text) => Self::Names(text.as_str().to_owned()),
            _ => Self::Other,
        }
    }
}

impl<'de> DictionaryVisitor<'de> for Members {
    type Out = Self;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.is_empty = false;
        let index = KEYS.iter().position(|known| *known == key.as_str());
        Ok(index.and_then(|index| self.values.get_mut(index)).map(Slot))
    }

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }
}

/// Where a member's value goes. Parameters are ignored (RFC 9213 section 2.1).
struct Slot<'a>(&'a mut Value);

impl<'de> EntryVisitor<'de> for Slot<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        *self.0 = Value::Names(String::new());
        Ok(Listed(self.0))
    }
}

impl<'de> ItemVisitor<'de> for Slot<'_> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        *self.0 = Value::of(&item);
        Ok(Ignored)
    }
}

/// Gathers the names of an inner list.
struct Listed<'a>(&'a mut Value);

impl<'de> InnerListVisitor<'de> for Listed<'_> {
    type Error = Infallible;

    fn item(&mut self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(Listed(self.0))
    }

    fn finish(self) -> Result<impl ParameterVisitor<'de>, Infallible> {
        Ok(Ignored)
    }
}

impl<'de> ItemVisitor<'de> for Listed<'_> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        match (&mut *self.0, Value::of(&item)) {
            (Value::Names(names), Value::Names(more)) => {
                names.push(',');
                names.push_str(&more);
            }
            (value, _) => *value = Value::Other,
        }
        Ok(Ignored)
    }
}

#[cfg(test)]
mod tests;
