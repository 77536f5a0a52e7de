//! The bounded table of routes, and the handles of each.
//!
//! A request finds its route by one hash of the template and its series by two indexes; no label
//! text is made after the first request of a kind.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use metrics::{Counter, Histogram, SharedString};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::tally::{Tally, Totals};
use crate::label;
use crate::recorder::{ABORTED, DURATION, Recorder, label as pair};

/// The route of a path that no route matches: scanners make no series.
const UNMATCHED: &str = "_unmatched";
/// The route of all templates past the bound.
const OVERFLOW: &str = "_overflow";

/// The methods of RFC 9110 with PATCH and QUERY; anything else is `_OTHER`.
const METHODS: [&str; 11] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    "_OTHER",
];

/// Registered status codes (and nginx's 499) have a series each, all others share one, so that
/// a handler that answers any number stays bounded.
const STATUSES: [u16; 64] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304,
    305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415,
    416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504,
    505, 506, 507, 508, 509, 510, 511,
];
/// Slot of a status outside the list.
const OTHER_STATUS: usize = STATUSES.len();
/// Slot of a request that ended in an error instead of an answer.
const NO_STATUS: usize = STATUSES.len() + 1;

/// Where each status code from 100 to 599 has its series.
const STATUS_SLOTS: [u8; 500] = {
    let mut slots = [OTHER_STATUS as u8; 500];
    let mut at = 0;
    while at < STATUSES.len() {
        slots[STATUSES[at] as usize - 100] = at as u8;
        at += 1;
    }
    slots
};

/// After this many requests in one latency bucket the samples are swept into their buckets even
/// when no background task runs and nobody scrapes: at most 0.3 MB wait per busy series.
const SWEEP_EVERY: u64 = 1 << 14;

/// All series of the HTTP layer.
#[derive(Debug)]
pub(crate) struct HttpSeries {
    routes: ArcSwap<HashMap<Arc<str>, Arc<Route>, ahash::RandomState>>,
    /// Held while the table is copied to add a route.
    growing: Mutex<()>,
    unmatched: Arc<Route>,
    overflow: Arc<Route>,
    recorder: Arc<Recorder>,
    max_routes: usize,
}

impl HttpSeries {
    pub(crate) fn new(max_routes: usize) -> Self {
        let recorder = Arc::new(Recorder::new());
        Self {
            routes: ArcSwap::default(),
            growing: Mutex::new(()),
            unmatched: Route::new(UNMATCHED.into(), &recorder),
            overflow: Route::new(OVERFLOW.into(), &recorder),
            recorder,
            max_routes,
        }
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Counts a request in. `template` is the route's path as written in the router.
    pub(crate) fn start(&self, template: Option<&str>, method: &Method) -> Token {
        let route = match template {
            None => Arc::clone(&self.unmatched),
            Some(template) => match self.routes.load().get(template) {
                Some(route) => Arc::clone(route),
                None => self.admit(template),
            },
        };
        let method = method_slot(method);
        route.endpoint(method).tally.start();
        Token {
            route,
            method,
            started: Instant::now(),
            phase: "handler",
            polling: false,
            open: true,
        }
    }

    #[cold]
    fn admit(&self, template: &str) -> Arc<Route> {
        let _growing = self.growing.lock();
        let routes = self.routes.load();
        if let Some(route) = routes.get(template) {
            return Arc::clone(route);
        }
        if routes.len() >= self.max_routes {
            return Arc::clone(&self.overflow);
        }
        let route = Route::new(label::value(template).into(), &self.recorder);
        let mut grown = HashMap::clone(&routes);
        grown.insert(template.into(), Arc::clone(&route));
        self.routes.store(Arc::new(grown));
        route
    }

    fn all(&self) -> Vec<Arc<Route>> {
        let special = [&self.unmatched, &self.overflow].into_iter().cloned();
        self.routes.load().values().cloned().chain(special).collect()
    }

    /// Sums over everything.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for route in self.all() {
            for (_, endpoint) in route.endpoints() {
                totals.add(&endpoint.tally);
            }
        }
        totals
    }

    /// Requests under way by method, for the methods seen so far.
    pub(crate) fn active(&self) -> Vec<(&'static str, u64)> {
        let mut active = [None; METHODS.len()];
        for route in self.all() {
            for (method, endpoint) in route.endpoints() {
                let mut totals = Totals::default();
                totals.add(&endpoint.tally);
                *active[method].get_or_insert(0) += totals.active;
            }
        }
        METHODS.into_iter().zip(active).filter_map(|(m, a)| Some((m, a?))).collect()
    }

    /// The busiest routes with their totals, most requests first.
    pub(crate) fn busiest(&self, most: usize) -> Vec<(&'static str, Arc<str>, Totals)> {
        let mut rows = Vec::new();
        for route in self.all() {
            for (method, endpoint) in route.endpoints() {
                let mut totals = Totals::default();
                totals.add(&endpoint.tally);
                rows.push((METHODS[method], Arc::clone(&route.name), totals));
            }
        }
        rows.sort_by(|a, b| {
            b.2.finished.cmp(&a.2.finished).then_with(|| (&a.1, a.0).cmp(&(&b.1, b.0)))
        });
        rows.truncate(most);
        rows
    }
}

/// One route template; its methods appear when first used.
#[derive(Debug)]
struct Route {
    name: Arc<str>,
    methods: [OnceLock<Box<Endpoint>>; METHODS.len()],
    recorder: Arc<Recorder>,
}

/// One method of one route; its series appear when first used.
#[derive(Debug)]
struct Endpoint {
    tally: Tally,
    durations: [OnceLock<Histogram>; STATUSES.len() + 2],
}

