//! When a call is judged: as soon as its response is there, or with the response's last byte.

#[cfg(feature = "axum")]
use super::body::JudgedBody;
use super::reject::sealed::Sealed;
use super::{Judgement, Permit};

/// When a call is judged. Sealed: there are [`AtHead`] and `AtEndOfBody`.
pub trait JudgeAt<Res>: Sealed {
    /// The response of the service with the breaker around it.
    type Response;

    /// Passes a response on with its judgement, which counts now or later. `bare`: nobody is going
    /// to read its body.
    fn judged(
        response: Res,
        permit: &mut Permit,
        judgement: Judgement,
        bare: bool,
    ) -> Self::Response;

    /// Passes on a response that no permit stands for.
    fn passed_on(response: Res) -> Self::Response;
}

/// What a request says about the body of its response.
pub trait ReadRequest<Req>: Sealed {
    /// Whether there will be none that is read.
    fn is_bare(request: &Req) -> bool;
}

/// A call is judged when its response is there.
#[derive(Debug, Clone, Copy)]
pub enum AtHead {}

impl<Res> JudgeAt<Res> for AtHead {
    type Response = Res;

    #[inline]
    fn judged(response: Res, permit: &mut Permit, judgement: Judgement, _bare: bool) -> Res {
        permit.settle(judgement);
        response
    }

    fn passed_on(response: Res) -> Res {
        response
    }
}

impl<Req> ReadRequest<Req> for AtHead {
    fn is_bare(_request: &Req) -> bool {
        false
    }
}

/// A call that was judged a success by its head is judged again when the body has ended.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy)]
pub enum AtEndOfBody {}

#[cfg(feature = "axum")]
impl<B: http_body::Body> JudgeAt<http::Response<B>> for AtEndOfBody {
    type Response = http::Response<JudgedBody<B>>;

    fn judged(
        response: http::Response<B>,
        permit: &mut Permit,
        judgement: Judgement,
        bare: bool,
    ) -> Self::Response {
        let (head, body) = response.into_parts();
        let body = JudgedBody::new(body, &head, permit.take(), judgement, bare);
        http::Response::from_parts(head, body)
    }

    fn passed_on(response: http::Response<B>) -> Self::Response {
        response.map(JudgedBody::unjudged)
    }
}

#[cfg(feature = "axum")]
impl<B> ReadRequest<http::Request<B>> for AtEndOfBody {
    fn is_bare(request: &http::Request<B>) -> bool {
        request.method() == http::Method::HEAD
    }
}

impl Sealed for AtHead {}
#[cfg(feature = "axum")]
impl Sealed for AtEndOfBody {}
