//! The session of one HTTP request, as a handler has it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Session, Token};
use crate::{Fault, Pick, ReadError, Reason, Replicas, Role, RouteError, WriteError, problem};

/// The session of one request: an extractor, behind a [`SessionLayer`](super::SessionLayer). Clones
/// are of the same request.
///
/// A read asks for [`session`](Self::session) or goes through [`read`](Self::read); a handler that
/// wrote says so by [`wrote`](Self::wrote), before it makes its response: what it says later, from
/// a body that streams or a task that goes on, reaches the later reads of this request and not the
/// client.
#[derive(Clone)]
pub struct SessionHandle(Arc<Mutex<State>>);

struct State {
    session: Session,
    life: Duration,
    wrote: bool,
    served: Option<Served>,
}

/// The node that served a request, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served {
    /// Its name.
    pub node: String,
    /// What it was when it was picked.
    pub role: Role,
    /// Why it was.
    pub reason: Reason,
}

impl SessionHandle {
    pub(super) fn new(session: Session, life: Duration) -> Self {
        Self(Arc::new(Mutex::new(State { session, life, wrote: false, served: None })))
    }

    /// What the reads of this request must see, as of now.
    #[must_use]
    pub fn session(&self) -> Session {
        self.0.lock().session.clone()
    }

    /// This request wrote: its reads see it from now on, and so do those of the requests by which the
    /// client follows up.
    pub fn wrote(&self, token: Token) {
        let mut state = self.0.lock();
        let life = state.life;
        state.session.wrote_for(token, life, SystemTime::now(), Instant::now());
        state.wrote = true;
    }

    /// A node for a read of this request, as [`Replicas::wait_read`]; the response may say which.
    ///
    /// # Errors
    /// As [`Replicas::wait_read`]. The error is a response too.
    pub async fn read<N>(&self, db: &Replicas<N>) -> Result<Pick<N>, RouteError> {
        let pick = db.wait_read(&self.session()).await?;
        self.served_by(&pick);
        Ok(pick)
    }

    /// Runs a read of this request, as [`Replicas::read_with`]; the response may say where.
    ///
    /// # Errors
    /// As [`Replicas::read_with`].
    pub async fn read_with<N, T, E, C, R, O, F>(
        &self,
        db: &Replicas<N>,
        classify: C,
        operation: O,
    ) -> Result<T, ReadError<E>>
    where
        N: Clone,
        C: Fn(&E) -> R,
        R: Into<Fault>,
        O: FnMut(N) -> F,
        F: Future<Output = Result<T, E>>,
    {
        let session = self.session();
        db.read_seen(&session, classify, operation, |pick| self.served_by(pick)).await
    }

    /// Runs a write of this request, as [`Replicas::write_with`]; the response may say where. What the
    /// write answers as its token is for [`wrote`](Self::wrote). A primary that is older than what the
    /// client has written to is not asked: it has been replaced, and would lose the write.
    ///
    /// # Errors
    /// As [`Replicas::write_with`].
    pub async fn write_with<N, T, E, C, R, O, F>(
        &self,
        db: &Replicas<N>,
        within: Duration,
        classify: C,
        operation: O,
    ) -> Result<T, WriteError<E>>
    where
        N: Clone,
        C: Fn(&E) -> R,
        R: Into<Fault>,
        O: FnMut(N) -> F,
        F: Future<Output = Result<T, E>>,
    {
        let session = self.session();
        db.write_seen(&session, within, classify, operation, |pick| self.served_by(pick)).await
    }

    /// The response may say that this node served the request. The last one counts.
    pub fn served_by<N>(&self, pick: &Pick<N>) {
        let (node, role, reason) = (pick.name().to_owned(), pick.role(), pick.reason());
        self.0.lock().served = Some(Served { node, role, reason });
    }

    /// Which node served the request, as far as it went through this handle; the last one counts.
    #[must_use]
    pub fn served(&self) -> Option<Served> {
        self.0.lock().served.clone()
    }

    /// What the client has to bring next time, if this request wrote.
    pub(super) fn handed_out(&self) -> Option<Token> {
        let state = self.0.lock();
        state.session.token().filter(|_| state.wrote)
    }
}

impl<S: Sync> FromRequestParts<S> for SessionHandle {
    type Rejection = NoSessionLayer;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoSessionLayer> {
        parts.extensions.get::<Self>().cloned().ok_or(NoSessionLayer(()))
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("session", &self.0.lock().session).finish()
    }
}

/// There is no [`SessionLayer`](super::SessionLayer) around the handler. As a response it is a 500.
#[derive(Debug, thiserror::Error)]
#[error("no session layer stands around the handler")]
pub struct NoSessionLayer(());

impl IntoResponse for NoSessionLayer {
    fn into_response(self) -> Response {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        problem::response(status, "the service is not set up for this request", None)
    }
}
