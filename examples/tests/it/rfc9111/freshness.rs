//! Sections 1.2.2, 4.2, 5.1, 5.2, 5.2.2 and 5.3: how long a response is fresh, and how old it is.

use std::time::Duration;

use super::{Scene, date, reply};

#[tokio::test]
async fn the_most_specific_lifetime_wins() {
    let scene = Scene::rfc().await;
    let (past, future) = (date(-1_000), date(1_000));
    let expires_past = format!("expires: {past}");
    let expires_future = format!("expires: {future}");
    let max_age_over_past = format!("cache-control: max-age=60 | expires: {past}");
    let max_age_over_future = format!("cache-control: max-age=0 | expires: {future}");
    let shared_over_future = format!("cache-control: s-maxage=0 | expires: {future}");
    scene
        .check_responses(&[
            ("cache-control: max-age=60", true),
            ("cache-control: max-age=0", false),
            ("cache-control: max-age=60, s-maxage=0", false),
            ("cache-control: max-age=0, s-maxage=60", true),
            ("cache-control: s-maxage=60", true),
            (&expires_future, true),
            (&expires_past, false),
            (&max_age_over_past, true),
            (&max_age_over_future, false),
            (&shared_over_future, false),
        ])
        .await;
}

#[tokio::test]
async fn directives_are_read_as_they_are_written() {
    let scene = Scene::rfc().await;
    scene
        .check_responses(&[
            ("cache-control: MAX-AGE=60", true),
            ("cache-control: max-age=\"60\"", true),
            ("cache-control: max-age=060", true),
            ("cache-control: unknown, other=1, max-age=60", true),
            ("cache-control: unknown=\"a, max-age=0\", max-age=60", true),
            ("cache-control: unknown=\"a, max-age=60\"", false),
            ("cache-control: ,,  max-age=60 ,", true),
            ("cache-control: unknown | cache-control: max-age=60", true),
            ("cache-control: x-max-age=60", false),
        ])
        .await;
}

#[tokio::test]
async fn a_number_too_large_to_be_held_is_a_long_time() {
    let scene = Scene::rfc().await;
    scene
        .check_responses(&[
            ("cache-control: max-age=2147483647", true),
            ("cache-control: max-age=2147483649", true),
            ("cache-control: max-age=99999999999999999999999999", true),
            ("cache-control: max-age=60 | age: 99999999999999999999999999", false),
        ])
        .await;
}

#[tokio::test]
async fn a_lifetime_that_cannot_be_read_or_contradicts_itself_is_over() {
    let scene = Scene::rfc().await;
    let old = date(-1_000_000);
    let invalid_and_old = format!("cache-control: max-age=a | last-modified: {old}");
    let two_dates = format!("expires: {} | expires: {}", date(-1_000), date(1_000));
    scene
        .check_responses(&[
            ("cache-control: max-age=a", false),
            ("cache-control: max-age", false),
            ("cache-control: max-age=", false),
            ("cache-control: max-age=-1", false),
            ("cache-control: max-age=60s", false),
            ("cache-control: max-age=6.0", false),
            ("cache-control: max-age=60, max-age=0", false),
            ("cache-control: max-age=0, max-age=60", false),
            ("cache-control: max-age=0 | cache-control: max-age=60", false),
            ("cache-control: s-maxage=a, max-age=60", false),
            (&invalid_and_old, false),
            (&two_dates, false),
        ])
        .await;
}

#[tokio::test]
async fn an_expires_that_is_no_date_is_in_the_past() {
    let scene = Scene::rfc().await;
    let zero_and_old = format!("expires: 0 | last-modified: {}", date(-1_000_000));
    scene
        .check_responses(&[
            ("expires: 0", false),
            ("expires: -1", false),
            ("expires: never", false),
            ("expires: Thu, 99 Foo 2099 00:00:00 GMT", false),
            ("expires: Thu, 18 Aug 2095 02:01:18 GMT", true),
            ("expires: thu, 18 aug 2095 02:01:18 gmt", true),
            ("expires: Sat, 31 Dec 2095 23:59:60 GMT", true),
            // Zones but GMT are invalid, since no two readers know the same ones.
            ("expires: Thu, 18 Aug 2095 02:01:18 EST", false),
            ("expires: Thu, 18 Aug 2095 02:01:18 +0000", false),
            // Both obsolete forms are dates (RFC 9110, section 5.6.7).
            ("expires: Thursday, 18-Aug-50 02:01:18 GMT", true),
            ("expires: Thu Aug 18 02:01:18 2095", true),
            // Explicit, so that no heuristic may make it fresh.
            (&zero_and_old, false),
        ])
        .await;
}

#[tokio::test]
async fn an_expires_counts_from_the_date() {
    let scene = Scene::rfc().await;
    // Fresh for 10 s, of which 100 are over.
    let over = format!("date: {} | expires: {}", date(-100), date(-90));
    // Fresh for 1,000 s, of which 100 are over.
    let within = format!("date: {} | expires: {}", date(-100), date(900));
    // The origin's clock is 1,000 s ahead: never fresh, for all that our clock says.
    let ahead = format!("date: {} | expires: {}", date(1_000), date(1_000));
    scene.check_responses(&[(&over, false), (&within, true), (&ahead, false)]).await;
}

