//! The cache between front and upstream, as the settings want it.

use anyhow::Context;
use escala_cache::http::StoredResponse;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer, Policy, PurgeConfig};
use escala_cache::{Cache, Memory, RedisStore};

use super::NAME;
use super::settings::{Profile, Settings};

/// Opens the cache. Its layers may be put in front of any number of upstreams.
///
/// # Errors
/// Redis cannot be reached, or a setting breaks a rule of the cache.
pub(super) async fn open(settings: &Settings) -> anyhow::Result<HttpCacheLayer> {
    let mut builder = Cache::<String, StoredResponse>::builder(NAME)
        .memory(Memory::entries(settings.max_entries));
    if let Some(url) = &settings.redis {
        builder = builder.shared(RedisStore::connect(url.as_str()).await.context("--redis")?);
    }
    let config = HttpCacheConfig::new(NAME).max_body_bytes(settings.max_body);
    let cache = HttpCache::new(builder.build()?, config)?;
    let mut layer = HttpCacheLayer::new(cache).policy(match settings.profile {
        Profile::Safe => Policy::safe(),
        Profile::Rfc => Policy::rfc(),
    });
    if let Some(token) = &settings.purge_token {
        layer = layer.purge(PurgeConfig::new(token.reveal()).context("--purge-token")?);
    }
    Ok(layer)
}
