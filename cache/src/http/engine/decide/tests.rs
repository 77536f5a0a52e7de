//! Decisions by table, and a naive oracle over random exchanges.

use proptest::prelude::*;

use super::super::testing::{NOW, Request, after, at, decision, get, headers, store, stored};
use super::*;

const CC: &str = "cache-control";

fn rank(decision: &Decision) -> &'static str {
    match decision {
        Decision::Serve(Served { revalidate: false, .. }) => "serve",
        Decision::Serve(Served { revalidate: true, .. }) => "serve and revalidate",
        Decision::Validate(validation) => match validation.fwd {
            Fwd::Request => "validate by request",
            _ => "validate",
        },
        Decision::Forward(forward) => forward.fwd.as_str(),
        Decision::Unsatisfiable => "504",
    }
}

/// What happens to a `GET` with this `Cache-Control`, so many seconds later.
fn later(response: &str, request: &str, seconds: u64) -> &'static str {
    let head = stored(&[(CC, response), ("etag", "\"a\"")]);
    let lines = if request.is_empty() { vec![] } else { vec![(CC, request)] };
    rank(&decision(&head, &lines, after(seconds)))
}

/// RFC 9111 section 4: served while fresh, which ends exactly with the lifetime.
#[test]
fn fresh_is_served_and_stale_is_validated() {
    assert_eq!(later("max-age=60", "", 0), "serve");
    assert_eq!(later("max-age=60", "", 59), "serve");
    assert_eq!(later("max-age=60", "", 60), "validate");
    assert_eq!(later("max-age=0", "", 0), "validate");
    let head = stored(&[(CC, "max-age=3600"), ("age", "3000")]);
    assert_eq!(rank(&decision(&head, &[], after(599))), "serve");
    assert_eq!(rank(&decision(&head, &[], after(600))), "validate");
}

/// RFC 9111 section 4, methods: only `GET` and `HEAD` are answered; all others go through.
#[test]
fn other_methods_are_written_through() {
    let head = stored(&[(CC, "max-age=60")]);
    let of = |method: &str| {
        let request = Request::new(method, "/page", &[(CC, "only-if-cached")]);
        decide(&Policy::rfc(), &request.view(), &[&head], NOW)
    };
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "M-SEARCH", "TRACE"] {
        let expected = Forward { fwd: Fwd::Method, may_store: false, preconditions: Vec::new() };
        assert_eq!(of(method), Decision::Forward(expected), "{method}");
    }
    assert_eq!(rank(&of("HEAD")), "serve");
}

#[test]
fn nothing_stored_and_nothing_fitting_are_told_apart() {
    let policy = Policy::safe();
    let request = get(&[("foo", "2")]);
    assert_eq!(rank(&decide(&policy, &request.view(), &[], NOW)), "uri-miss");
    let head = Request::new("HEAD", "/page", &[]);
    for (request, expected) in [(&request, true), (&head, false)] {
        match decide(&policy, &request.view(), &[], NOW) {
            Decision::Forward(forward) => assert_eq!(forward.may_store, expected),
            other => panic!("{other:?}"),
        }
    }
    let other = store(&policy, &get(&[("foo", "1")]), 200, &[(CC, "max-age=9"), ("vary", "foo")]);
    assert_eq!(rank(&decide(&policy, &request.view(), &[&other.unwrap()], NOW)), "vary-miss");
}

/// RFC 9111 sections 4.1 and 4.3.1: the origin may choose among the variants that are there.
#[test]
fn a_miss_may_ask_about_the_other_variants() {
    let variant = |foo: &str, tag: &str| {
        let lines = [(CC, "max-age=9"), ("vary", "foo"), ("etag", tag)];
        store(&Policy::rfc(), &get(&[("foo", foo)]), 200, &lines).unwrap()
    };
    let (one, two) = (variant("1", "\"a\""), variant("2", "W/\"b\""));
    let ask = |policy: &Policy, lines: &[(&str, &str)]| match decide(
        policy,
        &get(lines).view(),
        &[&one, &two, &one],
        NOW,
    ) {
        Decision::Forward(forward) => forward.preconditions,
        other => panic!("{other:?}"),
    };
    let expected = (http::header::IF_NONE_MATCH, HeaderValue::from_static("\"a\", W/\"b\""));
    assert_eq!(ask(&Policy::rfc(), &[("foo", "3")]), [expected]);
    assert_eq!(ask(&Policy::safe(), &[("foo", "3")]), []);
    assert_eq!(ask(&Policy::rfc(), &[("foo", "3"), ("if-none-match", "\"x\"")]), []);
}

