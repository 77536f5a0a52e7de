//! One connection through the proxy: two pumps that obey the faults in force.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::{Faults, Shared};

/// How much is on its way at once in each direction.
const PIECE: usize = 16 * 1024;

/// Carries a connection until both sides have ended, one fails, or a cut resets it.
pub(super) async fn run(mut client: TcpStream, shared: Arc<Shared>) {
    let mut faults = shared.faults.subscribe();
    let seen = *faults.borrow();
    let upstream = tokio::select! {
        biased;
        _ = faults.wait_for(|now| now.cuts != seen.cuts) => None,
        upstream = TcpStream::connect(shared.upstream) => upstream.ok(),
    };
    let Some(mut upstream) = upstream else { return reset(client) };
    // Small answers must not wait for each other; a failure only makes them slower.
    let _ = client.set_nodelay(true);
    let _ = upstream.set_nodelay(true);

    let lost = AtomicBool::new(false);
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = upstream.split();
        let pump =
            |half_close| Pump { faults: shared.faults.subscribe(), seen, lost: &lost, half_close };
        let up = pump(false);
        let down = pump(true);
        tokio::select! {
            biased;
            _ = faults.wait_for(|now| {
                now.cuts != seen.cuts || (lost.load(Relaxed) && !now.blackhole)
            }) => None,
            both = async {
                tokio::try_join!(up.run(from_client, to_server), down.run(from_server, to_client))
            } => both.ok(),
        }
    };
    if ended.is_none() {
        reset(client);
        reset(upstream);
    }
}

/// Ends a connection with RST instead of FIN.
pub(super) fn reset(stream: TcpStream) {
    // If it fails, the connection is gone already.
    let _ = stream.set_zero_linger();
    drop(stream);
}

/// One direction of a connection.
struct Pump<'a> {
    faults: watch::Receiver<Faults>,
    /// The faults when the connection began; the ones since then concern it.
    seen: Faults,
    /// Set when bytes of this connection were swallowed.
    lost: &'a AtomicBool,
    /// Whether this is the direction that a half-close ends.
    half_close: bool,
}

impl Pump<'_> {
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut open = true;
        loop {
            let seen = self.seen.half_closes;
            let count = tokio::select! {
                biased;
                () = changed(&mut self.faults, |now| now.half_closes != seen),
                    if open && self.half_close =>
                {
                    open = false;
                    to.shutdown().await?;
                    continue;
                }
                count = from.read(&mut piece) => count?,
            };
            if !self.may_pass().await {
                self.lost.store(true, Relaxed);
                if count == 0 {
                    // The end was swallowed too; switching the blackhole off resets us.
                    std::future::pending::<()>().await;
                }
            } else if count == 0 {
                return if open { to.shutdown().await } else { Ok(()) };
            } else if open {
                to.write_all(&piece[..count]).await?;
            }
        }
    }

    /// Waits as long as the delay says; whether the piece then passes or is swallowed.
    async fn may_pass(&self) -> bool {
        let now = *self.faults.borrow();
        if now.blackhole {
            return false;
        }
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
            return !self.faults.borrow().blackhole;
        }
        true
    }
}

/// Waits until the faults are like that. Unlike `wait_for` it returns nothing that must not be
/// held over an await.
async fn changed(faults: &mut watch::Receiver<Faults>, like: impl FnMut(&Faults) -> bool) {
    // It cannot fail: each connection holds the sender.
    let _ = faults.wait_for(like).await;
}
