//! Which circuit a request belongs to.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
#[cfg(feature = "axum")]
use std::sync::OnceLock;

#[cfg(feature = "axum")]
use ahash::RandomState;
#[cfg(feature = "axum")]
use axum::extract::MatchedPath;
#[cfg(feature = "axum")]
use http::header::{HOST, HeaderName};

/// Finds the key of a request: borrowed where it is in the request as it is, which allocates
/// nothing once its circuit is there. `None`: no circuit guards the request.
///
/// [`key_fn`] makes one of a closure.
pub trait KeyOf<Req> {
    /// The key as it may stand in a request: `str` for a registry of `String`.
    type Key: ToOwned + ?Sized;

    /// The request's key.
    fn key_of<'a>(&self, request: &'a Req) -> Option<Cow<'a, Self::Key>>;
}

/// A key that a closure finds.
///
/// ```
/// use std::borrow::Cow;
/// use escala_cluster::{BreakerLayer, BreakerRegistry, RegistryConfig, key_fn};
///
/// struct Job { queue: String }
///
/// let queues = BreakerRegistry::<String>::new("queues", RegistryConfig::default())?;
/// let queue = key_fn(|job: &Job| Some(Cow::Borrowed(job.queue.as_str())));
/// let layer = BreakerLayer::keyed(queues, queue);
/// # Ok::<(), escala_cluster::ConfigError>(())
/// ```
pub fn key_fn<F, Req, Q>(find: F) -> KeyFn<F, Q>
where
    F: for<'a> Fn(&'a Req) -> Option<Cow<'a, Q>>,
    Q: ToOwned + ?Sized,
{
    KeyFn { find, key: PhantomData }
}

/// See [`key_fn`].
pub struct KeyFn<F, Q: ?Sized> {
    find: F,
    key: PhantomData<fn() -> Box<Q>>,
}

impl<F, Req, Q> KeyOf<Req> for KeyFn<F, Q>
where
    F: for<'a> Fn(&'a Req) -> Option<Cow<'a, Q>>,
    Q: ToOwned + ?Sized,
{
    type Key = Q;

    fn key_of<'a>(&self, request: &'a Req) -> Option<Cow<'a, Q>> {
        (self.find)(request)
    }
}

impl<F: Clone, Q: ?Sized> Clone for KeyFn<F, Q> {
    fn clone(&self) -> Self {
        Self { find: self.find.clone(), key: PhantomData }
    }
}

impl<F, Q: ?Sized> fmt::Debug for KeyFn<F, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFn").finish_non_exhaustive()
    }
}

/// A circuit for each route: the template axum has matched, like `/users/{id}`, whatever the
/// method. Requests that match no route have no key.
///
/// For `Router::route_layer` and `Router::layer`.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteKey;

#[cfg(feature = "axum")]
impl<B> KeyOf<http::Request<B>> for RouteKey {
    type Key = str;

    fn key_of<'a>(&self, request: &'a http::Request<B>) -> Option<Cow<'a, str>> {
        let path = request.extensions().get::<MatchedPath>()?;
        Some(Cow::Borrowed(path.as_str()))
    }
}

/// A circuit for each host and port that requests go to: the authority of the address, else the
/// `Host` header; in lower case, without credentials. For clients of many servers. A server's own
/// clients choose the header as they like: there
/// [`named_keys`](crate::RegistryConfig::named_keys) should be zero.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct HostKey;

/// Longer ones are no hosts: 253 bytes of name, a colon, five digits.
#[cfg(feature = "axum")]
const HOST_BYTES: usize = 259;

#[cfg(feature = "axum")]
impl<B> KeyOf<http::Request<B>> for HostKey {
    type Key = str;

    fn key_of<'a>(&self, request: &'a http::Request<B>) -> Option<Cow<'a, str>> {
        let host = match request.uri().authority() {
            Some(authority) => authority.as_str(),
            None => request.headers().get(HOST)?.to_str().ok()?,
        };
        let host = host.rsplit_once('@').map_or(host, |(_credentials, host)| host);
        if host.is_empty() || host.len() > HOST_BYTES {
            return None;
        }
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Some(Cow::Owned(host.to_ascii_lowercase()));
        }
        Some(Cow::Borrowed(host))
    }
}

/// A circuit for each value of a header. Requests without it have no key.
///
/// What a header holds may be a credential, so its value is neither kept nor shown: the key is a
/// hash of it, by a secret of this process.
#[cfg(feature = "axum")]
#[derive(Debug, Clone)]
pub struct HeaderKey {
    name: HeaderName,
}

#[cfg(feature = "axum")]
impl HeaderKey {
    /// By the first header of this name.
    #[must_use]
    pub fn new(name: HeaderName) -> Self {
        Self { name }
    }
}

#[cfg(feature = "axum")]
impl<B> KeyOf<http::Request<B>> for HeaderKey {
    type Key = HashedKey;

    fn key_of<'a>(&self, request: &'a http::Request<B>) -> Option<Cow<'a, HashedKey>> {
        // One for all, so that two layers of one registry mean the same circuit.
        static HASHER: OnceLock<RandomState> = OnceLock::new();
        let value = request.headers().get(&self.name)?;
        let hasher = HASHER.get_or_init(RandomState::new);
        Some(Cow::Owned(HashedKey(hasher.hash_one(value.as_bytes()))))
    }
}

/// A value that is neither kept nor shown; see [`HeaderKey`].
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashedKey(u64);

#[cfg(feature = "axum")]
impl fmt::Display for HashedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A circuit for each value that a layer outside has put into the request, a tenant from a token
/// for one. Requests without it have no key. The value is shown in logs and statistics; if clients
/// choose it, [`named_keys`](crate::RegistryConfig::named_keys) should be zero.
#[cfg(feature = "axum")]
pub struct ExtensionKey<T, Q: ?Sized> {
    part: fn(&T) -> &Q,
}

#[cfg(feature = "axum")]
impl<T, Q: ?Sized> ExtensionKey<T, Q> {
    /// By the extension of type `T`, or that part of it which tells them apart.
    #[must_use]
    pub fn new(part: fn(&T) -> &Q) -> Self {
        Self { part }
    }
}

#[cfg(feature = "axum")]
impl<T, Q: ?Sized> Clone for ExtensionKey<T, Q> {
    fn clone(&self) -> Self {
        *self
    }
}

#[cfg(feature = "axum")]
impl<T, Q: ?Sized> Copy for ExtensionKey<T, Q> {}

#[cfg(feature = "axum")]
impl<T, Q: ?Sized> fmt::Debug for ExtensionKey<T, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtensionKey").finish_non_exhaustive()
    }
}

#[cfg(feature = "axum")]
impl<B, T, Q> KeyOf<http::Request<B>> for ExtensionKey<T, Q>
where
    T: Send + Sync + 'static,
    Q: ToOwned + ?Sized,
{
    type Key = Q;

    fn key_of<'a>(&self, request: &'a http::Request<B>) -> Option<Cow<'a, Q>> {
        request.extensions().get::<T>().map(|value| Cow::Borrowed((self.part)(value)))
    }
}
