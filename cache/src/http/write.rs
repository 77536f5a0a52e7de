//! Requests that may change something: passed on, and what they may have changed is removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};

use crate::http::ask::{Ask, Question};
use crate::http::body::Body;
use crate::http::engine::{Fwd, invalidations};
use crate::http::fill::Escort;
use crate::http::finish::finish;
use crate::http::key;
use crate::http::origin::Origin;
use crate::http::respond::Client;
use crate::http::route::Route;
use crate::http::stats::Token;
use crate::http::store::Target;
use crate::load;

/// An unsafe request with a ready service.
pub(crate) struct Write<S, B> {
    pub(crate) route: Arc<Route>,
    pub(crate) target: Target,
    pub(crate) service: S,
    pub(crate) parts: Parts,
    pub(crate) body: B,
    pub(crate) token: Token,
}

impl<S: Origin<B>, B: Default + Send + 'static> Write<S, B> {
    /// Passes the request on, and removes the targets that its answer makes void before anyone
    /// can see that answer.
    pub(crate) async fn run(self) -> Result<Response<Body<S::Body>>, S::Failure> {
        let Self { route, target, mut service, parts, body, token } = self;
        let client = Client::of(&parts);
        // Without an answer nobody knows whether the request has had its effect.
        let suspect = is_unsafe(&client).then(|| target.clone());
        let mut unknown = Unknown { route: &route, target: suspect };
        let asked_at = route.inner().now();
        let answer = service.send(Request::from_parts(parts, body)).await;
        let asked = match answer {
            Ok(response) => {
                unknown.target = None;
                let view = client.view();
                let uris = invalidations(&view, response.status(), response.headers());
                if !uris.is_empty() {
                    remove_all(Arc::clone(&route), target.clone(), client.clone(), uris).await;
                }
                // Its answer may serve later reads, if the policy says so: only what is removed
                // from now on is newer than it.
                let fence = route.inner().store.fence(&target).await;
                let ask = Ask {
                    route: Arc::clone(&route),
                    question: Question::of_write(&target),
                    target,
                    client: client.clone(),
                    service,
                    parts: Request::new(()).into_parts().0,
                    body: B::default(),
                    escort: Escort::default(),
                };
                Ok(ask.receive(response, asked_at, fence))
            }
            Err(error) => Err(error),
        };
        drop(unknown);
        finish::<S, B>(&route, &client, Fwd::Method, asked, token)
    }
}

/// Whether the method may change something, as far as the engine knows it.
fn is_unsafe(client: &Client) -> bool {
    !invalidations(&client.view(), StatusCode::OK, &HeaderMap::new()).is_empty()
}

/// To the end, also if the client goes away meanwhile.
async fn remove_all(route: Arc<Route>, target: Target, client: Client, uris: Vec<http::Uri>) {
    let removing = async move {
        for uri in &uris {
            remove(&route, &target, &client, uri).await;
        }
    };
    // The task is dropped only with its runtime, and then nobody reads what it left.
    load::spawn(removing).await.ok();
}

async fn remove(route: &Route, target: &Target, client: &Client, uri: &http::Uri) {
    let inner = route.inner();
    let tenant = target.tenant.as_deref();
    let by_host = inner.config.key_by_host;
    if let Some(primary) = key::primary(tenant, by_host, uri, &client.headers) {
        inner.counts.invalidations.fetch_add(1, Ordering::Relaxed);
        // What other processes missed is repeated by the core.
        drop(inner.take_target(&primary, false).await);
    }
}

/// Removes the target of a request that ended without an answer: dropped, failed or panicked.
struct Unknown<'a> {
    route: &'a Arc<Route>,
    target: Option<Target>,
}

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        if let Some(target) = self.target.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let route = Arc::clone(self.route);
            route.inner().counts.invalidations.fetch_add(1, Ordering::Relaxed);
            load::spawn(async move { route.inner().take_target(&target.primary, false).await });
        }
    }
}
