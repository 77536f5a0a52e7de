//! The figures of a registry: all circuits together, those it has forgotten included, and a few of
//! them by name.

use crate::Emit;
use crate::breaker::{BreakerStats, State};

/// A registry's figures at one moment.
///
/// The calls are those of all circuits together, of the overflow, and of the circuits that were
/// forgotten: `admitted_total` = `in_flight` + the ways to end below it, at every moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RegistryStats {
    /// The name the registry was made with.
    pub name: String,
    /// Circuits kept.
    pub keys: u64,
    /// Those of them that let every call through.
    pub closed: u64,
    /// Those whose backend is being tried.
    pub half_open: u64,
    /// Those that reject calls.
    pub open: u64,
    /// Circuits made.
    pub created_total: u64,
    /// Circuits forgotten, because they were idle or to make room.
    pub evicted_total: u64,
    /// Calls whose key found no room; see [`KeyOverflow`](crate::KeyOverflow).
    pub overflow_total: u64,
    /// Calls without a key, which no circuit guards.
    pub keyless_total: u64,
    /// Overrides that were not valid: their keys follow the shared configuration.
    pub invalid_overrides_total: u64,
    /// Calls under way.
    pub in_flight: u64,
    /// Calls let through.
    pub admitted_total: u64,
    /// Calls refused. They are not among those let through.
    pub rejected_total: u64,
    /// Calls that ended well.
    pub succeeded_total: u64,
    /// Calls judged as failed.
    pub failed_total: u64,
    /// Calls judged as saying nothing.
    pub ignored_total: u64,
    /// Calls given up early, which count as nothing.
    pub cancelled_total: u64,
    /// Calls given up late, which count as failures.
    pub abandoned_total: u64,
    /// Calls ended by a panic, which count as failures.
    pub panicked_total: u64,
    /// Times a circuit has opened.
    pub opened_total: u64,
    /// Times one began to try its backend.
    pub half_opened_total: u64,
    /// Times one has closed again.
    pub closed_total: u64,
    /// The circuits that are not closed, open ones first and then by calls refused, no more than
    /// [`named_keys`](crate::RegistryConfig::named_keys).
    pub named: Vec<BreakerStats>,
}

/// What circuits have counted, summed up.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    in_flight: u64,
    admitted: u64,
    rejected: u64,
    succeeded: u64,
    failed: u64,
    ignored: u64,
    cancelled: u64,
    abandoned: u64,
    panicked: u64,
    opened: u64,
    half_opened: u64,
    closed: u64,
}

impl Totals {
    pub(super) fn add(&mut self, stats: &BreakerStats) {
        // A figure that is new in there has to be summed or left out here.
        let BreakerStats {
            name: _,
            state: _,
            in_flight,
            consecutive_failures: _,
            window_calls: _,
            window_failures: _,
            admitted_total,
            rejected_total,
            succeeded_total,
            failed_total,
            ignored_total,
            cancelled_total,
            abandoned_total,
            panicked_total,
            opened_total,
            half_opened_total,
            closed_total,
        } = stats;
        self.in_flight += in_flight;
        self.admitted += admitted_total;
        self.rejected += rejected_total;
        self.succeeded += succeeded_total;
        self.failed += failed_total;
        self.ignored += ignored_total;
        self.cancelled += cancelled_total;
        self.abandoned += abandoned_total;
        self.panicked += panicked_total;
        self.opened += opened_total;
        self.half_opened += half_opened_total;
        self.closed += closed_total;
    }

    fn merge(&mut self, other: &Self) {
        let Self {
            in_flight,
            admitted,
            rejected,
            succeeded,
            failed,
            ignored,
            cancelled,
            abandoned,
            panicked,
            opened,
            half_opened,
            closed,
        } = other;
        self.in_flight += in_flight;
        self.admitted += admitted;
        self.rejected += rejected;
        self.succeeded += succeeded;
        self.failed += failed;
        self.ignored += ignored;
        self.cancelled += cancelled;
        self.abandoned += abandoned;
        self.panicked += panicked;
        self.opened += opened;
        self.half_opened += half_opened;
        self.closed += closed;
    }
}

/// What a registry's parts add up to while they are read one after the other.
#[derive(Debug)]
pub(super) struct Sum {
    totals: Totals,
    keys: u64,
    closed: u64,
    half_open: u64,
    open: u64,
    evicted: u64,
    named: Vec<BreakerStats>,
    named_max: usize,
}

impl Sum {
    pub(super) fn new(named_max: usize) -> Self {
        Self {
            totals: Totals::default(),
            keys: 0,
            closed: 0,
            half_open: 0,
            open: 0,
            evicted: 0,
            named: Vec::new(),
            named_max,
        }
    }

