//! The memory that a full cache holds.

use anyhow::ensure;
use escala_benches::table::{row, title};
use escala_cache::{Cache, Engine, Memory};
use futures_util::FutureExt as _;

use crate::Effort;
use crate::profile::{Profile, key};

pub(crate) fn run(effort: Effort) -> anyhow::Result<()> {
    let entries = effort.of(100_000, 1_000);
    title(&format!("Memory held per entry, bytes: {entries} entries, keys of 26 bytes"));
    let columns = ["number", "ratio", "300 bytes", "ratio"];
    row("value:", &columns.map(ToOwned::to_owned));
    let moka = (moka(entries, |n| n)?, moka(entries, Profile::new)?);
    let ours = |engine| (ours(entries, engine, |n| n), ours(entries, engine, Profile::new));
    let rows = [
        ("moka::sync, ahash", moka),
        ("escala", ours(Engine::Moka)),
        ("escala, quick_cache", ours(Engine::QuickCache)),
    ];
    for (name, held) in rows {
        let cells = [
            format!("{:.0}", held.0),
            format!("{:.2}", held.0 / moka.0),
            format!("{:.0}", held.1),
            format!("{:.2}", held.1 / moka.1),
        ];
        row(name, &cells);
    }
    Ok(())
}

fn moka<V>(entries: u64, value: impl Fn(u64) -> V) -> anyhow::Result<f64>
where
    V: Clone + Send + Sync + 'static,
{
    let mut kept = None;
    let held = allocation_counter::measure(|| {
        let cache = moka::sync::Cache::builder()
            .max_capacity(entries)
            .build_with_hasher(ahash::RandomState::new());
        for number in 0..entries {
            cache.insert(key(number), value(number));
        }
        cache.run_pending_tasks();
        kept = Some(cache);
    });
    let count = kept.map_or(0, |cache| cache.entry_count());
    ensure!(count == entries, "moka holds {count}");
    Ok(held.bytes_current as f64 / entries as f64)
}

fn ours<V>(entries: u64, engine: Engine, value: impl Fn(u64) -> V) -> f64
where
    V: Clone + Send + Sync + 'static,
{
    let mut kept = None;
    let held = allocation_counter::measure(|| {
        // A quick_cache whose shards fill unevenly would give some up.
        let room = if engine == Engine::QuickCache { entries * 2 } else { entries };
        let memory = Memory::entries(room).engine(engine);
        let cache = Cache::<String, V>::builder("bench").memory(memory).build().expect("valid");
        for number in 0..entries {
            cache.insert(key(number), value(number)).now_or_never().expect("memory only");
        }
        assert_eq!(cache.stats().memory.entries, entries);
        kept = Some(cache);
    });
    drop(kept);
    held.bytes_current as f64 / entries as f64
}
