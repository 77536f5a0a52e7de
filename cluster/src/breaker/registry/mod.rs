//! A circuit for every key: host, tenant, route. Bounded, and those nobody uses are forgotten.

mod config;
mod key;
mod keyed;
mod name;
mod part;
mod shared;
mod stats;

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Display};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::config::{KeyOverflow, RegistryConfig};
#[cfg(feature = "axum")]
pub use self::key::{ExtensionKey, HashedKey, HeaderKey, HostKey, RouteKey};
pub use self::key::{KeyFn, KeyOf, key_fn};
pub use self::keyed::Keyed;
use self::shared::Shared;
pub use self::stats::RegistryStats;
use super::{Breaker, BreakerConfig, BreakerStats, Open, Permit, Transition};
use crate::ConfigError;

/// A circuit for every key. A cheap handle: clones, and every layer and service made from them,
/// share the circuits.
///
/// [`BreakerLayer::keyed`] puts it around a tower service; [`admit`](Self::admit) and
/// [`breaker`](Self::breaker) are for code that is none.
///
/// # Example
/// ```
/// use escala_cluster::{BreakerRegistry, RegistryConfig};
///
/// let hosts = BreakerRegistry::<String>::new("hosts", RegistryConfig::default())?;
/// hosts.admit("a.example")?.failed();
/// hosts.admit("b.example")?.succeeded();
/// assert_eq!(hosts.breaker("a.example").stats().failed_total, 1);
/// assert_eq!(hosts.stats().keys, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`BreakerLayer::keyed`]: crate::BreakerLayer::keyed
///
/// # Limits
/// At most [`max_keys`](RegistryConfig::max_keys) circuits. One is forgotten when it has not been
/// used for [`idle_after`](RegistryConfig::idle_after). When room is needed, earlier: if it is
/// closed and holds nothing against its backend (no failures in a row and none in the windows); if
/// it is closed and had no call for the length of its window of time; and, where none of these is
/// found, if its open time is over and nobody has tried its backend for as long (10 s without such
/// a window), which loses how often it has opened. Never forgotten are circuits whose open time or
/// ramp is not over, circuits moved by hand, and those with a call under way or a handle outside.
/// So a flood of new keys pushes out no circuit that matters: a key for which no room is found
/// meets the [`overflow`](RegistryConfig::overflow). Whoever chooses keys and makes them fail can
/// fill the registry all the same, but has to go on with it.
///
/// There is no background task: each new key looks at a few circuits in turn.
/// [`evict_idle`](Self::evict_idle) looks at all.
///
/// # Cost
/// A call whose circuit is kept: one hash, one lock that other readers do not touch, one look into
/// a table, some 25 ns in all, and what a [`Breaker`] costs; no allocation. A new key makes a
/// circuit, some 2 µs and 2 KiB, and stops one sixteenth of the keys for a moment.
pub struct BreakerRegistry<K> {
    shared: Arc<Shared<K>>,
}