    /// A circuit that is kept.
    pub(super) fn add(&mut self, stats: BreakerStats) {
        self.totals.add(&stats);
        self.keys += 1;
        match stats.state {
            State::Closed | State::ForcedClosed => self.closed += 1,
            State::HalfOpen => self.half_open += 1,
            State::Open | State::ForcedOpen => self.open += 1,
        }
        self.name(stats);
    }

    /// Remembers a circuit that is not closed.
    fn name(&mut self, stats: BreakerStats) {
        if stats.state.is_closed() {
            return;
        }
        self.named.push(stats);
        // Sorted now and then, so that many open circuits cost no memory.
        if self.named.len() > 2 * self.named_max + 32 {
            self.cut();
        }
    }

    /// Those of one part that were forgotten.
    pub(super) fn add_forgotten(&mut self, (totals, evicted): (&Totals, u64)) {
        self.totals.merge(totals);
        self.evicted += evicted;
    }

    pub(super) fn finish(
        mut self,
        name: &str,
        overflow: BreakerStats,
        keyless: &BreakerStats,
        invalid_overrides_total: u64,
    ) -> RegistryStats {
        let overflow_total = overflow.admitted_total + overflow.rejected_total;
        self.totals.add(&overflow);
        self.totals.add(keyless);
        self.name(overflow);
        self.cut();
        let totals = self.totals;
        RegistryStats {
            name: name.to_owned(),
            keys: self.keys,
            closed: self.closed,
            half_open: self.half_open,
            open: self.open,
            created_total: self.keys + self.evicted,
            evicted_total: self.evicted,
            overflow_total,
            keyless_total: keyless.admitted_total,
            invalid_overrides_total,
            in_flight: totals.in_flight,
            admitted_total: totals.admitted,
            rejected_total: totals.rejected,
            succeeded_total: totals.succeeded,
            failed_total: totals.failed,
            ignored_total: totals.ignored,
            cancelled_total: totals.cancelled,
            abandoned_total: totals.abandoned,
            panicked_total: totals.panicked,
            opened_total: totals.opened,
            half_opened_total: totals.half_opened,
            closed_total: totals.closed,
            named: self.named,
        }
    }

    fn cut(&mut self) {
        self.named.sort_by(|one, other| {
            let rank =
                |stats: &BreakerStats| (stats.state == State::HalfOpen, stats.rejected_total);
            let ((one_tried, one), (other_tried, other)) = (rank(one), rank(other));
            one_tried.cmp(&other_tried).then(other.cmp(&one))
        });
        self.named.truncate(self.named_max);
    }
}

impl RegistryStats {
    /// Hands out each figure under its field's name with the label `registry`; for each circuit in
    /// [`named`](Self::named) also `named_state` (as [`State::as_gauge`]), `named_rejected_total`
    /// and `named_opened_total` with the label `breaker`, its name.
    pub fn visit(&self, emit: &mut Emit<'_>) {
        let Self {
            name,
            keys,
            closed,
            half_open,
            open,
            created_total,
            evicted_total,
            overflow_total,
            keyless_total,
            invalid_overrides_total,
            in_flight,
            admitted_total,
            rejected_total,
            succeeded_total,
            failed_total,
            ignored_total,
            cancelled_total,
            abandoned_total,
            panicked_total,
            opened_total,
            half_opened_total,
            closed_total,
            named,
        } = self;
        let labels = [("registry", name.as_str())];
        for (figure, value) in [
            ("keys", keys),
            ("closed", closed),
            ("half_open", half_open),
            ("open", open),
            ("created_total", created_total),
            ("evicted_total", evicted_total),
            ("overflow_total", overflow_total),
            ("keyless_total", keyless_total),
            ("invalid_overrides_total", invalid_overrides_total),
            ("in_flight", in_flight),
            ("admitted_total", admitted_total),
            ("rejected_total", rejected_total),
            ("succeeded_total", succeeded_total),
            ("failed_total", failed_total),
            ("ignored_total", ignored_total),
            ("cancelled_total", cancelled_total),
            ("abandoned_total", abandoned_total),
            ("panicked_total", panicked_total),
            ("opened_total", opened_total),
            ("half_opened_total", half_opened_total),
            ("closed_total", closed_total),
        ] {
            emit(figure, &labels, *value as f64);
        }
        for circuit in named {
            let labels = [("registry", name.as_str()), ("breaker", circuit.name.as_str())];
            emit("named_state", &labels, circuit.state.as_gauge());
            emit("named_rejected_total", &labels, circuit.rejected_total as f64);
            emit("named_opened_total", &labels, circuit.opened_total as f64);
        }
    }
}
