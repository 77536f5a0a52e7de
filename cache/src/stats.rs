//! What a cache has done so far, as plain figures.

/// Receives one figure: name, labels, value. Names that end in `_total` are counters, all
/// others gauges.
pub type Emit<'a> = dyn FnMut(&str, &[(&str, &str)], f64) + 'a;

/// A snapshot of one cache.
///
/// `loads` = `load_successes` + `load_errors` + `load_panics` + `load_timeouts` +
/// `load_aborted` + `loads_in_flight`, always.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CacheStats {
    /// Name of the cache.
    pub name: String,
    /// The layer in memory.
    pub memory: LayerStats,
    /// The shared layer, if there is one.
    pub shared: Option<SharedLayerStats>,
    /// What was heard of other processes, if there is a shared layer.
    pub coherence: Option<CoherenceStats>,
    /// Loads from the source, each for any number of callers.
    pub loads: u64,
    /// Loads that brought a value.
    pub load_successes: u64,
    /// Loads that the source failed.
    pub load_errors: u64,
    /// Loads that panicked.
    pub load_panics: u64,
    /// Loads that took too long.
    pub load_timeouts: u64,
    /// Loads dropped before their end: the runtime was shut down.
    pub load_aborted: u64,
    /// Loads under way now.
    pub loads_in_flight: u64,
    /// Time that ended loads have taken, in seconds.
    pub load_seconds: f64,
    /// Callers who joined the load of another.
    pub coalesced: u64,
    /// Loads of values that were served meanwhile: early, or while revalidating.
    pub refreshes: u64,
    /// Times that a stale value stood in for a load that failed or was slow.
    pub stale_serves: u64,
    /// Loaded or promoted values that were not stored, since a removal or an insertion came
    /// between.
    pub discarded: u64,
    /// Removals by tag, or by other processes, that entries in memory are compared with.
    pub remembered_removals: u64,
}

/// The figures of the layer in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LayerStats {
    /// Reads answered here.
    pub hits: u64,
    /// Reads not answered here.
    pub misses: u64,
    /// Entries held. An expired one counts until it is replaced or evicted.
    pub entries: u64,
    /// Weight of the entries, where bytes are bounded.
    pub bytes: Option<u64>,
    /// Most entries held, or most bytes.
    pub capacity: u64,
    /// Entries that left for want of room.
    pub evictions: u64,
    /// Values found in the shared layer that did not come in: there was no room, and nobody had
    /// asked for them of late.
    pub declined: u64,
    /// Entries that were removed. quick_cache does not tell.
    pub removals: u64,
    /// Entries that another took the place of. quick_cache does not tell.
    pub replacements: u64,
}

/// The figures of the shared layer, as this cache used it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SharedLayerStats {
    /// Reads answered here.
    pub hits: u64,
    /// Reads not answered here, whatever the reason.
    pub misses: u64,
    /// Misses whose bytes were no frame of this cache: corrupted, of another version or schema.
    pub rejected: u64,
    /// Misses without asking, since a removal has yet to reach the store.
    pub distrusted: u64,
    /// Values written.
    pub writes: u64,
    /// Values not written, since another process removed or wrote the key meanwhile.
    pub refused: u64,
    /// Values too long or not encodable, kept in memory only.
    pub oversized: u64,
    /// Operations that failed or got no answer in time.
    pub faults: u64,
    /// Operations not tried, since the store had failed too often.
    pub suspended: u64,
    /// Removals that have yet to reach the store.
    pub pending: u64,
    /// Removals that reached the store only when they were repeated.
    pub replayed: u64,
    /// Messages sent to other processes.
    pub told: u64,
}

/// What a cache has heard of other processes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CoherenceStats {
    /// Whether every message up to the last heartbeat has arrived.
    pub up: bool,
    /// Messages received, one's own among them.
    pub received: u64,
    /// Messages that were none of ours.
    pub unreadable: u64,
    /// Times that messages were missed; memory was then confirmed by the shared layer.
    pub gaps: u64,
    /// Subscriptions made anew, since the former was dead.
    pub resubscriptions: u64,
    /// Messages on their way at the last heartbeat.
    pub behind: u64,
}

