//! A strategy of one's own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::latency::Estimate;
use crate::select::NodeSet;
use crate::topology::Seat;
use crate::{Freshness, Strategy};

/// Chooses among replicas that may serve a read, where no [`Strategy`] will do.
///
/// Which nodes may serve, and what happens when one fails or none may, is not its business: all that
/// holds for any strategy. It is asked on every read, on any thread, and should neither block nor
/// allocate.
///
/// ```
/// # use std::sync::Arc;
/// # use escala_replicas::{Balancer, Candidates, ConfigError, Replicas};
/// /// All to the one with the least in flight, whatever the weights.
/// struct LeastConnections;
///
/// impl Balancer for LeastConnections {
///     fn choose(&self, candidates: &Candidates<'_>) -> Option<usize> {
///         let candidates = candidates.iter().enumerate();
///         Some(candidates.min_by_key(|(_, candidate)| candidate.in_flight)?.0)
///     }
/// }
///
/// # fn main() -> Result<(), ConfigError> {
/// let set = Replicas::without_primary().replica("a", 1, 'a').replica("b", 1, 'b');
/// let set = set.strategy(Arc::new(LeastConnections)).build()?;
/// # Ok(())
/// # }
/// ```
pub trait Balancer: Send + Sync + 'static {
    /// The position of the chosen one among the candidates. `None`, or a position that there is not,
    /// leaves the choice to [`Strategy::LeastLoaded`].
    fn choose(&self, candidates: &Candidates<'_>) -> Option<usize>;

    /// Whether requests must be timed for [`Candidate::latency`], which costs two readings of the clock
    /// for each request while they are few, for one in 32 while they are many.
    fn wants_latency(&self) -> bool {
        false
    }

    /// The name used in statistics.
    fn name(&self) -> &'static str {
        "custom"
    }
}

/// What a [`Balancer`] chooses among: one replica at least, in the order they were added.
pub struct Candidates<'a> {
    nodes: NodeSet,
    view: &'a dyn View,
}

/// What is known of one candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its share; lessened while it starts slowly, so to be compared with the others' only.
    pub weight: u32,
    /// Picks that have not ended.
    pub in_flight: u64,
    /// How long it takes to answer, by the peak-sensitive average of
    /// [`Strategy::PeakEwma`]; `None` if unknown.
    pub latency: Option<Duration>,
    /// Where it stands.
    pub zone: Option<&'a str>,
    /// How far its data has come.
    pub freshness: Freshness,
}

/// A snapshot without the type of its nodes.
pub(crate) trait View {
    fn candidate(&self, at: usize) -> Candidate<'_>;
}

impl<'a> Candidates<'a> {
    pub(crate) fn new(nodes: NodeSet, view: &'a dyn View) -> Self {
        Self { nodes, view }
    }

    /// How many there are; not zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// All of them, looked at as they are taken from the iterator.
    pub fn iter(&self) -> impl Iterator<Item = Candidate<'a>> {
        let view = self.view;
        self.nodes.iter().map(move |at| view.candidate(at))
    }
}

impl<'a> Candidate<'a> {
    pub(crate) fn of<N>(seat: &'a Seat<N>, weight: u32, now: u32) -> Self {
        let latency = Estimate::from_bits(seat.node.latency.load(Relaxed));
        let nanos = latency.is_known().then(|| latency.at(now));
        Self {
            name: &seat.node.name,
            weight,
            in_flight: seat.node.in_flight(),
            latency: nanos.map(|nanos| Duration::from_nanos(nanos as u64)),
            zone: seat.settings.zone.as_deref(),
            freshness: **seat.node.freshness.load(),
        }
    }
}

impl fmt::Debug for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A [`Strategy`], or a [`Balancer`] in an [`Arc`]: made from either by `into`.
#[derive(Clone)]
pub struct Selection(pub(crate) Selector);

#[derive(Clone)]
pub(crate) enum Selector {
    Strategy(Strategy),
    Balancer(Arc<dyn Balancer>),
}

impl Selection {
    pub(crate) fn name(&self) -> &'static str {
        match &self.0 {
            Selector::Strategy(strategy) => strategy.as_str(),
            Selector::Balancer(balancer) => balancer.name(),
        }
    }

    pub(crate) fn wants_latency(&self) -> bool {
        match &self.0 {
            Selector::Strategy(strategy) => *strategy == Strategy::PeakEwma,
            Selector::Balancer(balancer) => balancer.wants_latency(),
        }
    }

    pub(crate) fn ignores_weights(&self) -> bool {
        matches!(self.0, Selector::Strategy(Strategy::RoundRobin))
    }
}

impl From<Strategy> for Selection {
    fn from(strategy: Strategy) -> Self {
        Self(Selector::Strategy(strategy))
    }
}

impl<B: Balancer> From<Arc<B>> for Selection {
    fn from(balancer: Arc<B>) -> Self {
        Self(Selector::Balancer(balancer))
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
