//! What a breaker's users hold in their hands.

use std::sync::Arc as Name;
use std::sync::atomic::{Ordering::Acquire, fence};
use std::time::Duration;

use super::core::Core;
use super::machine::Machine;
use super::primitives::Arc;
use super::shard::{self, Shards};
use super::{BreakerConfig, BreakerStats, Judgement, Open, Permit, State, Transition};
use crate::ConfigError;

/// One circuit. A cheap handle: clones, and every layer and service made from them, share it.
///
/// A [`BreakerLayer`](crate::BreakerLayer) puts it around a tower service; [`admit`](Self::admit) is for code that is
/// none.
///
/// # Example
/// ```
/// use escala_cluster::{Breaker, BreakerConfig};
///
/// fn quote() -> Result<u32, std::io::Error> { Ok(42) }
///
/// let breaker = Breaker::new("quotes", BreakerConfig::default())?;
/// let permit = breaker.admit()?; // or an error that says when to ask again
/// match quote() {
///     Ok(_) => permit.succeeded(),
///     Err(_) => permit.failed(),
/// }
/// assert_eq!(breaker.stats().succeeded_total, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Modes
/// A circuit moves by itself until it is told otherwise: [`force_open`](Self::force_open),
/// [`force_close`](Self::force_close), [`disable`](Self::disable) and [`shadow`](Self::shadow) hold
/// until [`reset`](Self::reset) or until another of them is called.
///
/// # Cost
/// A call on a closed circuit that succeeds: no lock, no allocation, and nothing written that
/// another thread reads; one clock read with a window of time, two with the slow-call rate, none
/// without, and one if the call has to wait and may count as given up. The exceptions are the first
/// call of each bucket (a tenth of the window of time), which takes the lock unless it is taken, and
/// with the slow-call rate one call in each eighth of `slow_call` while others are too slow. Any
/// other result on a closed
/// circuit takes a short lock. A rejection by an open circuit: no lock and a clock read. While
/// half-open or in the ramp, each call takes the lock.
///
/// # Concurrency
/// Results of calls that end at the same moment count in one order or the other. Failures in a row
/// are counted across all threads: so many failures with no success between them open the circuit,
/// and a success that ends among them starts the row anew.
#[derive(Debug, Clone)]
pub struct Breaker {
    shards: Arc<Shards>,
}

impl Breaker {
    /// A closed circuit. The name is what logs and statistics call it.
    ///
    /// # Errors
    /// The first field of the configuration that breaks its rule.
    pub fn new(name: impl Into<Name<str>>, config: BreakerConfig) -> Result<Self, ConfigError> {
        Self::with_shards(name, config, shard::usual())
    }

