//! How hyper is set up for a connection.

#[cfg(feature = "http2")]
pub(super) use self::both::{Http, start};
#[cfg(not(feature = "http2"))]
pub(super) use self::http1::{Http, start};

#[cfg(not(feature = "http2"))]
mod http1 {
    use hyper::server::conn::http1::{Builder, UpgradeableConnection};
    use hyper_util::rt::TokioIo;

    use crate::drain::application::Application;
    use crate::drain::io::Io;
    use crate::drain::request::RequestService;
    use crate::drain::server::Place;

    pub(in crate::drain) type Http<A> = UpgradeableConnection<TokioIo<Io>, RequestService<A>>;

    pub(in crate::drain) fn start<A: Application>(
        io: Io,
        service: RequestService<A>,
        _: &Place,
    ) -> Http<A> {
        let mut http = Builder::new();
        // hyper's own head timeout takes a box and a timer for each request.
        http.header_read_timeout(None);
        http.serve_connection(TokioIo::new(io), service).with_upgrades()
    }
}

#[cfg(feature = "http2")]
mod both {
    use std::sync::Arc;
    use std::time::Duration;

    use hyper_util::rt::{TokioIo, TokioTimer};
    use hyper_util::server::conn::auto::{Builder, UpgradeableConnection};

    use crate::drain::application::Application;
    use crate::drain::io::Io;
    use crate::drain::request::RequestService;
    use crate::drain::server::Place;

    /// Requests at once on one connection: nginx's `http2_max_concurrent_streams`.
    const STREAMS_MAX: u32 = 128;

    /// Bytes of a request's headers, decoded. hyper's own default, and twice what browsers send.
    const HEADERS_MAX: u32 = 16 * 1024;

    /// Streams that a client may reset before they were looked at, and that it may make us reset: past
    /// them its connection is closed ("rapid reset", CVE-2023-44487, and its sequels). The defaults of
    /// h2, which came with the fixes of both.
    const PENDING_RESETS_MAX: usize = 20;
    const OWN_RESETS_MAX: usize = 1_024;

    /// A client that is gone without a word is found by a ping: a connection with requests is not idle,
    /// and may have nothing to write.
    const PING_INTERVAL: Duration = Duration::from_secs(30);
    const PING_TIMEOUT: Duration = Duration::from_secs(20);

    pub(in crate::drain) type Http<A> =
        UpgradeableConnection<'static, TokioIo<Io>, RequestService<A>, Executor>;

    pub(in crate::drain) fn start<A: Application>(
        io: Io,
        service: RequestService<A>,
        place: &Place,
    ) -> Http<A> {
        let mut http = Builder::new(Executor(Arc::clone(place)));
        // hyper's own head timeout takes a box and a timer for each request.
        http.http1().header_read_timeout(None);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_MAX)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(OWN_RESETS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        http.serve_connection_with_upgrades(TokioIo::new(io), service).into_owned()
    }

    /// Gives each stream a task, which holds the connection's place as well: the last one may end after
    /// its connection.
    #[derive(Clone)]
    pub(in crate::drain) struct Executor(Place);

    impl<F> hyper::rt::Executor<F> for Executor
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        fn execute(&self, stream: F) {
            let place = Arc::clone(&self.0);
            tokio::spawn(async move {
                drop(stream.await);
                drop(place);
            });
        }
    }
}