impl Route {
    fn new(name: Arc<str>, recorder: &Arc<Recorder>) -> Arc<Self> {
        let methods = [const { OnceLock::new() }; METHODS.len()];
        Arc::new(Self { name, methods, recorder: Arc::clone(recorder) })
    }

    fn endpoint(&self, method: usize) -> &Endpoint {
        self.methods[method].get_or_init(|| {
            let durations = [const { OnceLock::new() }; STATUSES.len() + 2];
            Box::new(Endpoint { tally: Tally::default(), durations })
        })
    }

    fn endpoints(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        self.methods.iter().enumerate().filter_map(|(at, e)| Some((at, &**e.get()?)))
    }

    fn duration(&self, method: usize, slot: usize) -> &Histogram {
        self.endpoint(method).durations[slot].get_or_init(|| {
            let mut labels = vec![
                pair("http_request_method", METHODS[method]),
                pair("http_route", SharedString::from_shared(Arc::clone(&self.name))),
            ];
            let status = match slot {
                NO_STATUS => None,
                OTHER_STATUS => Some("_OTHER".to_owned()),
                _ => Some(STATUSES[slot].to_string()),
            };
            // As the conventions have it: the status for 5xx, absent on success.
            let error = match &status {
                None => Some("_OTHER".to_owned()),
                Some(status) => status.starts_with('5').then(|| status.clone()),
            };
            labels.extend(status.map(|s| pair("http_response_status_code", s)));
            labels.extend(error.map(|e| pair("error_type", e)));
            self.recorder.histogram(DURATION, labels)
        })
    }

    /// Rare, so its handle is looked up each time.
    fn aborted(&self, method: usize, phase: &'static str, cause: &'static str) -> Counter {
        let labels = vec![
            pair("http_request_method", METHODS[method]),
            pair("http_route", SharedString::from_shared(Arc::clone(&self.name))),
            pair("phase", phase),
            pair("cause", cause),
        ];
        self.recorder.counter(ABORTED, labels)
    }
}

/// A request that was counted in; counts it out exactly once, by an end or by its drop.
#[derive(Debug)]
#[must_use]
pub(crate) struct Token {
    route: Arc<Route>,
    method: usize,
    started: Instant,
    phase: &'static str,
    /// Set while inner code runs: a drop with it set is a panic, also where an outer layer
    /// catches the panic before the drop.
    polling: bool,
    open: bool,
}

impl Token {
    pub(crate) fn enter(&mut self) {
        self.polling = true;
    }

    pub(crate) fn leave(&mut self) {
        self.polling = false;
    }

    /// From here on an abort is one of the body.
    pub(crate) fn body_begins(&mut self) {
        self.phase = "body";
    }

    /// Answered in full with this status.
    pub(crate) fn answered(self, status: StatusCode) {
        let code = status.as_u16();
        let slot = STATUS_SLOTS.get(usize::from(code - 100));
        let slot = slot.map_or(OTHER_STATUS, |&slot| usize::from(slot));
        self.finish(slot, status.is_server_error());
    }

    /// Ended by an error of the service or of the body.
    pub(crate) fn errored(self) {
        self.finish(NO_STATUS, true);
    }

    fn finish(mut self, slot: usize, failed: bool) {
        self.open = false;
        let took = self.started.elapsed();
        self.route.duration(self.method, slot).record(took.as_secs_f64());
        let before = self.route.endpoint(self.method).tally.finish(took, failed);
        if before % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.route.recorder.upkeep();
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.open {
            let cause = if self.polling { "panic" } else { "client" };
            self.route.endpoint(self.method).tally.abort(self.polling);
            self.route.aborted(self.method, self.phase, cause).increment(1);
        }
    }
}

fn method_slot(method: &Method) -> usize {
    match method.as_str() {
        "GET" => 0,
        "HEAD" => 1,
        "POST" => 2,
        "PUT" => 3,
        "DELETE" => 4,
        "CONNECT" => 5,
        "OPTIONS" => 6,
        "TRACE" => 7,
        "PATCH" => 8,
        "QUERY" => 9,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_status_has_its_own_slot() {
        for (at, code) in STATUSES.into_iter().enumerate() {
            assert_eq!(usize::from(STATUS_SLOTS[usize::from(code) - 100]), at);
        }
        let others = STATUS_SLOTS.iter().filter(|&&s| usize::from(s) == OTHER_STATUS).count();
        assert_eq!(others, 500 - STATUSES.len());
    }

    #[test]
    fn every_listed_method_has_its_own_slot() {
        for (at, name) in METHODS.into_iter().enumerate() {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(method_slot(&method), at);
        }
        assert_eq!(method_slot(&Method::from_bytes(b"BREW").unwrap()), 10);
    }

    #[test]
    fn routes_past_the_bound_share_the_overflow() {
        let series = HttpSeries::new(2);
        for at in 0..10 {
            series.start(Some(&format!("/r{at}")), &Method::GET).answered(StatusCode::OK);
        }
        let mut rows = series.busiest(100);
        rows.sort_by(|a, b| a.1.cmp(&b.1));
        let rows: Vec<_> = rows.iter().map(|(_, r, t)| (&**r, t.finished)).collect();
        assert_eq!(rows, [("/r0", 1), ("/r1", 1), ("_overflow", 8)]);
    }

    #[test]
    fn a_status_out_of_the_list_is_other() {
        let series = HttpSeries::new(2);
        for code in [200, 299, 599, 600, 999] {
            let status = StatusCode::from_u16(code).unwrap();
            series.start(Some("/"), &Method::GET).answered(status);
        }
        let text = series.recorder().render();
        assert!(text.contains("http_response_status_code=\"200\""), "{text}");
        assert!(text.contains("http_response_status_code=\"_OTHER\"} 4"), "{text}");
        assert_eq!(series.totals().failed, 1, "599 is a server error");
    }
}
