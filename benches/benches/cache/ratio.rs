//! How often caches of one size hit on the same traces.

use escala_benches::table::{row, title};
use escala_cache::{Cache, Engine, Memory};
use futures_util::FutureExt as _;

use crate::Effort;
use crate::trace::{Trace, all};

/// Reads a key and puts it there if it is absent; says whether it was there.
type Access = Box<dyn FnMut(u64) -> bool>;

pub(crate) fn run(effort: Effort) -> anyhow::Result<()> {
    let capacity = effort.of(10_000, 100);
    let traces = all(capacity, 100 * capacity, effort.of(2_000_000, 5_000));
    title(&format!("Hit ratio, per cent: room for {capacity} of {} keys", 100 * capacity));
    let mut named = contenders(capacity)?;
    let names: Vec<_> = named.iter().map(|(name, _)| (*name).to_owned()).collect();
    row("", &names);
    for Trace { name, keys } in traces {
        let ratios: Vec<_> = named.iter_mut().map(|(_, build)| ratio(build(), &keys)).collect();
        row(name, &ratios.iter().map(|ratio| format!("{ratio:.1}")).collect::<Vec<_>>());
    }
    Ok(())
}

fn ratio(mut access: Access, keys: &[u64]) -> f64 {
    let hits = keys.iter().filter(|key| access(**key)).count();
    100.0 * hits as f64 / keys.len() as f64
}

type Build = Box<dyn Fn() -> Access>;

fn contenders(capacity: usize) -> anyhow::Result<Vec<(&'static str, Build)>> {
    Ok(vec![
        ("moka", Box::new(move || moka(capacity))),
        ("quick_cache", Box::new(move || quick(capacity))),
        ("foyer S3-FIFO", Box::new(move || foyer(capacity))),
        ("escala", Box::new(move || ours(capacity, Engine::Moka))),
        ("escala, quick", Box::new(move || ours(capacity, Engine::QuickCache))),
    ])
}

fn moka(capacity: usize) -> Access {
    let cache = moka::sync::Cache::new(capacity as u64);
    Box::new(move |key| {
        let hit = cache.get(&key) == Some(key);
        if !hit {
            cache.insert(key, key);
        }
        hit
    })
}

fn quick(capacity: usize) -> Access {
    let cache = quick_cache::sync::Cache::new(capacity);
    Box::new(move |key| {
        let hit = cache.get(&key) == Some(key);
        if !hit {
            cache.insert(key, key);
        }
        hit
    })
}

fn foyer(capacity: usize) -> Access {
    let cache: foyer_memory::Cache<u64, u64> = foyer_memory::CacheBuilder::new(capacity)
        .with_eviction_config(foyer_memory::S3FifoConfig::default())
        .build();
    Box::new(move |key| {
        let hit = cache.get(&key).is_some_and(|entry| *entry.value() == key);
        if !hit {
            cache.insert(key, key);
        }
        hit
    })
}

fn ours(capacity: usize, engine: Engine) -> Access {
    let memory = Memory::entries(capacity as u64).engine(engine);
    let cache: Cache<u64, u64> = Cache::builder("bench").memory(memory).build().expect("valid");
    Box::new(move |key| {
        let hit = cache.get(&key).now_or_never() == Some(Some(key));
        if !hit {
            cache.insert(key, key).now_or_never().expect("memory only");
        }
        hit
    })
}