    /// With so many shards (a power of two): one for a breaker of which there are very many.
    pub(crate) fn with_shards(
        name: impl Into<Name<str>>,
        config: BreakerConfig,
        shards: usize,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::unchecked(name.into(), config, shards))
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core().name()
    }

    /// Where the circuit stands now.
    #[must_use]
    pub fn state(&self) -> State {
        self.core().state()
    }

    /// The right to one call.
    ///
    /// # Errors
    /// [`Open`] while the circuit is open, or half-open with all its permits handed out.
    pub fn admit(&self) -> Result<Permit, Open> {
        let mut permit = self.admit_young()?;
        permit.start_age();
        Ok(permit)
    }

    /// The configuration it obeys now.
    #[must_use]
    pub fn config(&self) -> BreakerConfig {
        self.core().config()
    }

    /// Obeys another configuration from now on, and keeps what it has counted: failures in a row, a
    /// trial that is going on (decided by the new numbers), an open time that has begun.
    ///
    /// A window of another length keeps what fits into it: of calls the last so many exactly, of
    /// time give or take a bucket. A longer one holds what the shorter one held, and fills up from
    /// there. With another [`slow_call`](BreakerConfig::slow_call), calls under way are measured by
    /// it when they end; those that wait already are not noticed before.
    ///
    /// # Errors
    /// The first field that breaks its rule; nothing has changed then.
    pub fn reconfigure(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        config.validate()?;
        self.core().reconfigure(config);
        Ok(())
    }

    /// Tells `listener` about each move of the circuit, in the place of the listener before.
    ///
    /// It is called by whoever caused the move, outside of every lock, and should be quick. If it
    /// panics, that is counted and nothing else happens.
    pub fn on_transition(&self, listener: impl Fn(&Transition) + Send + Sync + 'static) {
        self.core().hook().set(Name::new(listener));
    }

    /// Rejects every call.
    pub fn force_open(&self) {
        self.core().set_mode(false, Machine::force_open);
    }

    /// Lets every call through, whatever their results, which are counted in the statistics only.
    pub fn force_close(&self) {
        self.core().set_mode(false, Machine::force_close);
    }

    /// Lets every call through and counts nothing, as if there were no breaker. Calls that began
    /// before are counted as they end.
    pub fn disable(&self) {
        self.core().set_mode(false, Machine::disable);
    }

    /// Measures and moves as ever, and rejects nothing: what would be rejected goes through, is
    /// counted in [`shadow_rejected_total`](BreakerStats::shadow_rejected_total), and its result
    /// counts in the statistics only. A forced or disabled circuit starts closed.
    pub fn shadow(&self) {
        self.core().set_mode(true, |machine| {
            if machine.is_forced() {
                machine.reset();
            }
        });
    }

    /// Closes the circuit with nothing counted, and lets it move by itself again. Calls under way
    /// change nothing any more.
    pub fn reset(&self) {
        self.core().set_mode(false, Machine::reset);
    }

    /// The figures as of now.
    #[must_use]
    pub fn stats(&self) -> BreakerStats {
        self.core().stats()
    }

    /// The rejection that a call would meet now, as far as that is known without a lock.
    pub(crate) fn rejects(&self) -> Option<Open> {
        self.core().rejects()
    }

    /// [`rejects`](Self::rejects) after a look at the calls under way, with the lock.
    #[cold]
    pub(crate) fn refusal(&self) -> Option<Open> {
        self.core().refusal()
    }

    /// Counts a call that is refused because [`rejects`](Self::rejects) or
    /// [`refusal`](Self::refusal) has said so before.
    pub(crate) fn refuse(&self) -> Open {
        self.shards.mine().cell().rejected();
        // Without one the circuit has moved since: the next call may go through.
        self.refusal().unwrap_or(Open { retry_after: Duration::ZERO })
    }

    /// Counts a call that ended before it could be made: its service did not become ready.
    #[cold]
    pub(crate) fn unready(&self, judgement: Judgement) {
        let shard = self.shards.mine();
        if let Some(call) = shard.core().admit_unready(shard.cell()) {
            Permit::new(Arc::clone(shard), call).judged(judgement);
        }
    }

    /// A permit whose age starts when the caller says so.
    #[inline]
    pub(crate) fn admit_young(&self) -> Result<Permit, Open> {
        match self.admit_at_once() {
            Some(permit) => Ok(permit),
            None => self.admit_slowly(),
        }
    }

    /// [`admit_young`](Self::admit_young) if the circuit lets all calls in. Apart, because a permit
    /// that comes from one place only need not go through memory.
    #[inline]
    pub(crate) fn admit_at_once(&self) -> Option<Permit> {
        let shard = self.shards.mine();
        let call = shard.core().admit(shard.cell())?;
        Some(Permit::new(Arc::clone(shard), call))
    }

    /// [`admit_young`](Self::admit_young) after [`admit_at_once`](Self::admit_at_once) has not.
    #[cold]
    pub(crate) fn admit_slowly(&self) -> Result<Permit, Open> {
        let shard = self.shards.mine();
        Ok(match shard.core().admit_slowly(shard.cell())? {
            Some(call) => Permit::new(Arc::clone(shard), call),
            None => Permit::unseen(),
        })
    }

    /// Without a check, for a configuration that has been checked.
    pub(super) fn unchecked(name: Name<str>, config: BreakerConfig, shards: usize) -> Self {
        Self { shards: Arc::new(Shards::new(name, config, shards)) }
    }

    pub(super) fn core(&self) -> &Core {
        self.shards.core()
    }

    /// What a call meets as long as that moves nothing, so that nobody is told: `None` if it might.
    #[inline]
    pub(super) fn admit_quietly(&self) -> Option<Result<Permit, Open>> {
        let shard = self.shards.mine();
        let call = shard.core().admit_quietly(shard.cell())?;
        Some(call.map(|call| Permit::new(Arc::clone(shard), call)))
    }

    /// Whether somebody else has a handle, or a permit: a call is under way until all that it means
    /// is known, which is longer than the statistics count it.
    pub(super) fn is_held(&self) -> bool {
        let held = Arc::strong_count(&self.shards) > 1;
        // Each count is read before what its last holder did is looked at. A handle may have
        // become a permit.
        fence(Acquire);
        let admitted = self.shards.are_held();
        fence(Acquire);
        held || admitted
    }
}
