//! The batcher as a tower layer.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use tower_layer::Layer;
use tower_service::Service;

use super::config::BatchConfig;
use super::lookup::Batcher;
use crate::config::ConfigError;

/// Turns a service for many keys into one for a single key, whose concurrent calls become batches.
///
/// The inner service answers a `Vec<K>` with pairs of key and value, for instance a
/// `HashMap<K, V>`; the outer one answers a `K` with an `Option<V>`. What holds for the whole stands
/// in the [module](super).
///
/// ```
/// use std::collections::HashMap;
/// use escala_pool::{BatchConfig, BatchLayer};
/// use tower::{Service, ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let mut lengths = ServiceBuilder::new()
///     .layer(BatchLayer::new(BatchConfig::new().max_batch(100))?)
///     .service_fn(|words: Vec<&'static str>| async move {
///         Ok::<_, std::io::Error>(words.into_iter().map(|w| (w, w.len())).collect::<HashMap<_, _>>())
///     });
/// assert_eq!(lengths.ready().await?.call("four").await?, Some(4));
/// # Ok(())
/// # }
/// ```
pub struct BatchLayer<K, V> {
    config: BatchConfig,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> BatchLayer<K, V> {
    /// Makes a layer with these limits.
    ///
    /// # Errors
    /// A limit breaks its rule.
    pub fn new(config: BatchConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config, types: PhantomData })
    }
}

impl<K, V, S> Layer<S> for BatchLayer<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
    S: Service<Vec<K>> + Clone + Send + 'static,
    S::Response: IntoIterator<Item = (K, V)>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send,
{
    type Service = Batcher<K, V>;

    fn layer(&self, service: S) -> Batcher<K, V> {
        Batcher::with_valid(self.config.clone(), service)
    }
}

impl<K, V> Clone for BatchLayer<K, V> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for BatchLayer<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLayer").field("config", &self.config).finish()
    }
}
