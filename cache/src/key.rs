//! Keys and their text: what tells two entries apart in the shared layer and in patterns.

use std::borrow::{Borrow, Cow};
use std::fmt::Write as _;
use std::hash::Hash;
use std::sync::Arc;

/// A key with a text form.
///
/// The memory layer finds an entry by hash and equality; the shared layer and
/// [`remove_matching`](crate::Cache::remove_matching) use the text. Two keys must be equal
/// exactly when their texts are, and a key and its borrowed form (`String` and `str`) must
/// write the same text.
///
/// Tuples of two to five parts are the safe way to put several parts into one key: each part is
/// escaped, so that `("a:b", "c")` and `("a", "b:c")` never meet. Put the tenant first: then no
/// key of one tenant is one of another's, whatever the names of both hold, and
/// [`Pattern::tenant`](crate::Pattern::tenant) finds all of one tenant's keys and no other.
///
/// ```
/// use escala_cache::CacheKey;
///
/// assert_eq!(("shop", 42).text(), "shop:42");
/// assert_eq!(("a:b", "c").text(), "a%3Ab:c");
/// assert_eq!(("a", "b:c").text(), "a:b%3Ac");
/// ```
///
/// A key type of your own writes the text of a tuple of its fields:
///
/// ```
/// use escala_cache::CacheKey;
///
/// #[derive(Hash, PartialEq, Eq)]
/// struct OrderKey {
///     shop: String,
///     number: u64,
/// }
///
/// impl CacheKey for OrderKey {
///     fn write_text(&self, out: &mut String) {
///         (&self.shop, self.number).write_text(out);
///     }
///
///     fn write_tenant(&self, out: &mut String) -> bool {
///         (&self.shop, self.number).write_tenant(out)
///     }
/// }
///
/// assert_eq!(OrderKey { shop: "a:b".to_owned(), number: 42 }.text(), "a%3Ab:42");
/// ```
pub trait CacheKey: Hash + Eq {
    /// Appends the text of this key.
    fn write_text(&self, out: &mut String);

    /// Appends the tenant this key belongs to, as it stands in the text before the first `:`,
    /// and returns true; or does nothing and returns false.
    ///
    /// The first part of a tuple is its tenant. Other keys have none, and neither has a type of
    /// your own unless it says so; whatever it says here, the text must begin with that and `:`.
    fn write_tenant(&self, out: &mut String) -> bool {
        let _ = out;
        false
    }

    /// The text of this key in a string of its own.
    fn text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out);
        out
    }
}

impl CacheKey for str {
    fn write_text(&self, out: &mut String) {
        out.push_str(self);
    }
}

