//! Responses to clients: from the store, from a body under way, or passed through.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri, header, request, response};

use crate::http::body::{Body, Multipart};
use crate::http::engine::{Answer, CacheStatus, Fwd, RequestView, UnixMs, answer, multipart};
use crate::http::growing::Reader;
use crate::http::key::SURROGATE_KEY;
use crate::http::landing::Live;
use crate::http::route::Route;
use crate::http::stored::Whole;

/// What of a request is needed to answer it once the request itself has gone to the origin.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

impl Client {
    pub(crate) fn of(parts: &request::Parts) -> Self {
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
        }
    }

    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView::new(&self.method, &self.uri, &self.headers)
    }

    /// Whether it asks for less than the whole response.
    pub(crate) fn has_conditions(&self) -> bool {
        CONDITIONS.iter().any(|name| self.headers.contains_key(name))
    }
}

/// Takes off what would make the origin answer with less than can be stored.
pub(crate) fn strip_conditions(headers: &mut HeaderMap) {
    for name in CONDITIONS {
        headers.remove(name);
    }
}

const CONDITIONS: [header::HeaderName; 4] =
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE, header::IF_RANGE];

impl Route {
    /// `Cache-Status` of a response that the store alone gave.
    pub(crate) fn hit(&self) -> CacheStatus<'_> {
        CacheStatus::hit(&self.inner().config.name)
    }

    /// `Cache-Status` of a response that the origin had a part in.
    pub(crate) fn forwarded(&self, fwd: Fwd) -> CacheStatus<'_> {
        CacheStatus::forwarded(&self.inner().config.name, fwd)
    }

    /// The response that a stored one becomes for one request.
    pub(crate) fn of_stored<B>(
        &self,
        view: &RequestView<'_>,
        whole: &Whole,
        now: UnixMs,
        status: CacheStatus<'_>,
    ) -> Response<Body<B>> {
        let body = &whole.body;
        let length = body.len() as u64;
        match answer(&self.policy, view, &whole.head, length, now, status) {
            Answer::Full { status, headers } => {
                let body = if *view.method == Method::HEAD {
                    Body::empty()
                } else {
                    Body::stored(body.clone())
                };
                response(status, headers, body)
            }
            Answer::NotModified { headers } => {
                response(StatusCode::NOT_MODIFIED, headers, Body::empty())
            }
            Answer::Partial { mut headers, ranges } => {
                let body = if let [range] = &*ranges {
                    Body::stored(slice(body, range.start, range.end))
                } else {
                    let chance =
                        (u128::from(fastrand::u64(..)) << 64) | u128::from(fastrand::u64(..));
                    let plan = multipart::plan(&mut headers, &ranges, length, chance);
                    Body::ranges(Multipart::new(body, plan))
                };
                response(StatusCode::PARTIAL_CONTENT, headers, body)
            }
            Answer::RangeNotSatisfiable { headers } => {
                response(StatusCode::RANGE_NOT_SATISFIABLE, headers, Body::empty())
            }
        }
    }

    /// The response that one under way becomes for one who may share it.
    pub(crate) fn of_live<B>(
        &self,
        client: &Client,
        live: &Live,
        reader: Reader,
        now: UnixMs,
        status: CacheStatus<'_>,
    ) -> Response<Body<B>> {
        // Ranges of what is not there yet are the whole: RFC 9110 lets a server ignore them.
        let mut headers = client.headers.clone();
        headers.remove(header::RANGE);
        headers.remove(header::IF_RANGE);
        let view = RequestView::new(&client.method, &client.uri, &headers);
        let expected = live.body.expected();
        match answer(&self.policy, &view, &live.head, expected.unwrap_or(0), now, status) {
            Answer::NotModified { headers } => {
                response(StatusCode::NOT_MODIFIED, headers, Body::empty())
            }
            Answer::Full { status, mut headers } => {
                if expected.is_none() {
                    headers.remove(header::CONTENT_LENGTH);
                }
                response(status, headers, Body::live(reader))
            }
            // Not without a range.
            Answer::Partial { headers, .. } | Answer::RangeNotSatisfiable { headers } => {
                response(live.head.status, headers, Body::live(reader))
            }
        }
    }

    /// The origin's response as it is, but for what the cache says about it.
    pub(crate) fn passed<B>(
        &self,
        mut parts: response::Parts,
        body: Body<B>,
        status: CacheStatus<'_>,
    ) -> Response<Body<B>> {
        if self.inner().config.strip_surrogate_key {
            parts.headers.remove(SURROGATE_KEY);
        }
        status.append_to(&mut parts.headers);
        Response::from_parts(parts, body)
    }

    /// A response of the cache's own.
    pub(crate) fn own<B>(
        &self,
        code: StatusCode,
        title: &'static str,
        status: CacheStatus<'_>,
    ) -> Response<Body<B>> {
        let number = code.as_u16();
        let text = if code.is_success() {
            format!("{{\"status\":{number},\"title\":\"{title}\"}}")
        } else {
            format!("{{\"type\":\"about:blank\",\"status\":{number},\"title\":\"{title}\"}}")
        };
        let kind = if code.is_success() { "application/json" } else { "application/problem+json" };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, text.len().into());
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        status.append_to(&mut headers);
        response(code, headers, Body::stored(text.into()))
    }
}

fn response<B>(status: StatusCode, headers: HeaderMap, body: Body<B>) -> Response<Body<B>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A range of a body, cut to what is there.
pub(crate) fn slice(body: &Bytes, start: u64, end: u64) -> Bytes {
    let clamp = |at: u64| usize::try_from(at).map_or(body.len(), |at| at.min(body.len()));
    let (start, end) = (clamp(start), clamp(end));
    if start < end { body.slice(start..end) } else { Bytes::new() }
}