impl<K> BreakerRegistry<K>
where
    K: Hash + Eq + Display,
{
    /// An empty registry. The name is what logs and statistics call it; a circuit is called
    /// `name/key`.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    pub fn new(name: impl Into<Arc<str>>, config: RegistryConfig) -> Result<Self, ConfigError> {
        Ok(Self { shared: Arc::new(Shared::new(name.into(), config, None)?) })
    }

    /// An empty registry some of whose keys have a configuration of their own: the closure says
    /// which, when their circuit is made, and `None` for the others. A configuration that is not
    /// valid counts as none and in [`RegistryStats::invalid_overrides_total`].
    ///
    /// # Errors
    /// The first field of the shared configuration that breaks its rule.
    pub fn with_overrides(
        name: impl Into<Arc<str>>,
        config: RegistryConfig,
        overrides: impl Fn(&K) -> Option<BreakerConfig> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let overrides = Some(Box::new(overrides) as _);
        Ok(Self { shared: Arc::new(Shared::new(name.into(), config, overrides)?) })
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The right to one call for this key, whose circuit is made if it is not there.
    ///
    /// # Errors
    /// [`Open`] while its circuit is open, or half-open with all its permits handed out.
    pub fn admit<Q>(&self, key: &Q) -> Result<Permit, Open>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut permit = self.admit_young(Some(Cow::Borrowed(key)))?;
        permit.start_age();
        Ok(permit)
    }

    /// The circuit of this key, which is made if it is not there. While the handle lives, the
    /// circuit is not forgotten.
    ///
    /// For a key that finds no room, the circuit all such keys share; see [`KeyOverflow`].
    pub fn breaker<Q>(&self, key: &Q) -> Breaker
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.shared.hash(key);
        self.get_hashed(hash, key).unwrap_or_else(|| self.shared.make(hash, key.to_owned()))
    }

    /// The circuit of this key if it is there.
    pub fn get<Q>(&self, key: &Q) -> Option<Breaker>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get_hashed(self.shared.hash(key), key)
    }

    fn get_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Breaker>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.shared.read(hash).find(hash, key).cloned()
    }

    /// Forgets every circuit that has been idle for long enough, and says how many. A look at each
    /// one: for a timer, where few new keys come but memory matters.
    #[expect(clippy::must_use_candidate, reason = "asked for what it does")]
    pub fn evict_idle(&self) -> usize {
        self.shared.evict_idle()
    }

    /// Obeys another configuration from now on, and keeps the circuits and what they have counted;
    /// see [`Breaker::reconfigure`]. Those with a configuration of their own keep that. A lower bound
    /// makes room at once, as far as circuits may be forgotten; those beyond it stay until they may,
    /// and go as new keys come. Of two configurations set at once the last one holds for all.
    ///
    /// # Errors
    /// The first field that breaks its rule; nothing has changed then.
    pub fn reconfigure(&self, config: RegistryConfig) -> Result<(), ConfigError> {
        self.shared.reconfigure(config)
    }

    /// Tells `listener` about each move of each circuit, in the place of the listener before; see
    /// [`Breaker::on_transition`]. A listener that holds a handle of this registry keeps it in
    /// memory for good.
    pub fn on_transition(&self, listener: impl Fn(&Transition) + Send + Sync + 'static) {
        self.shared.set_listener(Arc::new(listener));
    }

    /// The figures of each circuit kept, at most `limit` of them, in no order.
    #[must_use]
    pub fn breakers(&self, limit: usize) -> Vec<BreakerStats> {
        let mut figures = Vec::new();
        for part in self.shared.each() {
            let left = limit - figures.len();
            let handles: Vec<_> = part.iter().take(left).map(|(kept, _)| kept.clone()).collect();
            drop(part);
            figures.extend(handles.iter().map(Breaker::stats));
        }
        figures
    }

    /// The figures as of now: a look at every circuit, one sixteenth of them after the other. So
    /// `keys` may be a few too many while keys come and go; no call is missed or counted twice.
    #[must_use]
    pub fn stats(&self) -> RegistryStats {
        let shared = &self.shared;
        let mut sum = stats::Sum::new(shared.config().named_keys as usize);
        for part in shared.each() {
            // The handles keep the circuits from being forgotten, so that their figures can be
            // read when nobody waits for the lock.
            sum.add_forgotten(part.forgotten());
            let handles: Vec<_> = part.iter().map(|(kept, _)| kept.clone()).collect();
            drop(part);
            handles.iter().for_each(|breaker| sum.add(breaker));
        }
        sum.finish(&stats::Beside {
            name: &shared.name,
            overflow: &shared.overflow,
            keyless: &shared.keyless,
            invalid_overrides: shared.invalid_overrides.load(Ordering::Relaxed),
        })
    }

    /// A permit whose age starts when the caller says so. Without a key, one of the circuit that
    /// never opens.
    pub(super) fn admit_young<Q>(&self, key: Option<Cow<'_, Q>>) -> Result<Permit, Open>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let shared = &self.shared;
        let Some(key) = key else { return shared.keyless.admit_young() };
        let hash = shared.hash(&*key);
        // Under the lock, which spares counting another handle, as long as the circuit does not
        // move: whoever listens to that may well ask the registry.
        let kept = {
            let part = shared.read(hash);
            match part.find(hash, &*key) {
                None => None,
                Some(breaker) => match breaker.admit_quietly() {
                    Some(answer) => return answer,
                    None => Some(breaker.clone()),
                },
            }
        };
        kept.unwrap_or_else(|| shared.make(hash, key.into_owned())).admit_young()
    }
}

impl<K> Clone for BreakerRegistry<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> fmt::Debug for BreakerRegistry<K> {
    /// Without the keys, which may be many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerRegistry")
            .field("name", &self.shared.name)
            .field("keys", &self.shared.taken())
            .finish_non_exhaustive()
    }
}
