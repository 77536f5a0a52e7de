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
/// Tuples are the safe way to put several parts into one key: each part is escaped, so that
/// `("a:b", "c")` and `("a", "b:c")` never meet. Put the tenant first.
///
/// ```
/// use escala_cache::CacheKey;
///
/// assert_eq!(("shop", 42).text(), "shop:42");
/// assert_eq!(("a:b", "c").text(), "a%3Ab:c");
/// assert_eq!(("a", "b:c").text(), "a:b%3Ac");
/// ```
pub trait CacheKey: Hash + Eq {
    /// Appends the text of this key.
    fn write_text(&self, out: &mut String);

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

impl<A: CacheKey, B: CacheKey> CacheKey for (A, B) {
    fn write_text(&self, out: &mut String) {
        push_escaped(&self.0.text(), out);
        out.push(':');
        push_escaped(&self.1.text(), out);
    }
}

impl<A: CacheKey, B: CacheKey, C: CacheKey> CacheKey for (A, B, C) {
    fn write_text(&self, out: &mut String) {
        push_escaped(&self.0.text(), out);
        out.push(':');
        push_escaped(&self.1.text(), out);
        out.push(':');
        push_escaped(&self.2.text(), out);
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

    proptest! {
        #[test]
        fn tuples_of_different_parts_never_share_a_text(
            a in ("[ab:%]{0,4}", "[ab:%]{0,4}", "[ab:%]{0,4}"),
            b in ("[ab:%]{0,4}", "[ab:%]{0,4}", "[ab:%]{0,4}"),
        ) {
            prop_assert_eq!(a == b, a.text() == b.text());
        }
    }
}