#[tokio::test]
async fn age_is_the_larger_of_what_it_says_and_what_its_date_says() {
    let scene = Scene::rfc().await;
    let old = format!("cache-control: max-age=60 | date: {}", date(-100));
    let young = format!("cache-control: max-age=60 | date: {}", date(-10));
    let both = format!("cache-control: max-age=60 | date: {} | age: 100", date(-10));
    let ahead = format!("cache-control: max-age=60 | date: {}", date(100));
    scene
        .check_responses(&[
            ("cache-control: max-age=60 | age: 20", true),
            ("cache-control: max-age=60 | age: 60", false),
            ("cache-control: max-age=60 | age: 100", false),
            (&old, false),
            (&young, true),
            (&both, false),
            (&ahead, true),
        ])
        .await;
}

#[tokio::test]
async fn the_first_age_counts_and_one_that_is_no_number_does_not() {
    let scene = Scene::rfc().await;
    scene
        .check_responses(&[
            ("cache-control: max-age=60 | age: 0, 100", true),
            ("cache-control: max-age=60 | age: 100, 0", false),
            ("cache-control: max-age=60 | age: 0 | age: 100", true),
            ("cache-control: max-age=60 | age: 100 | age: 0", false),
            ("cache-control: max-age=60 | age: old", true),
            ("cache-control: max-age=60 | age: -5", true),
        ])
        .await;
}

#[tokio::test]
async fn heuristics_are_for_responses_that_say_nothing() {
    let scene = Scene::rfc().await;
    let old = format!("last-modified: {}", date(-1_000_000));
    // Of the same second, whatever time the test takes.
    let recent = format!("last-modified: {0} | date: {0}", date(0));
    let no_cache = format!("cache-control: no-cache | {old}");
    let none_left = format!("cache-control: max-age=0 | {old}");
    let shared_none_left = format!("cache-control: s-maxage=0 | {old}");
    scene
        .check_responses(&[
            (&old, true),
            (&recent, false),
            (&no_cache, false),
            (&none_left, false),
            (&shared_none_left, false),
        ])
        .await;
    for (status, reused) in [
        (200, true),
        (203, true),
        (300, true),
        (301, true),
        (308, true),
        (404, true),
        (405, true),
        (410, true),
        (414, true),
        (501, true),
        (302, false),
        (307, false),
        (400, false),
        (503, false),
    ] {
        assert_eq!(scene.reuses("", reply(status, &old, "x"), "").await, reused, "{status}");
    }
}

#[tokio::test]
async fn a_response_may_be_fetched_without_a_date() {
    let scene = Scene::rfc().await;
    // An empty value takes the field away.
    scene.check_responses(&[("cache-control: max-age=60 | date: ", true)]).await;
    let path = scene.path();
    scene.fetch(&path, "", reply(200, "cache-control: max-age=60 | date: ", "x")).await;
    let answer = scene.get(&path, "").await;
    let when = httpdate::parse_http_date(&answer.header("date").expect("Date")).expect("a date");
    assert!(when.elapsed().expect("the past") < Duration::from_secs(20), "{answer:?}");
}

#[tokio::test]
async fn a_targeted_field_takes_the_place_of_cache_control_and_expires() {
    let scene = Scene::rfc().await;
    let past = format!("cdn-cache-control: max-age=60 | expires: {}", date(-1_000));
    scene
        .check_responses(&[
            ("cdn-cache-control: max-age=60 | cache-control: no-store", true),
            ("cdn-cache-control: max-age=60 | cache-control: max-age=0", true),
            (&past, true),
            ("cdn-cache-control: max-age=0 | cache-control: max-age=60", false),
            ("cdn-cache-control: no-store | cache-control: max-age=60", false),
            ("cdn-cache-control: private | cache-control: max-age=60", false),
            ("cdn-cache-control: no-cache | cache-control: max-age=60", false),
            // Not a structured field, or without a member: as if it were not there.
            ("cdn-cache-control: max-age=&60 | cache-control: max-age=60", true),
            ("cdn-cache-control: max-age=\"60\" | cache-control: max-age=0", false),
            ("cdn-cache-control: ,max-age=60 | cache-control: max-age=0", false),
        ])
        .await;
}

#[tokio::test]
async fn directives_pass_through_both_ways() {
    let scene = Scene::rfc().await;
    let path = scene.path();
    let request = "no-cache, max-stale=\"5\", unknown=1";
    let response = "max-age=60, unknown=\"a, b\", must-revalidate";
    let reply = reply(200, &format!("cache-control: {response}"), "x");
    let answer = scene.fetch(&path, &format!("cache-control: {request}"), reply).await;
    assert_eq!(answer.header("cache-control").as_deref(), Some(response));
    let seen = &scene.origin.seen(&path)[0];
    assert_eq!(seen.header("cache-control").as_deref(), Some(request));
    assert_eq!(scene.get(&path, "").await.header("cache-control").as_deref(), Some(response));
    assert_eq!(scene.asked(&path), 1);
}