/// RFC 9111 section 4: the most recent one by `Date`.
#[test]
fn of_several_that_fit_the_most_recent_is_used() {
    let dated = |seconds: i64| {
        let date = at(seconds);
        store(&Policy::rfc(), &get(&[]), 200, &[(CC, "max-age=600"), ("date", &date)]).unwrap()
    };
    let (older, newer) = (dated(-50), dated(-10));
    for (stored, expected) in [([&older, &newer], 1), ([&newer, &older], 0)] {
        match decide(&Policy::rfc(), &get(&[]).view(), &stored, NOW) {
            Decision::Serve(served) => assert_eq!(served.index, expected),
            other => panic!("{other:?}"),
        }
    }
}

/// RFC 9111 section 4.1: an origin that forgets `Vary` in its default response.
#[test]
fn a_fresh_variant_wins_over_a_default_without_vary() {
    let dated = at(-10);
    let lines = [(CC, "max-age=60"), ("vary", "foo"), ("date", dated.as_str())];
    let varied = store(&Policy::rfc(), &get(&[("foo", "1")]), 200, &lines).unwrap();
    let plain = stored(&[(CC, "max-age=600")]);
    let chosen = |foo: &str, seconds: u64| match decide(
        &Policy::rfc(),
        &get(&[("foo", foo)]).view(),
        &[&plain, &varied],
        after(seconds),
    ) {
        Decision::Serve(served) => served.index,
        other => panic!("{other:?}"),
    };
    assert_eq!(chosen("1", 0), 1);
    assert_eq!(chosen("2", 0), 0);
    // Once it is stale, it does not keep the fresh one from being used.
    assert_eq!(chosen("1", 100), 0);
}

/// RFC 9111 section 5.2.2.4.
#[test]
fn no_cache_is_validated_each_time() {
    assert_eq!(later("no-cache, max-age=60", "", 0), "validate");
    assert_eq!(later("No-CaChE, max-age=60", "max-stale", 0), "validate");
    assert_eq!(later("no-cache=\"foo\", max-age=60", "", 0), "serve");
}

/// RFC 9111 section 5.2.1.4, and section 5.4 for `Pragma`.
#[test]
fn a_requests_no_cache_is_honoured_by_policy() {
    assert_eq!(later("max-age=60", "no-cache", 0), "validate by request");
    let head = stored(&[(CC, "max-age=60")]);
    let pragma = [("pragma", "no-cache")];
    assert_eq!(rank(&decision(&head, &pragma, NOW)), "validate by request");
    assert_eq!(rank(&decision(&head, &[("pragma", "no-cache"), (CC, "foo")], NOW)), "serve");
    for lines in [pragma, [(CC, "no-cache")], [(CC, "max-age=0")], [(CC, "min-fresh=100")]] {
        let decision = decide(&Policy::safe(), &get(&lines).view(), &[&head], NOW);
        assert_eq!(rank(&decision), "serve", "{lines:?}");
    }
}

