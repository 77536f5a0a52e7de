//! The figures of a registry: all circuits together, those it has forgotten included, and a few of
//! them by name.

use crate::Emit;
use crate::breaker::cell::Sums;
use crate::breaker::core::Core;
use crate::breaker::machine::Moves;
use crate::breaker::{Breaker, BreakerStats, State};

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
    /// Calls let through by circuits in shadow mode that would have been refused.
    pub shadow_rejected_total: u64,
    /// Calls that ended well.
    pub succeeded_total: u64,
    /// Calls judged as failed.
    pub failed_total: u64,
    /// Calls that a backend throttled.
    pub throttled_total: u64,
    /// Calls judged as saying nothing.
    pub ignored_total: u64,
    /// Calls given up early, which count as nothing.
    pub cancelled_total: u64,
    /// Calls given up late, which count as failures.
    pub abandoned_total: u64,
    /// Calls ended by a panic, which count as failures.
    pub panicked_total: u64,
    /// Slow calls, however they ended.
    pub slow_total: u64,
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
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    sums: Sums,
    moves: Moves,
}

impl Totals {
    pub(super) fn add(&mut self, core: &Core) {
        self.merge(&Self { sums: core.rest().sums, moves: core.moves() });
    }

    fn merge(&mut self, other: &Self) {
        self.sums.add(&other.sums);
        let Moves { opened, half_opened, closed } = other.moves;
        self.moves.opened += opened;
        self.moves.half_opened += half_opened;
        self.moves.closed += closed;
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

/// What is counted beside the circuits of the keys.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    pub(super) name: &'a str,
    pub(super) overflow: &'a Breaker,
    pub(super) keyless: &'a Breaker,
    pub(super) invalid_overrides: u64,
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
    pub(super) fn add(&mut self, breaker: &Breaker) {
        self.totals.add(breaker.core());
        self.keys += 1;
        match self.name(breaker) {
            State::Closed | State::ForcedClosed | State::Disabled => self.closed += 1,
            State::HalfOpen => self.half_open += 1,
            State::Open | State::ForcedOpen => self.open += 1,
        }
    }

    /// Those of one part that were forgotten.
    pub(super) fn add_forgotten(&mut self, (totals, evicted): (&Totals, u64)) {
        self.totals.merge(totals);
        self.evicted += evicted;
    }

    /// Remembers a circuit that is not closed.
    fn name(&mut self, breaker: &Breaker) -> State {
        let state = breaker.state();
        if !state.is_closed() {
            self.named.push(breaker.stats());
            // Sorted now and then, so that many open circuits cost no memory.
            if self.named.len() > 2 * self.named_max + 32 {
                self.cut();
            }
        }
        state
    }

    fn cut(&mut self) {
        let rank = |stats: &BreakerStats| {
            (stats.state == State::HalfOpen, std::cmp::Reverse(stats.rejected_total))
        };
        self.named.sort_by_key(rank);
        self.named.truncate(self.named_max);
    }

    pub(super) fn finish(mut self, beside: &Beside<'_>) -> RegistryStats {
        let Beside { name, overflow, keyless, invalid_overrides } = *beside;
        let (overflow_calls, keyless_calls) =
            (overflow.core().rest().sums.calls(), keyless.core().rest().sums.calls());
        self.totals.add(overflow.core());
        self.totals.add(keyless.core());
        self.name(overflow);
        self.cut();
        let Totals { sums, moves } = self.totals;
        RegistryStats {
            name: name.to_owned(),
            keys: self.keys,
            closed: self.closed,
            half_open: self.half_open,
            open: self.open,
            created_total: self.keys + self.evicted,
            evicted_total: self.evicted,
            overflow_total: overflow_calls,
            keyless_total: keyless_calls,
            invalid_overrides_total: invalid_overrides,
            in_flight: sums.in_flight(),
            admitted_total: sums.admitted,
            rejected_total: sums.rejected,
            shadow_rejected_total: sums.shadow_rejected,
            succeeded_total: sums.succeeded,
            failed_total: sums.failed,
            throttled_total: sums.throttled,
            ignored_total: sums.ignored,
            cancelled_total: sums.cancelled,
            abandoned_total: sums.abandoned,
            panicked_total: sums.panicked,
            slow_total: sums.slow,
            opened_total: moves.opened,
            half_opened_total: moves.half_opened,
            closed_total: moves.closed,
            named: self.named,
        }
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
            shadow_rejected_total,
            succeeded_total,
            failed_total,
            throttled_total,
            ignored_total,
            cancelled_total,
            abandoned_total,
            panicked_total,
            slow_total,
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
            ("shadow_rejected_total", shadow_rejected_total),
            ("succeeded_total", succeeded_total),
            ("failed_total", failed_total),
            ("throttled_total", throttled_total),
            ("ignored_total", ignored_total),
            ("cancelled_total", cancelled_total),
            ("abandoned_total", abandoned_total),
            ("panicked_total", panicked_total),
            ("slow_total", slow_total),
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
