//! The rival: tower's power of two choices over the same services.

use std::time::Duration;

use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma, PendingRequests};
use tower::{BoxError, Service};

/// tower's own default for a node that has not answered yet is left to the user; linkerd's is taken.
const DEFAULT_RTT: Duration = Duration::from_millis(30);
/// As ours.
const DECAY: Duration = Duration::from_secs(10);

type List<S> = ServiceList<Vec<S>>;
pub(crate) type Pending<S, Req> = Balance<List<PendingRequests<S>>, Req>;
pub(crate) type Ewma<S, Req> = Balance<List<PeakEwma<S>>, Req>;

/// By what is in flight.
pub(crate) fn pending<S, Req>(services: &[S]) -> Pending<S, Req>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    let services = services.iter().cloned();
    let services = services.map(|one| PendingRequests::new(one, CompleteOnResponse::default()));
    Balance::new(ServiceList::new(services.collect()))
}

/// By latency and what is in flight.
pub(crate) fn ewma<S, Req>(services: &[S]) -> Ewma<S, Req>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    let decay = DECAY.as_nanos() as f64;
    let services = services.iter().cloned();
    let services =
        services.map(|one| PeakEwma::new(one, DEFAULT_RTT, decay, CompleteOnResponse::default()));
    Balance::new(ServiceList::new(services.collect()))
}
