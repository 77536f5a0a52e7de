//! What a cache stores under a key, with everything that can be said about it.

use std::time::Duration;

/// A value for the cache with its lifetimes, tags and validator; or that there is none.
///
/// What is not set falls back to the settings of the cache.
///
/// ```
/// use escala_cache::Entry;
/// use std::time::Duration;
///
/// let quote = Entry::new(42_u64).ttl(Duration::from_secs(30)).tag("tenant:7");
/// assert_eq!(quote.value(), Some(&42));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<V> {
    pub(crate) content: Content<V>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale: Option<Duration>,
    pub(crate) memory_ttl: Option<Duration>,
    pub(crate) shared_ttl: Option<Duration>,
    pub(crate) tags: Vec<String>,
    pub(crate) validator: Option<Box<str>>,
    pub(crate) store: bool,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<V> {
    /// This value.
    Value(V),
    /// The source says that there is nothing.
    Absent,
    /// A load says that what was stored before is still right.
    Unchanged,
}

impl<V> Entry<V> {
    /// An entry that holds `value`.
    pub fn new(value: V) -> Self {
        Self::of(Content::Value(value))
    }

    /// An entry that says: the source has nothing under this key. It lives for
    /// [`absent_ttl`](crate::CacheConfig::absent_ttl) unless it says otherwise.
    #[must_use]
    pub fn absent() -> Self {
        Self::of(Content::Absent)
    }

    /// The answer of a load that asked its source whether the previous value is still right,
    /// and it is. Without a previous value it is as [`absent`](Self::absent), not stored.
    #[must_use]
    pub fn unchanged() -> Self {
        Self::of(Content::Unchanged)
    }

    /// `value` or, if there is none, that it is absent.
    pub fn from_option(value: Option<V>) -> Self {
        value.map_or_else(Self::absent, Self::new)
    }

    /// How long it is fresh. Zero stores nothing.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How much longer, once no longer fresh, it may be served if the source fails or is slow.
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> Self {
        self.stale = Some(stale);
        self
    }

    /// Lifetime of the copy in memory, instead of [`Memory::ttl`](crate::Memory::ttl).
    #[must_use]
    pub fn memory_ttl(mut self, ttl: Duration) -> Self {
        self.memory_ttl = Some(ttl);
        self
    }

    /// Lifetime of the copy in the shared layer, instead of
    /// [`shared_ttl`](crate::CacheConfig::shared_ttl). Zero keeps it out of the shared layer.
    #[must_use]
    pub fn shared_ttl(mut self, ttl: Duration) -> Self {
        self.shared_ttl = Some(ttl);
        self
    }

    /// Adds a tag, by which [`remove_tag`](crate::Cache::remove_tag) finds the entry. At most
    /// 64 tags; further ones make the entry not be stored, rather than be out of reach.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds tags; see [`tag`](Self::tag).
    #[must_use]
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// What the source calls this state of the value (an `ETag`, a version, a time), handed to
    /// the next load so that it can ask for changes only. At most 1 KiB; a longer one is
    /// dropped.
    #[must_use]
    pub fn validator(mut self, validator: impl Into<String>) -> Self {
        self.validator = Some(validator.into().into_boxed_str());
        self
    }

    /// Hands the value to the callers of its load and stores it nowhere.
    #[must_use]
    pub fn no_store(mut self) -> Self {
        self.store = false;
        self
    }

    /// The value, if it holds one.
    #[must_use]
    pub fn value(&self) -> Option<&V> {
        match &self.content {
            Content::Value(value) => Some(value),
            Content::Absent | Content::Unchanged => None,
        }
    }

    fn of(content: Content<V>) -> Self {
        Self {
            content,
            ttl: None,
            stale: None,
            memory_ttl: None,
            shared_ttl: None,
            tags: Vec::new(),
            validator: None,
            store: true,
        }
    }
}

impl<V> From<V> for Entry<V> {
    fn from(value: V) -> Self {
        Self::new(value)
    }
}
