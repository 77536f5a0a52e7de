//! The cache between front and upstream, as the settings want it.

use anyhow::Context;
use escala_cache::http::{HttpCache, HttpCacheConfig, HttpCacheLayer, Policy, PurgeConfig};
use escala_cache::{Memory, RedisStore};

use super::NAME;
use super::settings::{Profile, Settings};

/// Room for a head beside the longest body in Redis.
const HEAD_BYTES: usize = 64 * 1024;
/// What Redis holds in one value.
const LONGEST_VALUE: usize = 512 * 1024 * 1024;

/// Opens the cache. Its layers may be put in front of any number of upstreams.
///
/// # Errors
/// Redis cannot be reached, or a setting breaks a rule of the cache.
pub(super) async fn open(settings: &Settings) -> anyhow::Result<(HttpCache, HttpCacheLayer)> {
    let mut builder = HttpCache::storage(NAME)
        .memory(Memory::bytes(settings.memory_bytes))
        .weigher(|key, response| key.len() + response.weight())
        .max_value_bytes(settings.max_body_bytes.saturating_add(HEAD_BYTES).min(LONGEST_VALUE));
    if let Some(url) = &settings.redis {
        builder = builder.shared(RedisStore::connect(url.as_str()).await.context("--redis")?);
    }
    let config = HttpCacheConfig::new(NAME).max_body_bytes(settings.max_body_bytes);
    let cache = HttpCache::new(builder.build()?, config)?;
    let mut layer = HttpCacheLayer::new(cache.clone()).policy(match settings.profile {
        Profile::Safe => Policy::safe(),
        Profile::Rfc => Policy::rfc(),
    });
    if let Some(token) = &settings.purge_token {
        layer = layer.purge(PurgeConfig::new(token.reveal()).context("--purge-token")?);
    }
    Ok((cache, layer))
}
