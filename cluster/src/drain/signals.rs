//! The first signal begins a drain, the second one ends it.

use std::io;
use std::sync::{Arc, Weak};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Drain, Shared, Status, channel};

/// Listens until no handle of the drain is left.
pub(super) fn listen(drain: &Drain) -> io::Result<()> {
    let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let (shared, status) = (Arc::downgrade(&drain.shared), drain.shared.status.subscribe());
    runtime.spawn(obey(signals, shared, status));
    Ok(())
}

async fn obey(
    [mut terminate, mut interrupt]: [Signal; 2],
    shared: Weak<Shared>,
    mut status: channel::Receiver<Status>,
) {
    // Counted here and not read from the drain: one that was begun by hand (a pre-stop hook, say)
    // is usually followed by the first signal, which must not cut it short.
    let mut received = 0_u32;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // Never true: it ends with the last handle.
            _gone = status.wait_for(|_| false) => return,
        }
        let Some(shared) = shared.upgrade() else { return };
        let drain = Drain { shared };
        received = received.saturating_add(1);
        if received == 1 {
            drain.begin();
        } else {
            drain.abort();
        }
    }
}
