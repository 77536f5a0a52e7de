//! The gateway's face to its clients: what may come in, where it goes, what is added on the way out.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use escala_replicas::http::{Peer, ProxyError, ResponseBody, ResponseFuture, problem};
use http_body::Body as _;
use http_body_util::{LengthLimitError, Limited};
use pin_project_lite::pin_project;
use tower::Service;

use super::path;
use super::snapshot::{Current, Snapshot};
use crate::proxy::target::{self, Refusal};

/// Routes each request by the snapshot of the moment.
#[derive(Clone, Debug)]
pub(super) struct Front {
    current: Arc<Current>,
}

impl Front {
    pub(super) fn new(current: Arc<Current>) -> Self {
        Self { current }
    }
}

impl Service<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = FrontFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> FrontFuture {
        let snapshot = self.current.get();
        let (mut head, body) = request.into_parts();
        let state = match admit(&snapshot, &mut head) {
            Ok(()) => match forward(&snapshot, head, body) {
                Ok(response) => State::Forwarded { response },
                Err(refusal) => State::refused(refusal),
            },
            Err(refusal) => State::refused(refusal),
        };
        FrontFuture { state, snapshot }
    }
}

/// Refuses what two readers could read differently, and heads that are too large.
fn admit(snapshot: &Snapshot, head: &mut Parts) -> Result<(), Refusal> {
    let limits = &snapshot.file.limits;
    let size =
        |(name, value): (&axum::http::HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let bytes = target + head.headers.iter().map(size).sum::<usize>();
    if bytes > limits.max_header_bytes || head.headers.len() > limits.max_headers {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Refusal { status, rule: "the head of the request is too large" });
    }
    check_coding(&head.headers)?;
    target::normalise(head)
}

/// A body is chunked or has a length. What else a coding may say, some server reads otherwise.
fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => {
            let rule = "the transfer coding is not chunked alone";
            Err(Refusal { status: StatusCode::BAD_REQUEST, rule })
        }
    }
}

/// Finds the way and goes it.
fn forward(snapshot: &Snapshot, head: Parts, body: Body) -> Result<ResponseFuture, Refusal> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = path::plain(head.uri.path())?;
    let Some(route) = snapshot.route(host, &path) else {
        let rule = "nothing is served at this address";
        return Err(Refusal { status: StatusCode::NOT_FOUND, rule });
    };
    let peer = head.extensions.get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| peer.ip());
    // Without one (in a test, say) nobody is who he says he is.
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let proxy = route.choose(&head.headers, peer, &snapshot.file.trusted_proxies);
    let peer = Some(Peer { address: peer, https: false });
    if body.is_end_stream() {
        return Ok(proxy.forward(Request::from_parts(head, body), peer));
    }
    let most = route.max_body_bytes;
    if body.size_hint().lower() > most {
        return Err(TOO_LARGE);
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Ok(proxy.forward(Request::from_parts(head, Limited::new(body, most)), peer))
}

const TOO_LARGE: Refusal =
    Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, rule: "the body of the request is too large" };

/// A refused request's connection ends: what follows on it may not be what it seems.
fn page(refusal: Refusal) -> Response<ResponseBody> {
    let mut response = problem(refusal.status, refusal.rule);
    if refusal.status != StatusCode::NOT_FOUND {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

pin_project! {
    pub(super) struct FrontFuture {
        #[pin]
        state: State,
        snapshot: Arc<Snapshot>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State {
        // In a box, so that the usual request does not carry it.
        Refused { response: Option<Box<Response<ResponseBody>>> },
        Forwarded { #[pin] response: ResponseFuture },
    }
}

impl State {
    fn refused(refusal: Refusal) -> Self {
        Self::Refused { response: Some(Box::new(page(refusal))) }
    }
}

impl Future for FrontFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.state.project() {
            StateProject::Refused { response } => {
                *response.take().expect("polled after completion")
            }
            StateProject::Forwarded { response } => {
                ready!(response.poll(cx)).unwrap_or_else(|error| told(&error))
            }
        };
        let headers = response.headers_mut();
        for (name, value) in &this.snapshot.response_headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        Poll::Ready(Ok(response.map(Body::new)))
    }
}

fn told(error: &ProxyError) -> Response<ResponseBody> {
    tracing::warn!(error = error as &dyn std::error::Error, "no response");
    if is_too_large(error) {
        return page(TOO_LARGE);
    }
    error.response()
}

/// Whether the body grew past its limit while it was sent on.
fn is_too_large(error: &ProxyError) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |&error| error.source())
        .any(|error| error.is::<LengthLimitError>())
}
