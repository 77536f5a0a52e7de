//! A manager whose connects and tests do what a test tells them.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use escala_pool::bb8::ManageConnection;
use escala_pool::{Pool, PoolConfig, PoolStats};
use parking_lot::Mutex;
use tokio::time::sleep;

/// What the next connect or test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Work,
    Slow,
    Fail,
    Hang,
    Panic,
}

#[derive(Debug, thiserror::Error)]
#[error("scripted failure")]
pub(crate) struct Scripted;

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) broken: bool,
    /// The driver panics when it is asked whether the connection is broken.
    pub(crate) panics: bool,
    server: Arc<Mutex<Server>>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.server.lock().open -= 1;
    }
}

/// The other side: its script, and what it saw. When the script is empty everything works.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) connects: VecDeque<Act>,
    pub(crate) tests: VecDeque<Act>,
    /// The connection with this number answers nothing any more.
    pub(crate) frozen: Option<u64>,
    pub(crate) connected: u64,
    pub(crate) tested: u64,
    pub(crate) connecting: usize,
    pub(crate) peak_connecting: usize,
    pub(crate) open: usize,
    pub(crate) peak_open: usize,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Manager {
    pub(crate) server: Arc<Mutex<Server>>,
}

impl Manager {
    pub(crate) fn pool(&self, config: PoolConfig) -> Pool<Self> {
        Pool::new(self.clone(), config).unwrap()
    }

    pub(crate) fn connects(&self, acts: impl IntoIterator<Item = Act>) {
        self.server.lock().connects.extend(acts);
    }

    pub(crate) fn tests(&self, acts: impl IntoIterator<Item = Act>) {
        self.server.lock().tests.extend(acts);
    }
}

async fn act(act: Act) -> Result<(), Scripted> {
    match act {
        Act::Work => Ok(()),
        Act::Slow => {
            sleep(Duration::from_millis(100)).await;
            Ok(())
        }
        Act::Fail => Err(Scripted),
        Act::Hang => pending().await,
        Act::Panic => panic!("scripted panic"),
    }
}

/// Counts a connect that is under way until it is dropped.
struct Connecting(Arc<Mutex<Server>>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.lock().connecting -= 1;
    }
}

impl ManageConnection for Manager {
    type Connection = Conn;
    type Error = Scripted;

    async fn connect(&self) -> Result<Conn, Scripted> {
        let (next, _connecting) = {
            let mut server = self.server.lock();
            server.connecting += 1;
            server.peak_connecting = server.peak_connecting.max(server.connecting);
            (server.connects.pop_front(), Connecting(Arc::clone(&self.server)))
        };
        act(next.unwrap_or(Act::Work)).await?;
        let mut server = self.server.lock();
        server.connected += 1;
        server.open += 1;
        server.peak_open = server.peak_open.max(server.open);
        let (broken, panics) = (false, false);
        Ok(Conn { id: server.connected, broken, panics, server: Arc::clone(&self.server) })
    }

    async fn is_valid(&self, conn: &mut Conn) -> Result<(), Scripted> {
        let next = {
            let mut server = self.server.lock();
            server.tested += 1;
            if server.frozen == Some(conn.id) {
                server.tests.push_front(Act::Hang);
            }
            server.tests.pop_front()
        };
        act(next.unwrap_or(Act::Work)).await
    }

    fn has_broken(&self, conn: &mut Conn) -> bool {
        assert!(!conn.panics, "scripted panic");
        conn.broken
    }
}

/// Longer than any test takes, in the time of a paused clock.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A small pool that connects only when asked.
pub(crate) fn config(max_size: usize) -> PoolConfig {
    PoolConfig::default().max_size(max_size).min_idle(0)
}

/// Every acquire has one outcome.
pub(crate) fn assert_adds_up(stats: &PoolStats) {
    let ended = stats.acquired_total
        + stats.timed_out_total
        + stats.rejected_total
        + stats.cancelled_total
        + stats.failed_total;
    assert_eq!(stats.started_total, ended + stats.waiting as u64, "{stats:?}");
}

/// Every acquire has one outcome, and every connection is somewhere.
pub(crate) fn assert_all_adds_up(stats: &PoolStats) {
    assert_adds_up(stats);
    let gone = stats.connect_failures_total + stats.closed.sum();
    let there = (stats.connecting + stats.size) as u64;
    assert_eq!(stats.connects_total, gone + there, "{stats:?}");
}
