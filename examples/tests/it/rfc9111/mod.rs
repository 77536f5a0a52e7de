//! RFC 9111 row by row, through `cache-proxy --profile rfc`: `docs/rfc-9111.md` names the tests.

mod freshness;
mod invalidation;
mod requests;
mod reuse;
mod stale;
mod storing;
mod updating;
mod validation;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::proxy::{Answer, Origin, PATIENCE, Proxy, Reply};

/// An origin and a proxy of its own.
pub(crate) struct Scene {
    pub(crate) origin: Origin,
    pub(crate) proxy: Proxy,
    paths: AtomicUsize,
}

/// Fields as one line: `cache-control: max-age=60 | age: 3`.
type Fields<'a> = &'a str;

fn fields(line: Fields<'_>) -> Vec<(&str, &str)> {
    line.split(" | ")
        .filter(|field| !field.is_empty())
        .map(|field| field.split_once(": ").unwrap_or_else(|| panic!("no field: {field}")))
        .collect()
}

/// A reply with these fields.
pub(crate) fn reply(status: u16, line: Fields<'_>, body: &str) -> Reply {
    let reply = Reply::new(status);
    fields(line)
        .into_iter()
        .fold(reply, |reply, (name, value)| reply.header(name, value))
        .body(body)
}

/// What no cache keeps.
pub(crate) fn passing(body: &str) -> Reply {
    reply(200, "cache-control: no-store", body)
}

/// An HTTP date so many seconds from now.
pub(crate) fn date(seconds: i64) -> String {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if seconds < 0 { now - distance } else { now + distance })
}

impl Scene {
    /// With all that a shared cache may do.
    pub(crate) async fn rfc() -> Self {
        Self::start("--profile rfc").await
    }

    pub(crate) async fn start(options: &str) -> Self {
        let origin = Origin::start().await;
        let proxy = Proxy::start(origin.address, options).await;
        Self { origin, proxy, paths: AtomicUsize::new(0) }
    }

    /// One that nobody has asked for yet.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.paths.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn get(&self, path: &str, line: Fields<'_>) -> Answer {
        self.request("GET", path, line).await
    }

    /// On a connection of its own, without a body.
    pub(crate) async fn request(&self, method: &str, path: &str, line: Fields<'_>) -> Answer {
        self.proxy.client().await.request(method, path, &fields(line), "").await
    }

    /// Asks when the origin has this to say, and it must be asked.
    pub(crate) async fn fetch(&self, path: &str, line: Fields<'_>, reply: Reply) -> Answer {
        let before = self.asked(path);
        self.origin.script(path, [reply]);
        let answer = self.get(path, line).await;
        assert_eq!(self.asked(path), before + 1, "{path} {line}: {answer:?}");
        answer
    }

    /// Asks until it is so: for what happens behind a client's back.
    pub(crate) async fn until(&self, what: &str, so: impl AsyncFn() -> bool) {
        let wait = async {
            while !so().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// How often the origin was asked for it.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.origin.seen(path).len()
    }

    /// Whether the answer to a second request is what the first one got, without the origin.
    pub(crate) async fn reuses(&self, first: Fields<'_>, reply: Reply, second: Fields<'_>) -> bool {
        let path = self.path();
        let stored = self.fetch(&path, first, reply).await;
        self.origin.script(&path, [passing("asked again")]);
        let answer = self.get(&path, second).await;
        match self.asked(&path) {
            1 => {
                assert_eq!(
                    (answer.status, &answer.body),
                    (stored.status, &stored.body),
                    "{second}: {answer:?}"
                );
                true
            }
            2 => {
                assert_eq!(answer.text(), "asked again", "{second}: {answer:?}");
                false
            }
            asked => panic!("the origin was asked {asked} times: {answer:?}"),
        }
    }

    /// Each row: the fields of a stored 200, whether a second `GET` reuses it.
    pub(crate) async fn check_responses(&self, rows: &[(Fields<'_>, bool)]) {
        for (line, reused) in rows {
            assert_eq!(self.reuses("", reply(200, line, "first"), "").await, *reused, "{line}");
        }
    }
}
