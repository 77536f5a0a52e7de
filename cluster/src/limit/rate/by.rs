//! Where the key of a request comes from.

use std::fmt;
use std::sync::Arc;

use super::{KeyParts, RateKey};

type Find<Req> = Arc<dyn Fn(&Req, &mut KeyParts) -> bool + Send + Sync>;

/// Finds the key under which a request is counted.
///
/// ```
/// use escala_cluster::KeyBy;
///
/// struct Login { user: String, device: u64 }
///
/// let key = KeyBy::new(|login: &Login, parts| {
///     parts.text(&login.user);
///     parts.number(login.device);
///     true // or false: this request has no key
/// });
/// ```
pub struct KeyBy<Req> {
    find: Find<Req>,
}

impl<Req> KeyBy<Req> {
    /// By what the function hands over, always the same parts in the same order for the same key;
    /// `false` if the request has no key.
    pub fn new<F>(find: F) -> Self
    where
        F: Fn(&Req, &mut KeyParts) -> bool + Send + Sync + 'static,
    {
        Self { find: Arc::new(find) }
    }

    /// By the key the function makes, if it can make one.
    pub fn from_fn<F, K>(key: F) -> Self
    where
        F: Fn(&Req) -> Option<K> + Send + Sync + 'static,
        K: RateKey,
    {
        Self::new(move |request, parts| key(request).map(|key| key.parts(parts)).is_some())
    }

    /// All requests are one key: a limit on the service as a whole.
    #[must_use]
    pub fn everyone() -> Self {
        Self::new(|_, _| true)
    }

    /// By both keys together: each pair is counted for itself. Without one of them there is none.
    #[must_use]
    pub fn and(self, other: Self) -> Self
    where
        Req: 'static,
    {
        Self::new(move |request, parts| (self.find)(request, parts) && (other.find)(request, parts))
    }

    /// Hands the key of the request over, if it has one.
    pub(super) fn find(&self, request: &Req, parts: &mut KeyParts) -> bool {
        (self.find)(request, parts)
    }
}

impl<Req> Clone for KeyBy<Req> {
    fn clone(&self) -> Self {
        Self { find: Arc::clone(&self.find) }
    }
}

impl<Req> fmt::Debug for KeyBy<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyBy").finish_non_exhaustive()
    }
}