impl CacheStats {
    /// Hands every figure to `emit`, labelled with the name of the cache.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            memory,
            shared,
            coherence,
            loads,
            load_successes,
            load_errors,
            load_panics,
            load_timeouts,
            load_aborted,
            loads_in_flight,
            load_seconds,
            coalesced,
            refreshes,
            stale_serves,
            discarded,
            remembered_removals,
        } = self;
        memory.visit(name, emit);
        if let Some(shared) = shared {
            shared.visit(name, emit);
        }
        if let Some(coherence) = coherence {
            coherence.visit(name, emit);
        }
        let outcomes = [
            ("success", load_successes),
            ("error", load_errors),
            ("panic", load_panics),
            ("timeout", load_timeouts),
            ("aborted", load_aborted),
        ];
        for (outcome, count) in outcomes {
            let labels = [("cache", name.as_str()), ("outcome", outcome)];
            emit("cache_load_outcomes_total", &labels, figure(*count));
        }
        let labels = [("cache", name.as_str())];
        emit("cache_loads_total", &labels, figure(*loads));
        emit("cache_loads_in_flight", &labels, figure(*loads_in_flight));
        emit("cache_coalesced_total", &labels, figure(*coalesced));
        emit("cache_discarded_total", &labels, figure(*discarded));
        emit("cache_load_seconds_total", &labels, *load_seconds);
        emit("cache_refreshes_total", &labels, figure(*refreshes));
        emit("cache_stale_serves_total", &labels, figure(*stale_serves));
        emit("cache_remembered_removals", &labels, figure(*remembered_removals));
    }
}

impl LayerStats {
    fn visit(&self, name: &str, emit: &mut Emit<'_>) {
        let Self {
            hits,
            misses,
            entries,
            bytes,
            capacity,
            evictions,
            declined,
            removals,
            replacements,
        } = self;
        let labels = [("cache", name), ("layer", "memory")];
        emit("cache_hits_total", &labels, figure(*hits));
        emit("cache_misses_total", &labels, figure(*misses));
        emit("cache_entries", &labels, figure(*entries));
        emit("cache_capacity", &labels, figure(*capacity));
        emit("cache_declined_total", &labels, figure(*declined));
        if let Some(bytes) = bytes {
            emit("cache_bytes", &labels, figure(*bytes));
        }
        for (cause, count) in
            [("size", evictions), ("removed", removals), ("replaced", replacements)]
        {
            let labels = [("cache", name), ("layer", "memory"), ("cause", cause)];
            emit("cache_evictions_total", &labels, figure(*count));
        }
    }
}

impl SharedLayerStats {
    fn visit(&self, name: &str, emit: &mut Emit<'_>) {
        let Self {
            hits,
            misses,
            rejected,
            distrusted,
            writes,
            refused,
            oversized,
            faults,
            suspended,
            pending,
            replayed,
            told,
        } = self;
        let labels = [("cache", name), ("layer", "shared")];
        emit("cache_hits_total", &labels, figure(*hits));
        emit("cache_misses_total", &labels, figure(*misses));
        emit("cache_rejected_total", &labels, figure(*rejected));
        emit("cache_distrusted_total", &labels, figure(*distrusted));
        emit("cache_writes_total", &labels, figure(*writes));
        emit("cache_oversized_total", &labels, figure(*oversized));
        emit("cache_faults_total", &labels, figure(*faults));
        emit("cache_suspended_total", &labels, figure(*suspended));
        emit("cache_refused_total", &labels, figure(*refused));
        emit("cache_pending_removals", &labels, figure(*pending));
        emit("cache_replayed_removals_total", &labels, figure(*replayed));
        emit("cache_messages_sent_total", &labels, figure(*told));
    }
}

impl CoherenceStats {
    fn visit(&self, name: &str, emit: &mut Emit<'_>) {
        let Self { up, received, unreadable, gaps, resubscriptions, behind } = self;
        let labels = [("cache", name)];
        emit("cache_coherence_up", &labels, f64::from(u8::from(*up)));
        emit("cache_messages_received_total", &labels, figure(*received));
        emit("cache_messages_unreadable_total", &labels, figure(*unreadable));
        emit("cache_message_gaps_total", &labels, figure(*gaps));
        emit("cache_resubscriptions_total", &labels, figure(*resubscriptions));
        emit("cache_messages_behind", &labels, figure(*behind));
    }
}

/// Exact up to 2^53, which no counter here reaches in a century.
pub(crate) fn figure(count: u64) -> f64 {
    count as f64
}
