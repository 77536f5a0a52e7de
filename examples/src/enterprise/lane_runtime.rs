//! A runtime for the lanes' workers alone.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// One thread on which the workers run. On the requests' runtime each step of a job would wait
/// behind a thousand runnable requests, and four workers could not keep up with the orders.
#[derive(Debug)]
pub struct LaneRuntime(Option<Runtime>);

impl LaneRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lanes")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs the future, and whatever it spawns, on that thread.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.as_ref().expect("taken by drop alone").spawn(future)
    }
}

impl Drop for LaneRuntime {
    fn drop(&mut self) {
        // An ordinary drop would block, which a task of the other runtime may not.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