/// RFC 9111 sections 5.2.1.1 and 5.2.1.3.
#[test]
fn a_requests_max_age_and_min_fresh_are_honoured_by_policy() {
    assert_eq!(later("max-age=60", "max-age=10", 10), "serve");
    assert_eq!(later("max-age=60", "max-age=10", 11), "validate by request");
    assert_eq!(later("max-age=60", "max-age=0", 1), "validate by request");
    assert_eq!(later("max-age=60", "min-fresh=20", 40), "serve");
    assert_eq!(later("max-age=60", "min-fresh=20", 41), "validate by request");
    // A client that names an age does not want a stale response, unless it says so as well.
    let windowed = "max-age=60, stale-while-revalidate=60";
    assert_eq!(later(windowed, "max-age=100", 70), "validate");
    assert_eq!(later(windowed, "min-fresh=1", 70), "validate");
    assert_eq!(later("max-age=60", "max-age=100, max-stale", 70), "serve");
    assert_eq!(later("max-age=60", "max-age=65, max-stale", 70), "validate");
}

/// RFC 8246 section 2.
#[test]
fn a_reload_does_not_validate_what_is_immutable() {
    assert_eq!(later("max-age=60, immutable", "max-age=0", 10), "serve");
    assert_eq!(later("max-age=60, immutable=1", "max-age=0", 10), "validate by request");
    assert_eq!(later("max-age=60, immutable", "no-cache", 10), "validate by request");
    assert_eq!(later("max-age=60, immutable", "max-age=0", 60), "validate");
}

/// RFC 9111 sections 4.2.4 and 5.2.1.2.
#[test]
fn max_stale_allows_what_is_not_prohibited() {
    assert_eq!(later("max-age=60", "max-stale=10", 70), "serve");
    assert_eq!(later("max-age=60", "max-stale=10", 71), "validate");
    assert_eq!(later("max-age=60", "max-stale", 100_000), "serve");
    for prohibited in ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"] {
        let response = format!("max-age=60, {prohibited}");
        assert_eq!(later(&response, "max-stale", 70), "validate", "{prohibited}");
    }
    let head = stored(&[(CC, "max-age=60")]);
    let policy = Policy { honour_max_stale: false, ..Policy::rfc() };
    let request = get(&[(CC, "max-stale")]);
    assert_eq!(rank(&decide(&policy, &request.view(), &[&head], after(70))), "validate");
}

/// RFC 5861 section 3.
#[test]
fn stale_while_revalidate_ends_with_its_window() {
    let response = "max-age=60, stale-while-revalidate=10";
    assert_eq!(later(response, "", 59), "serve");
    assert_eq!(later(response, "", 60), "serve and revalidate");
    assert_eq!(later(response, "", 69), "serve and revalidate");
    assert_eq!(later(response, "", 70), "validate");
    assert_eq!(later("s-maxage=60, stale-while-revalidate=10", "", 61), "validate");
    assert_eq!(later("max-age=60, must-revalidate, stale-while-revalidate=10", "", 61), "validate");
}

/// RFC 9111 section 5.2.1.7.
#[test]
fn only_if_cached_is_stored_or_504() {
    assert_eq!(later("max-age=60", "only-if-cached", 0), "serve");
    assert_eq!(later("max-age=60", "only-if-cached", 60), "504");
    assert_eq!(later("max-age=60", "only-if-cached, max-stale", 60), "serve");
    assert_eq!(later("no-cache", "only-if-cached", 0), "504");
    let request = get(&[(CC, "only-if-cached")]);
    assert_eq!(rank(&decide(&Policy::rfc(), &request.view(), &[], NOW)), "504");
    let ignoring = Policy { honour_only_if_cached: false, ..Policy::rfc() };
    assert_eq!(rank(&decide(&ignoring, &request.view(), &[], NOW)), "uri-miss");
}

/// RFC 9111 section 4.3.2: not the cache's to evaluate, so neither 412 nor a stored response.
#[test]
fn conditions_for_the_origin_reach_the_origin() {
    let head = stored(&[(CC, "max-age=60"), ("etag", "\"a\"")]);
    let date = at(0);
    for line in [("if-match", "\"a\""), ("if-match", "*"), ("if-unmodified-since", date.as_str())] {
        assert_eq!(rank(&decision(&head, &[line], NOW)), "request", "{line:?}");
    }
    for line in [("content-length", "3"), ("transfer-encoding", "chunked"), ("upgrade", "h2c")] {
        assert_eq!(rank(&decision(&head, &[line], NOW)), "bypass", "{line:?}");
    }
}

