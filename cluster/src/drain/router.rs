//! `/drain`: begins the drain from outside, and says how far it is.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::{Drain, Phase};

impl Drain {
    /// The route `/drain`, without a token: for a management port that only operators reach, or
    /// behind a layer that knows who asks.
    ///
    /// `POST` begins the drain and answers at once: 202 and what will happen. Repeated it changes
    /// nothing and says what is left. `GET` only says. Both answer with the same JSON object:
    /// `state` (`serving`, `lame_duck`, `closing`, `cut`), `seconds_until_close` and
    /// `seconds_until_cut` (`null` before the drain begins), `waiting_for` (jobs and upgraded
    /// connections by name, at most 32), and every figure of [`DrainStats`](crate::DrainStats).
    ///
    /// A `POST` that a page of another origin has a browser send gets 403: operators have browsers as
    /// well, and those reach what operators reach.
    ///
    /// On a port served by [`serve`](crate::serve) the answers end with the lame duck, as everything
    /// does. [`serve_management`](crate::serve_management) answers until the others have ended.
    ///
    /// ```
    /// use axum::Router;
    /// use escala_cluster::{Drain, DrainConfig};
    ///
    /// let drain = Drain::new(DrainConfig::default());
    /// let management: Router = Router::new().merge(drain.router());
    /// ```
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.routes(None)
    }

    /// As [`router`](Self::router), for those who bring `Authorization: Bearer <token>`; all others
    /// get 401. The time of the comparison tells nothing about the token but its length. An empty
    /// token lets nobody in.
    pub fn router_with_token<S>(&self, token: impl Into<String>) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.routes(Some(token.into()))
    }

    fn routes<S: Clone + Send + Sync + 'static>(&self, token: Option<String>) -> Router<S> {
        let gate = Arc::new(Gate(token));
        let (drain, door) = (self.clone(), Arc::clone(&gate));
        let show = async move |headers: HeaderMap| match door.admits(&headers) {
            true => answer(StatusCode::OK, &drain),
            false => unauthorized(),
        };
        let drain = self.clone();
        let begin = async move |headers: HeaderMap| match gate.admits(&headers) {
            true if is_from_elsewhere(&headers) => StatusCode::FORBIDDEN.into_response(),
            true => {
                drain.begin();
                answer(StatusCode::ACCEPTED, &drain)
            }
            false => unauthorized(),
        };
        Router::new().route("/drain", get(show).post(begin))
    }

    /// What is, and what will be.
    fn plan(&self) -> String {
        let phase = self.shared.status.borrow().phase;
        let state = match phase {
            Phase::Serving => "serving",
            Phase::Draining => "lame_duck",
            Phase::Closing => "closing",
            Phase::Cutting => "cut",
        };
        let config = self.config();
        let close = self.shared.began.get().map(|began| *began + config.lame_duck);
        let closed = self.shared.closed.get().copied();
        let cut = closed.or(close).map(|closed| closed + config.deadline);
        let mut json = format!(r#"{{"state":"{state}""#);
        for (name, end) in [("seconds_until_close", closed.or(close)), ("seconds_until_cut", cut)] {
            let _ = match end {
                Some(end) => write!(json, r#","{name}":{:.3}"#, left(end).as_secs_f64()),
                None => write!(json, r#","{name}":null"#),
            };
        }
        json.push_str(r#","waiting_for":["#);
        for (index, open) in self.shared.account.open.listed().0.iter().enumerate() {
            json.push_str(if index == 0 { "\"" } else { ",\"" });
            escape(&open.to_string(), &mut json);
            json.push('"');
        }
        json.push(']');
        // Figures are whole numbers below 2^53.
        self.stats().visit(&mut |name, _, value| {
            let _ = write!(json, r#","{name}":{value}"#);
        });
        json.push('}');
        json
    }
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

/// Within a string of JSON.
fn escape(text: &str, json: &mut String) {
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            letter if u32::from(letter) < 0x20 => {
                let _ = write!(json, "\\u{:04x}", u32::from(letter));
            }
            letter => json.push(letter),
        }
    }
}

/// `None` admits everybody.
struct Gate(Option<String>);

impl Gate {
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.0 else { return true };
        let brought = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
        });
        let same = |brought: &[u8]| bool::from(brought.ct_eq(token.as_bytes()));
        !token.is_empty() && brought.is_some_and(same)
    }
}

/// Whether a browser sends it for a page that is not ours. Browsers without `Sec-Fetch-Site`, and all of
/// them where there is no TLS, say `Origin` with every `POST`; other clients say neither.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site != "same-origin" && site != "none",
        None => headers.contains_key(ORIGIN),
    }
}

fn answer(status: StatusCode, drain: &Drain) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, drain.plan()).into_response()
}

fn unauthorized() -> Response {
    let challenge = HeaderValue::from_static("Bearer");
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response()
}
