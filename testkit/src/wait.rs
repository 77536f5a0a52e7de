//! Waiting for real processes: real time, and work kept off the runtime's threads.

use std::thread;
use std::time::Duration;

use crate::Error;

/// How long a step that needs no server start may take. It is generous because a hang is the
/// only thing it is meant to catch, and test machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `done` again and again until it says yes; `false` when `patience` is over first.
#[expect(
    clippy::disallowed_types,
    reason = "real servers do not follow the paused clock of a test"
)]
pub(crate) fn until<E>(
    patience: Duration,
    mut done: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let begun = std::time::Instant::now();
    // Short steps first: most things are ready at once. Long ones later spare a busy machine.
    let mut step = Duration::from_millis(2);
    loop {
        if done()? {
            return Ok(true);
        }
        if begun.elapsed() >= patience {
            return Ok(false);
        }
        thread::sleep(step);
        step = (step * 3 / 2).min(Duration::from_millis(25));
    }
}

/// Runs blocking work on the runtime's blocking threads.
///
/// A paused test clock does not advance by itself while such work is under way, so starting a
/// real server is safe under `start_paused`.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(failed) => Err(Error::io("run blocking work")(std::io::Error::other(failed))),
    }
}