/// RFC 9111 section 5.2.1.5: it is about storing; what is stored already may answer.
#[test]
fn a_requests_no_store_is_answered_but_not_stored() {
    assert_eq!(later("max-age=60", "no-store", 0), "serve");
    let request = get(&[(CC, "no-store")]);
    match decide(&Policy::rfc(), &request.view(), &[], NOW) {
        Decision::Forward(forward) => assert!(!forward.may_store),
        other => panic!("{other:?}"),
    }
}

/// RFC 9111 section 4.3.1.
#[test]
fn a_validation_sends_what_is_stored_and_not_what_the_client_sent() {
    let modified = at(-100);
    let head = stored(&[(CC, "max-age=0"), ("etag", "W/\"a\""), ("last-modified", &modified)]);
    let lines = [
        ("if-none-match", "\"client\""),
        ("range", "bytes=0-1"),
        ("if-range", "\"client\""),
        ("accept", "x"),
    ];
    let Decision::Validate(validation) = decision(&head, &lines, NOW) else { panic!() };
    let mut outgoing = headers(&lines);
    validation.apply(&mut outgoing);
    let expected =
        headers(&[("accept", "x"), ("if-none-match", "W/\"a\""), ("if-modified-since", &modified)]);
    assert_eq!(outgoing, expected);
}

/// An entity tag that is none, and a date that is none, are not sent.
#[test]
fn what_is_no_validator_is_not_sent() {
    let head =
        stored(&[(CC, "max-age=1, stale-if-error=60"), ("etag", "a"), ("last-modified", "b")]);
    let Decision::Validate(validation) = decision(&head, &[], after(2)) else { panic!() };
    assert_eq!(validation.preconditions, []);
}

fn stands_in(response: &str, request: &str, failure: Failure, seconds: u64) -> bool {
    let head = stored(&[(CC, response), ("etag", "\"a\"")]);
    let lines = if request.is_empty() { vec![] } else { vec![(CC, request)] };
    let policy = Policy { stale_if_error: std::time::Duration::ZERO, ..Policy::rfc() };
    match decide(&policy, &get(&lines).view(), &[&head], after(seconds)) {
        Decision::Validate(validation) => validation.may_serve_stale(failure, after(seconds)),
        other => panic!("{other:?}"),
    }
}

fn status(code: u16) -> Failure {
    Failure::Status(StatusCode::from_u16(code).unwrap())
}

/// RFC 5861 section 4.
#[test]
fn stale_if_error_is_for_four_statuses_within_its_window() {
    // Stored under `rfc`, whose own window the response's directive replaces.
    let response = "max-age=60, stale-if-error=10";
    for code in [500, 502, 503, 504] {
        assert!(stands_in(response, "", status(code), 69), "{code}");
        assert!(!stands_in(response, "", status(code), 70), "{code}");
    }
    for code in [200, 304, 400, 404, 501, 505, 599] {
        assert!(!stands_in(response, "", status(code), 69), "{code}");
    }
    assert!(!stands_in("max-age=60, stale-if-error=0", "", status(503), 61));
    // RFC 5861 section 4: a request may ask for it too.
    assert!(stands_in("max-age=60, stale-if-error=0", "stale-if-error=10", status(503), 69));
}

/// RFC 9111 section 4.2.4: a disconnected cache may serve stale, unless that is prohibited.
#[test]
fn an_unreachable_origin_is_stood_in_for_unless_prohibited() {
    assert!(stands_in("max-age=60", "", Failure::Unreachable, 1000));
    assert!(!stands_in("max-age=60", "", Failure::Unreachable, 2 * 24 * 3600));
    for prohibited in ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"] {
        let response = format!("max-age=60, {prohibited}, stale-if-error=100");
        assert!(!stands_in(&response, "", Failure::Unreachable, 61), "{prohibited}");
        assert!(!stands_in(&response, "", status(503), 61), "{prohibited}");
    }
    assert!(!stands_in("max-age=60", "no-cache", Failure::Unreachable, 61));
}

