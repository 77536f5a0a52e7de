//! The script on a real Redis.

use std::collections::HashMap;

use testkit::Redis;
use tokio::time::Instant;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    redis: Redis,
    link: Arc<Link>,
}

impl World {
    async fn new() -> Self {
        let redis = Redis::start().await.unwrap();
        let client = ::redis::Client::open(redis.url()).unwrap();
        let link = Arc::new(Link::new(client, 10 * SECOND));
        Self { redis, link }
    }

    async fn ask(&self, asks: &[Ask]) -> Vec<Answer> {
        run(&self.link, asks).await.unwrap()
    }

    async fn one(&self, key: &str, units: Units, cost: i64) -> Answer {
        self.ask(&[ask(key, units, cost)]).await[0]
    }

    async fn cli(&self, arguments: &[&str]) -> String {
        self.redis.cli(arguments).await.unwrap().trim().to_owned()
    }

    /// Microseconds of the server's clock.
    async fn clock(&self) -> i64 {
        let mut time = ::redis::cmd("TIME");
        time.arg::<&[&str]>(&[]);
        let (seconds, micros): (i64, i64) = self.link.ask(&time).await.unwrap();
        seconds * 1_000_000 + micros
    }

    async fn set(&self, key: &str, since: i64, debt: u64, units: Units) {
        let state = format!("{since} {debt} {}", units.unit);
        assert_eq!(self.cli(&["SET", key, &state]).await, "OK");
    }
}

fn ask(key: &str, units: Units, cost: i64) -> Ask {
    let price = i128::from(cost) * i128::from(units.unit);
    Ask { key: key.to_owned(), units, cost: 0, price, shadow: false }
}

/// Nothing comes back while a test runs.
fn slow(burst: u32) -> Units {
    Units::new(1, HOUR, burst)
}

#[tokio::test]
async fn a_burst_fits_and_then_one_each_interval() {
    let world = World::new().await;
    for left in (0..5).rev() {
        let answer = world.one("k", slow(5), 1).await;
        assert_eq!((answer.limited, answer.remaining, answer.wait), (false, left, Duration::ZERO));
    }
    let answer = world.one("k", slow(5), 1).await;
    assert_eq!((answer.limited, answer.remaining), (true, 0));
    assert!(answer.wait > HOUR - 10 * SECOND && answer.wait <= HOUR, "{answer:?}");
    assert!(answer.reset > 5 * HOUR - 10 * SECOND && answer.reset <= 5 * HOUR, "{answer:?}");
    // A cost of its own.
    let answer = world.one("k", slow(5), 3).await;
    assert!(answer.limited && answer.wait > 3 * HOUR - 10 * SECOND, "{answer:?}");
    assert!(!world.one("other", slow(5), 5).await.limited);
    assert!(world.one("other", slow(5), 1).await.limited);
}

