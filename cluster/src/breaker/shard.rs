//! One breaker as many references: a permit holds that of its thread, so that no two threads write
//! to one counter of references.

use std::sync::{Arc as Name, OnceLock};

use super::BreakerConfig;
use super::cell::Cell;
use super::core::Core;
use super::primitives::{Arc, thread};

/// Shards of a breaker that all threads use. Twice as many as processors: threads are numbered as
/// they first come by, and those of them that work at the same time should not share one.
pub(super) fn usual() -> usize {
    // Asked once: it reads files of the system.
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors =
        *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    (2 * processors).next_power_of_two().min(64)
}

/// The core by another reference. Aligned, so that its counter of references is alone on its line.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard {
    core: Arc<Core>,
    index: usize,
}

impl Shard {
    #[inline]
    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    #[inline]
    pub(super) fn cell(&self) -> &Cell {
        self.core.cell(self.index)
    }
}

#[derive(Debug)]
pub(super) struct Shards {
    core: Arc<Core>,
    shards: Box<[Arc<Shard>]>,
}

impl Shards {
    /// `count` is a power of two.
    pub(super) fn new(name: Name<str>, config: BreakerConfig, count: usize) -> Self {
        let core = Core::new(name, config, count);
        let shard = |index| Arc::new(Shard { core: Arc::clone(&core), index });
        Self { shards: (0..count).map(shard).collect(), core }
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// Whether there is a permit.
    pub(super) fn are_held(&self) -> bool {
        self.shards.iter().any(|shard| Arc::strong_count(shard) > 1)
    }

    /// That of the calling thread.
    #[inline]
    pub(super) fn mine(&self) -> &Arc<Shard> {
        &self.shards[thread() & (self.shards.len() - 1)]
    }
}
