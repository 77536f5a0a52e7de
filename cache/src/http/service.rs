//! The service behind [`HttpCacheLayer`](crate::http::HttpCacheLayer).

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tower_service::Service;

use crate::BoxError;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::finish::joined;
use crate::http::future::ResponseFuture;
use crate::http::key;
use crate::http::purge::Purge;
use crate::http::respond::Client;
use crate::http::route::{Class, Route, view};
use crate::http::stats::Outcome;
use crate::http::write::Write;
use crate::load;

/// A service whose responses are cached; made by [`HttpCacheLayer`](crate::http::HttpCacheLayer).
#[derive(Clone)]
pub struct HttpCacheService<S> {
    inner: S,
    route: Arc<Route>,
}

impl<S> HttpCacheService<S> {
    pub(crate) fn new(inner: S, route: Arc<Route>) -> Self {
        Self { inner, route }
    }

    /// Takes the service that is ready and leaves a clone that is not: what becomes of it depends
    /// on what is found, long after this.
    fn take_ready(&mut self) -> S
    where
        S: Clone,
    {
        let unready = self.inner.clone();
        std::mem::replace(&mut self.inner, unready)
    }
}

impl<S, B, R> Service<Request<B>> for HttpCacheService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Default + Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        match self.route.classify(&parts, !body.is_end_stream()) {
            Class::Lookup(target) => {
                let now = self.route.inner().now();
                let view = view(&parts);
                if let Some(response) = self.route.fresh(&target, &view, now)
                    && let Some(whole) = response.as_whole()
                {
                    let response = self.route.of_stored(&view, whole, now, self.route.hit());
                    self.route.inner().counts.quick_hits.add_one();
                    return ResponseFuture::ready(response);
                }
                let call = Call {
                    route: Arc::clone(&self.route),
                    target,
                    client: Client::of(&parts),
                    service: self.take_ready(),
                    parts,
                    body,
                    token: self.route.inner().counts.start(),
                };
                ResponseFuture::boxed(call.run())
            }
            Class::Unsafe(target) => {
                let write = Write {
                    route: Arc::clone(&self.route),
                    target,
                    service: self.take_ready(),
                    parts,
                    body,
                    token: self.route.inner().counts.start(),
                };
                ResponseFuture::boxed(write.run())
            }
            Class::Purge => {
                let route = Arc::clone(&self.route);
                ResponseFuture::boxed(async move { Ok(purge(&route, &parts).await) })
            }
            Class::Pass(fwd) => {
                let token = self.route.inner().counts.start();
                let call = self.inner.call(Request::from_parts(parts, body));
                ResponseFuture::passed(call, Arc::clone(&self.route), fwd, token)
            }
        }
    }
}

/// Answers `PURGE`.
async fn purge<B>(route: &Arc<Route>, parts: &Parts) -> Response<Body<B>> {
    let token = route.inner().counts.start();
    let (code, title) = match try_purge(route, parts).await {
        Ok(true) => (StatusCode::OK, "purged"),
        Ok(false) => (StatusCode::ACCEPTED, "purged here; the shared layer could not be reached"),
        Err(StatusCode::FORBIDDEN) => (StatusCode::FORBIDDEN, "not allowed to purge"),
        Err(code) => (code, "not a purge this cache understands"),
    };
    token.settle(Outcome::Purge);
    route.own(code, title, route.hit())
}

/// Whether every layer is clear.
async fn try_purge(route: &Arc<Route>, parts: &Parts) -> Result<bool, StatusCode> {
    let admitted = route.purge.as_ref().is_some_and(|config| config.admits(&parts.headers));
    if !admitted {
        return Err(StatusCode::FORBIDDEN);
    }
    let Purge { soft, keys } = Purge::parse(&parts.headers)?;
    let inner = route.inner();
    let target = route.target(parts).ok_or(StatusCode::BAD_REQUEST)?;
    if keys.is_empty() {
        return Ok(inner.take_target(&target.primary, soft).await.is_complete());
    }
    let route = Arc::clone(route);
    // To the end, also if the client goes away meanwhile.
    let purging = load::spawn(async move {
        let mut complete = true;
        for name in keys {
            let tag = key::surrogate_tag(target.tenant.as_deref(), &name);
            complete &= route.inner().take_tag(&tag, soft).await.is_complete();
        }
        complete
    });
    Ok(joined(purging.await).await)
}

impl<S: fmt::Debug> fmt::Debug for HttpCacheService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCacheService")
            .field("inner", &self.inner)
            .field("route", &self.route)
            .finish()
    }
}
