//! The background task that asks one node, again and again, whether it is well.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::BoxError;
use crate::shared::Shared;

/// The caller's probe with its types hidden; it runs once in many seconds, so a box costs nothing.
pub(crate) type Probe<N> = Arc<dyn Fn(&N) -> ProbeFuture + Send + Sync>;
pub(crate) type ProbeFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// One task per node, so that a node that hangs delays no other's probe.
pub(crate) fn spawn_all<N: Send + Sync + 'static>(
    shared: &Arc<Shared<N>>,
    probe: &Probe<N>,
    runtime: &Handle,
) {
    for (index, node) in shared.nodes.iter().enumerate() {
        let task = Task {
            shared: Arc::downgrade(shared),
            node: index,
            probe: Arc::clone(probe),
            ejected_until: node.ejected_until.subscribe(),
        };
        runtime.spawn(task.run());
    }
}

struct Task<N> {
    shared: Weak<Shared<N>>,
    node: usize,
    probe: Probe<N>,
    /// Closes when the set is dropped, which is what ends the task.
    ejected_until: watch::Receiver<Option<Instant>>,
}

impl<N> Task<N> {
    async fn run(mut self) {
        // Somewhere in the first interval, so that the nodes are not all asked in one instant.
        let Some(mut due) = self.interval().map(|interval| {
            let now = Instant::now();
            now + interval.mul_f64(fastrand::f64())
        }) else {
            return;
        };
        loop {
            tokio::select! {
                () = sleep_until(due) => {
                    let Some(()) = self.ask().await else { return };
                }
                changed = self.ejected_until.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let Some(interval) = self.interval() else { return };
            let now = Instant::now();
            // An ejected node is asked the moment its time is up.
            due = match *self.ejected_until.borrow_and_update() {
                Some(until) if until > now => until,
                Some(_) | None => now + interval,
            };
        }
    }

    /// `None` once the set is gone.
    fn interval(&self) -> Option<std::time::Duration> {
        Some(self.shared.upgrade()?.policy.interval(fastrand::f64()))
    }

    /// One probe; `None` once the set is gone.
    async fn ask(&mut self) -> Option<()> {
        // The set is not kept alive while the node is waited for.
        let (limit, started) = {
            let shared = self.shared.upgrade()?;
            let value = &shared.nodes[self.node].value;
            let started = catch_unwind(AssertUnwindSafe(|| (self.probe)(value)));
            (shared.policy.config.probe_timeout, started)
        };
        let result = match started {
            Ok(probe) => {
                let answer = timeout(limit, without_panic(probe));
                tokio::select! {
                    answer = answer => answer.unwrap_or_else(|elapsed| Err(elapsed.into())),
                    () = closed(&mut self.ejected_until) => return None,
                }
            }
            Err(_) => Err(BoxError::from("the probe panicked")),
        };
        let shared = self.shared.upgrade()?;
        if let Err(error) = &result {
            report(&shared.nodes[self.node].name, error);
        }
        shared.probed(self.node, result.is_ok());
        Some(())
    }
}

/// A panic in the caller's probe is a failed probe; it must not end the task, for then the node
/// would never return.
async fn without_panic(mut probe: ProbeFuture) -> Result<(), BoxError> {
    std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| probe.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err(BoxError::from("the probe panicked"))))
    })
    .await
}

async fn closed(ejected_until: &mut watch::Receiver<Option<Instant>>) {
    while ejected_until.changed().await.is_ok() {}
}

#[cfg(feature = "tracing")]
fn report(node: &str, error: &BoxError) {
    tracing::debug!(node, error = %error, "probe failed");
}

#[cfg(not(feature = "tracing"))]
fn report(_: &str, _: &BoxError) {}