#[tokio::test]
async fn a_key_is_forgotten_when_nothing_is_owed_and_not_before() {
    let world = World::new().await;
    let units = Units::new(1, SECOND, 10);
    assert_eq!(world.one("k", units, 3).await.reset, 3 * SECOND);
    let left: i64 = world.cli(&["PTTL", "k"]).await.parse().unwrap();
    assert!((1..=3_001).contains(&left), "{left}");
    let end = Instant::now() + 20 * SECOND;
    while world.cli(&["EXISTS", "k"]).await != "0" {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let long = world.one("long", slow(100), 7).await;
    let left: u128 = world.cli(&["PTTL", "long"]).await.parse().unwrap();
    assert!((long.reset.as_millis() - 10_000..=long.reset.as_millis() + 1).contains(&left));
}

#[tokio::test]
async fn a_look_takes_nothing() {
    let world = World::new().await;
    let fresh = world.one("k", slow(2), 0).await;
    assert_eq!((fresh.limited, fresh.remaining, fresh.reset), (false, 2, Duration::ZERO));
    assert_eq!(world.cli(&["EXISTS", "k"]).await, "0");
    world.one("k", slow(2), 2).await;
    let used = world.one("k", slow(2), 0).await;
    assert!(!used.limited && used.remaining == 0 && used.reset > HOUR, "{used:?}");
}

#[tokio::test]
async fn what_is_given_back_can_be_used_again_and_no_more_than_was_used() {
    let world = World::new().await;
    world.one("k", slow(5), 4).await;
    let back = world.one("k", slow(5), -3).await;
    assert_eq!((back.limited, back.remaining), (false, 4));
    assert_eq!(world.one("k", slow(5), -9).await.remaining, 5, "not above the burst");
    assert_eq!(world.cli(&["EXISTS", "k"]).await, "0", "nothing owed is nothing kept");
    assert_eq!(world.one("never used", slow(5), -1).await.remaining, 5);
    assert_eq!(world.cli(&["DBSIZE"]).await, "0");
}

#[tokio::test]
async fn of_several_limits_all_are_charged_or_none() {
    let world = World::new().await;
    let both = |cost| [ask("wide", slow(10), cost), ask("narrow", slow(2), cost)];
    for _ in 0..2 {
        assert!(world.ask(&both(1)).await.iter().all(|answer| !answer.limited));
    }
    for _ in 0..20 {
        let [wide, narrow] = world.ask(&both(1)).await[..] else { panic!("two") };
        assert_eq!((wide.limited, wide.remaining), (false, 8), "the other limit has refused");
        assert!(narrow.limited);
    }
}

#[tokio::test]
async fn a_key_that_is_asked_for_twice_in_one_step_is_charged_twice() {
    let world = World::new().await;
    let twice = |cost| [ask("k", slow(5), cost), ask("k", slow(5), cost)];
    let seen = |answers: Vec<Answer>| {
        answers.iter().map(|answer| (answer.limited, answer.remaining)).collect::<Vec<_>>()
    };
    assert_eq!(seen(world.ask(&twice(2)).await), [(false, 3), (false, 1)]);
    // One of them fits, and both do not: neither is charged.
    assert_eq!(seen(world.ask(&twice(1)).await), [(false, 1), (true, 1)]);
    assert_eq!(world.one("k", slow(5), 0).await.remaining, 1);
    assert_eq!(seen(world.ask(&twice(-1)).await), [(false, 2), (false, 3)]);
    // What is given back is, whatever becomes of the others.
    let mixed = [ask("k", slow(5), 3), ask("k", slow(5), -1), ask("k", slow(5), 4)];
    assert_eq!(seen(world.ask(&mixed).await), [(false, 3), (false, 4), (true, 4)]);
    assert_eq!(world.one("k", slow(5), 0).await.remaining, 4);
}

#[tokio::test]
async fn a_limit_that_only_watches_refuses_nothing_and_is_charged_what_it_would_allow() {
    let world = World::new().await;
    let shadow = Ask { shadow: true, ..ask("shadow", slow(2), 1) };
    let asks = [ask("real", slow(5), 1), shadow];
    let mut seen = Vec::new();
    for _ in 0..6 {
        let answers = world.ask(&asks).await;
        seen.push((answers[0].limited, answers[1].limited));
    }
    let expected = [(false, false), (false, false), (false, true), (false, true), (false, true)];
    assert_eq!(seen, [&expected[..], &[(true, true)]].concat());
}

#[tokio::test]
async fn a_clock_that_is_set_back_takes_nothing_and_gives_nothing() {
    let world = World::new().await;
    let (units, now) = (Units::new(1, SECOND, 10), world.clock().await);
    // Six owed, by a clock that was an hour ahead, and by one that was two seconds behind.
    world.set("ahead", now + 3_600_000_000, 6_000_000, units).await;
    let ahead = world.one("ahead", units, 1).await;
    assert_eq!((ahead.limited, ahead.remaining, ahead.reset), (false, 3, 7 * SECOND));
    let left: u64 = world.cli(&["PTTL", "ahead"]).await.parse().unwrap();
    assert!(left <= 7_001, "{left}");
    world.set("behind", now - 2_000_000, 6_000_000, units).await;
    let behind = world.one("behind", units, 1).await;
    assert!(!behind.limited && behind.reset <= 5 * SECOND, "{behind:?}");
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_a_full_key_out_no_longer_than_its_quota_does() {
    let world = World::new().await;
    let (units, hour) = (Units::new(2, SECOND, 10), 3_600_000_000);
    let now = world.clock().await;
    world.set("full", now + hour, 10 * units.unit, units).await;
    let refused = world.one("full", units, 1).await;
    assert_eq!((refused.limited, refused.wait, refused.reset), (true, SECOND / 2, 5 * SECOND));
    let left: u64 = world.cli(&["PTTL", "full"]).await.parse().unwrap();
    assert!(left <= 5_001, "{left}");
    tokio::time::sleep(refused.wait).await;
    assert!(!world.one("full", units, 1).await.limited);
    // Nothing is charged beside a limit that refuses, and a look charges nothing.
    world.set("full", now + hour, 10 * units.unit, units).await;
    world.set("beside", now + hour, 5 * units.unit, units).await;
    world.set("looked at", now + hour, 5 * units.unit, units).await;
    world.ask(&[ask("beside", units, 1), ask("full", units, 1)]).await;
    assert_eq!(world.one("looked at", units, 0).await.remaining, 5);
    for key in ["beside", "looked at"] {
        let state = world.cli(&["GET", key]).await;
        let since: i64 = state.split(' ').next().unwrap().parse().unwrap();
        assert!(since < now + hour / 2, "{key}: {state}");
    }
}

#[tokio::test]
async fn under_a_changed_quota_as_much_stays_used() {
    let world = World::new().await;
    world.one("k", Units::new(1, HOUR, 10), 4).await;
    let fast = world.one("k", Units::new(7, HOUR, 10), 1).await;
    assert_eq!((fast.limited, fast.remaining), (false, 5));
    let back = world.one("k", Units::new(1, HOUR, 10), 0).await;
    assert_eq!(back.remaining, 5);
    // A smaller burst: nobody waits longer than it can make them.
    let small = world.one("k", Units::new(1, HOUR, 2), 1).await;
    assert!(small.limited && small.wait <= HOUR, "{small:?}");
}

#[tokio::test]
async fn numbers_above_2_to_the_53_count_to_the_unit() {
    let world = World::new().await;
    let (burst, year) = (999_983_u32, Duration::from_secs(366 * 86_400));
    // A prime count has no smaller form.
    let units = Units::new(burst, year, burst);
    assert!(units.capacity > 1 << 64);
    for used in 1..=300 {
        assert_eq!(world.one("k", units, 1).await.remaining, u64::from(burst - used));
    }
    assert_eq!(world.one("k", units, i64::from(burst - 300)).await.remaining, 0);
    assert!(world.one("k", units, 3).await.limited);
    assert_eq!(world.one("k", units, -2).await.remaining, 2);
    assert!(world.one("k", units, 4).await.limited);
}

#[tokio::test]
async fn it_agrees_with_a_plain_count_over_random_histories() {
    let world = World::new().await;
    let mut chance = fastrand::Rng::with_seed(42);
    let keys = ["a", "b", "c"];
    let mut used: HashMap<&str, i64> = HashMap::new();
    for step in 0..3_000 {
        let costs = [0; 3].map(|_: i64| chance.i64(-3..6));
        let count = chance.usize(1..=3);
        let asks: Vec<_> =
            (0..count).map(|i| ask(keys[i], slow(20 + 10 * i as u32), costs[i])).collect();
        let bursts = [20, 30, 40];
        let limited: Vec<bool> = (0..count)
            .map(|i| costs[i] > 0 && used.get(keys[i]).unwrap_or(&0) + costs[i] > bursts[i])
            .collect();
        let fits = !limited.contains(&true);
        for i in 0..count {
            if costs[i] < 0 || fits {
                let used = used.entry(keys[i]).or_default();
                *used = (*used + costs[i]).max(0);
            }
        }
        for (i, answer) in world.ask(&asks).await.into_iter().enumerate() {
            assert_eq!(answer.limited, limited[i], "step {step}: {asks:?}");
            let left = bursts[i] - used.get(keys[i]).unwrap_or(&0);
            assert_eq!(answer.remaining as i64, left, "step {step}: {asks:?}");
        }
    }
}

#[tokio::test]
async fn a_pace_is_kept_by_the_servers_clock() {
    let world = World::new().await;
    // 97 a second has no whole microseconds.
    let units = Units::new(97, SECOND, 2 * 97);
    let begun = world.clock().await;
    let mut allowed = 0;
    let mut now = begun;
    while now < begun + 2_000_000 {
        allowed += i64::from(!world.one("k", units, 1).await.limited);
        now = world.clock().await;
    }
    // What is left of the burst and what has come since are used up by the first refusal.
    let least = loop {
        let now = world.clock().await;
        if world.one("k", units, 1).await.limited {
            break 2 * 97 + (now - begun) * 97 / 1_000_000 - 1;
        }
        allowed += 1;
    };
    let most = 2 * 97 + (world.clock().await - begun) * 97 / 1_000_000 + 1;
    assert!((least..=most).contains(&allowed), "{allowed}, not {least} to {most}");
}

#[tokio::test]
async fn what_is_no_state_of_ours_is_replaced_and_what_is_no_string_is_an_error() {
    let world = World::new().await;
    for garbage in ["", "hello", "1 2", "1 2 0", "-1 5 5", "1e9 5 5", "1 2 3 4"] {
        assert_eq!(world.cli(&["SET", "k", garbage]).await, "OK");
        assert_eq!(world.one("k", slow(5), 1).await.remaining, 4, "{garbage:?}");
    }
    world.cli(&["RPUSH", "list", "x"]).await;
    let error = run(&world.link, &[ask("before", slow(5), 1), ask("list", slow(5), 1)]).await;
    assert_eq!(error.unwrap_err().code(), Some("WRONGTYPE"));
    assert_eq!(world.cli(&["EXISTS", "before"]).await, "0", "nothing is charged");
    assert_eq!(world.cli(&["LLEN", "list"]).await, "1", "nor is it removed");
}

#[tokio::test]
async fn a_script_that_redis_has_forgotten_is_told_again() {
    let world = World::new().await;
    for left in (0..5).rev() {
        assert_eq!(world.cli(&["SCRIPT", "FLUSH"]).await, "OK");
        assert_eq!(world.one("k", slow(5), 1).await.remaining, left);
    }
    assert_eq!(run(&world.link, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn a_replica_that_writes_nothing_says_so() {
    let world = World::new().await;
    world.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = run(&world.link, &[ask("k", slow(5), 1)]).await.unwrap_err();
    let read_only = ErrorKind::Server(ServerErrorKind::ReadOnly);
    assert!(error.kind() == read_only || error.code() == Some("MASTERDOWN"), "{error:?}");
    world.cli(&["REPLICAOF", "NO", "ONE"]).await;
    let end = Instant::now() + 5 * SECOND;
    while run(&world.link, &[ask("k", slow(5), 1)]).await.is_err() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