/// RFC 9111 section 4.2.4: nothing stale by default.
#[test]
fn the_safe_policy_serves_stale_only_where_it_is_told_to() {
    let policy = Policy::safe();
    let head = store(&policy, &get(&[]), 200, &[(CC, "max-age=60"), ("etag", "\"a\"")]).unwrap();
    let Decision::Validate(validation) = decide(&policy, &get(&[]).view(), &[&head], after(60))
    else {
        panic!()
    };
    assert!(!validation.may_serve_stale(Failure::Unreachable, after(60)));
    assert!(!validation.may_serve_stale(status(503), after(60)));
}

/// One exchange in small numbers, and the reading of RFC 9111 a beginner would write.
#[derive(Debug, Clone)]
struct Case {
    response: Vec<(&'static str, Option<u64>)>,
    request: Vec<(&'static str, Option<u64>)>,
    age: u64,
    later: u64,
}

impl Case {
    fn has(&self, name: &str) -> bool {
        self.response.iter().any(|(other, _)| *other == name)
    }

    fn wish(&self, name: &str) -> Option<Option<u64>> {
        self.request.iter().find(|(other, _)| *other == name).map(|(_, number)| *number)
    }

    fn lifetime(&self) -> u64 {
        for name in ["s-maxage", "max-age"] {
            if let Some((_, Some(number))) = self.response.iter().find(|(other, _)| *other == name)
            {
                return *number;
            }
        }
        0
    }

    /// Whether serving without asking the origin breaks no MUST NOT.
    fn may_serve(&self) -> bool {
        let (age, lifetime) = (self.age + self.later, self.lifetime());
        if self.has("no-cache") || self.wish("no-cache").is_some() {
            return false;
        }
        if let Some(Some(limit)) = self.wish("max-age")
            && age > limit
        {
            return false;
        }
        if let Some(Some(least)) = self.wish("min-fresh")
            && age + least > lifetime
        {
            return false;
        }
        if age < lifetime {
            return true;
        }
        if ["must-revalidate", "proxy-revalidate", "s-maxage"].iter().any(|name| self.has(name)) {
            return false;
        }
        let staleness = age - lifetime;
        let window = self.response.iter().find(|(name, _)| *name == "stale-while-revalidate");
        let in_window = window.is_some_and(|(_, number)| number.is_some_and(|end| staleness < end))
            && self.wish("max-age").is_none();
        in_window
            || self.wish("max-stale").is_some_and(|limit| limit.is_none_or(|end| staleness <= end))
    }
}

fn directives(list: &[(&'static str, Option<u64>)]) -> String {
    let one = |(name, number): &(&str, Option<u64>)| match number {
        Some(number) => format!("{name}={number}"),
        None => (*name).to_owned(),
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Each directive at most once, with or without a number, in any order.
fn some_of(
    bare: &'static [&'static str],
    numbered: &'static [&'static str],
) -> impl Strategy<Value = Vec<(&'static str, Option<u64>)>> {
    let bare = proptest::sample::subsequence(bare, 0..=bare.len())
        .prop_map(|names| names.into_iter().map(|name| (name, None)).collect::<Vec<_>>());
    let numbered =
        proptest::sample::subsequence(numbered, 0..=numbered.len()).prop_flat_map(|names| {
            let len = names.len();
            (Just(names), proptest::collection::vec(0_u64..20, len)).prop_map(|(names, numbers)| {
                names.into_iter().zip(numbers.into_iter().map(Some)).collect::<Vec<_>>()
            })
        });
    (bare, numbered).prop_map(|(bare, numbered)| [bare, numbered].concat()).prop_shuffle()
}

fn case() -> impl Strategy<Value = Case> {
    let response = some_of(
        &["no-cache", "must-revalidate", "proxy-revalidate", "public"],
        &["max-age", "s-maxage", "stale-while-revalidate"],
    );
    let request = some_of(&["no-cache"], &["max-age", "min-fresh", "max-stale"]);
    (response, request, 0_u64..20, 0_u64..30).prop_map(|(response, request, age, later)| Case {
        response,
        request,
        age,
        later,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Served exactly if the oracle allows it: never what it forbids, and all that it allows.
    #[test]
    fn served_means_allowed(case in case()) {
        let (age, value) = (case.age.to_string(), directives(&case.response));
        let head = stored(&[(CC, &value), ("age", &age), ("etag", "\"a\"")]);
        let wishes = directives(&case.request);
        let lines = if wishes.is_empty() { vec![] } else { vec![(CC, wishes.as_str())] };
        let decision = decision(&head, &lines, after(case.later));
        prop_assert_eq!(matches!(decision, Decision::Serve(_)), case.may_serve(), "{:?}", decision);
    }

    /// Once stale, never fresh again by waiting; and what is refused now is refused later.
    #[test]
    fn freshness_only_falls(case in case(), wait in 0_u64..30) {
        let (age, value) = (case.age.to_string(), directives(&case.response));
        let head = stored(&[(CC, &value), ("age", &age), ("etag", "\"a\"")]);
        prop_assert!(head.remaining_ms(after(case.later)) >= head.remaining_ms(after(case.later + wait)));
        let now = decision(&head, &[], after(case.later));
        let then = decision(&head, &[], after(case.later + wait));
        if matches!(then, Decision::Serve(_)) {
            prop_assert!(matches!(now, Decision::Serve(_)), "{:?} then {:?}", now, then);
        }
    }

    /// Whatever bytes come: an answer, and no panic.
    #[test]
    fn any_bytes_are_decided_about(
        name in prop_oneof![
            Just("cache-control"), Just("cdn-cache-control"), Just("expires"), Just("age"),
            Just("date"), Just("vary"), Just("etag"), Just("last-modified"), Just("connection"),
            Just("location"), Just("content-location"), Just("warning"), Just("content-length"),
        ],
        value in proptest::collection::vec(any::<u8>(), 0..60),
        wish in prop_oneof![
            Just("cache-control"), Just("pragma"), Just("range"), Just("if-range"), Just("host"),
            Just("if-none-match"), Just("if-modified-since"), Just("accept-language"),
        ],
        wished in proptest::collection::vec(any::<u8>(), 0..60),
        times in (any::<u64>(), any::<u64>(), any::<u64>()),
        body_len in any::<u64>(),
        code in 100_u16..1000,
    ) {
        let (Ok(_), Ok(_)) = (HeaderValue::from_bytes(&value), HeaderValue::from_bytes(&wished)) else {
            return Ok(());
        };
        let policy = Policy::rfc();
        let request = Request { headers: headers(&[(wish, &wished)]), ..get(&[]) };
        let view = request.view();
        let response = headers(&[(CC, b"max-age=60, public".as_slice()), ("vary", b"accept-language"), (name, &value)]);
        let (asked, came, now) = (UnixMs(times.0), UnixMs(times.1), UnixMs(times.2));
        let code = StatusCode::from_u16(code).unwrap();
        if let Ok(head) = super::super::admit(&policy, &view, code, &response, asked, came) {
            let decision = decide(&policy, &view, &[&head], now);
            if let Decision::Validate(validation) = &decision {
                validation.apply(&mut request.headers.clone());
                let _ = validation.may_serve_stale(Failure::Unreachable, now);
            }
            let status = super::super::CacheStatus::hit("a");
            let _ = super::super::answer(&policy, &view, &head, body_len, now, status);
            let _ = super::super::freshen(&policy, &view, &head, &response, asked, now);
            let _ = super::super::nominated(&[&head], &response, now);
            let _ = (head.retention(&policy, now), head.ttl_seconds(now));
        }
        let unsafe_request = Request { method: http::Method::POST, ..request.clone() };
        let _ = super::super::invalidations(&unsafe_request.view(), code, &response);
    }
}