/// Pointers write what they point to, as `Borrow` and `Hash` already demand of them.
macro_rules! pointer_keys {
    ($($pointer:ty),+) => {$(
        impl CacheKey for $pointer {
            fn write_text(&self, out: &mut String) {
                let text: &str = self.borrow();
                out.push_str(text);
            }
        }
    )+};
}
pointer_keys!(String, Arc<str>, Box<str>, Cow<'_, str>);

impl<T: CacheKey + ?Sized> CacheKey for &T {
    fn write_text(&self, out: &mut String) {
        (**self).write_text(out);
    }

    fn write_tenant(&self, out: &mut String) -> bool {
        (**self).write_tenant(out)
    }
}

macro_rules! integer_keys {
    ($($integer:ty),+) => {$(
        impl CacheKey for $integer {
            fn write_text(&self, out: &mut String) {
                write!(out, "{self}").expect("writing to a String cannot fail");
            }
        }
    )+};
}
integer_keys!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

macro_rules! tuple_keys {
    ($(($first:ident $($other:ident)+))+) => {$(
        impl<$first: CacheKey, $($other: CacheKey),+> CacheKey for ($first, $($other),+) {
            #[expect(non_snake_case, reason = "a part is named after its type")]
            fn write_text(&self, out: &mut String) {
                let ($first, $($other),+) = self;
                push_part($first, out);
                $(
                    out.push(':');
                    push_part($other, out);
                )+
            }

            fn write_tenant(&self, out: &mut String) -> bool {
                push_part(&self.0, out);
                true
            }
        }
    )+};
}
tuple_keys!((A B) (A B C) (A B C D) (A B C D E));

/// Appends the text of one part of a key, escaped. Allocates only if there is something to
/// escape.
pub(crate) fn push_part(part: &(impl CacheKey + ?Sized), out: &mut String) {
    let start = out.len();
    part.write_text(out);
    if out.get(start..).is_some_and(|text| text.contains([':', '%'])) {
        let text = out.split_off(start);
        push_escaped(&text, out);
    }
}

/// Appends `part` so that it holds no `:`: the separator then never occurs inside a part.
pub(crate) fn push_escaped(part: &str, out: &mut String) {
    for character in part.chars() {
        match character {
            ':' => out.push_str("%3A"),
            '%' => out.push_str("%25"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Pattern;

    #[test]
    fn owned_and_borrowed_forms_write_the_same_text() {
        assert_eq!("a:b".to_owned().text(), "a:b");
        assert_eq!("a:b".text(), "a:b");
        assert_eq!(Arc::<str>::from("x").text(), "x");
        assert_eq!(Box::<str>::from("x").text(), "x");
        assert_eq!(Cow::Borrowed("x").text(), "x");
        assert_eq!((-7_i64).text(), "-7");
        assert_eq!(("t", 1_u8, "p%q").text(), "t:1:p%25q");
    }

    #[test]
    fn the_tenant_is_the_first_part_of_a_tuple_and_nothing_else() {
        let tenant = |key: &dyn Fn(&mut String) -> bool| {
            let mut out = String::from("before ");
            key(&mut out).then(|| out.split_off(7))
        };
        assert_eq!(tenant(&|out| ("a:b", 1).write_tenant(out)).as_deref(), Some("a%3Ab"));
        assert_eq!(tenant(&|out| (7, "x", "é").write_tenant(out)).as_deref(), Some("7"));
        assert_eq!(tenant(&|out| ("", 1, 2, 3, 4).write_tenant(out)).as_deref(), Some(""));
        assert_eq!(tenant(&|out| "a:b".write_tenant(out)), None);
        assert_eq!(tenant(&|out| "a:b".to_owned().write_tenant(out)), None);
        assert_eq!(tenant(&|out| 7_u64.write_tenant(out)), None);
    }

    /// What stands in front of every key of the tenant.
    fn prefix(tenant: &str) -> String {
        let mut out = String::new();
        assert!((tenant, 0).write_tenant(&mut out));
        out.push(':');
        out
    }

    /// Names full of what separates parts, what patterns are made of, and Unicode.
    fn name() -> impl Strategy<Value = String> {
        "[ab:%*?\\[\\]^\\-\\\\3A\u{0}\u{e9}e\u{301}\u{1f600}]{0,5}"
    }

    proptest! {
        #[test]
        fn two_tenants_never_share_a_prefix(one in name(), other in name(), rest in name()) {
            let (prefix, other_prefix) = (prefix(&one), prefix(&other));
            prop_assert_eq!(prefix.starts_with(&other_prefix), one == other);
            for key in [
                (&one, &rest).text(),
                (&one, &rest, &other).text(),
                (&one, &rest, &other, &one).text(),
                (&one, &rest, &other, &one, 7).text(),
            ] {
                prop_assert!(key.starts_with(&prefix));
                prop_assert_eq!(key.starts_with(&other_prefix), one == other);
                prop_assert_eq!(Pattern::tenant(&one).matches(&key), true);
                prop_assert_eq!(Pattern::tenant(&other).matches(&key), one == other);
            }
        }

        #[test]
        fn tuples_of_different_parts_never_share_a_text(
            a in ("[ab:%]{0,4}", "[ab:%]{0,4}", "[ab:%]{0,4}"),
            b in ("[ab:%]{0,4}", "[ab:%]{0,4}", "[ab:%]{0,4}"),
        ) {
            prop_assert_eq!(a == b, a.text() == b.text());
            let (a, b) = ((a.0, a.1, a.2, 1_u8, "x"), (b.0, b.1, b.2, 1_u8, "x"));
            prop_assert_eq!(a == b, a.text() == b.text());
        }
    }
}
