//! The background task that asks one node, again and again, whether it is well.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::BoxError;
use crate::health::Policy;
use crate::node::{Node, Notice};

/// The caller's probe with its types hidden; it runs once in many seconds, so a box costs nothing.
pub(crate) type Probe<N> = Arc<dyn Fn(&N) -> ProbeFuture + Send + Sync>;
pub(crate) type ProbeFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// One task per node, so that a node that hangs delays no other's probe.
pub(crate) fn spawn<N: Send + Sync + 'static>(
    node: &Arc<Node<N>>,
    probe: &Probe<N>,
    policy: &Arc<Policy>,
    runtime: &Handle,
) {
    let task = Task {
        node: Arc::downgrade(node),
        probe: Arc::clone(probe),
        policy: Arc::clone(policy),
        notice: node.notice.subscribe(),
    };
    runtime.spawn(task.run());
}

struct Task<N> {
    /// Not kept alive, nor its set, while it is waited for.
    node: Weak<Node<N>>,
    probe: Probe<N>,
    policy: Arc<Policy>,
    /// Closes when the node is dropped, which ends the task, as its removal does.
    notice: watch::Receiver<Notice>,
}

impl<N> Task<N> {
    async fn run(mut self) {
        // Somewhere in the first interval, so that the nodes are not all asked in one instant.
        let mut due = Instant::now() + self.interval().mul_f64(fastrand::f64());
        let mut ejected_until = None;
        loop {
            tokio::select! {
                () = sleep_until(due) => {
                    let Some(()) = self.ask().await else { return };
                }
                changed = self.notice.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let notice = *self.notice.borrow_and_update();
            if notice.removed {
                return;
            }
            let now = Instant::now();
            due = match notice.ejected_until {
                // Newly ejected: asked at once whether it is dead or only failed its requests.
                Some(_) if notice.suspected && notice.ejected_until != ejected_until => now,
                // And the moment its time is up.
                Some(until) if until > now => until,
                Some(_) | None => now + self.interval(),
            };
            ejected_until = notice.ejected_until;
        }
    }

    fn interval(&self) -> Duration {
        self.policy.interval(fastrand::f64())
    }

    /// One probe; `None` once the node is gone.
    async fn ask(&mut self) -> Option<()> {
        let started = {
            let node = self.node.upgrade()?;
            catch_unwind(AssertUnwindSafe(|| (self.probe)(&node.value)))
        };
        let result = match started {
            Ok(probe) => {
                let answer = timeout(self.policy.config.probe_timeout, without_panic(probe));
                tokio::select! {
                    answer = answer => answer.unwrap_or_else(|elapsed| Err(elapsed.into())),
                    () = gone(&mut self.notice) => return None,
                }
            }
            Err(_) => Err(BoxError::from("the probe panicked")),
        };
        let node = self.node.upgrade()?;
        if let Err(error) = &result {
            report(&node.name, error);
        }
        node.probed(result.is_ok());
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

/// Resolves when the node is out of its set or dropped.
async fn gone(notice: &mut watch::Receiver<Notice>) {
    // An error means that the node was dropped.
    let _ = notice.wait_for(|notice| notice.removed).await;
}

#[cfg(feature = "tracing")]
fn report(node: &str, error: &BoxError) {
    tracing::debug!(node, error = %error, "probe failed");
}

#[cfg(not(feature = "tracing"))]
fn report(_: &str, _: &BoxError) {}
