//! Several processes on one key: children that run this test binary.

use std::process::Stdio;
use std::time::Duration;

use escala_cluster::{Quota, RateLimitConfig, RedisRateLimiter, StoreFailure};
use testkit::Redis;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use super::{SLACK, TIMEOUT, hasty, store};

/// Holds the URL of the Redis, how many milliseconds to run, and how patiently.
const ROLE: &str = "ESCALA_CLUSTER_TEST_CLIENT";
/// Begins each line that is an answer, among those that the test runner prints.
const MARK: &str = "> ";
const PROCESSES: usize = 4;
const TASKS: usize = 4;
const RATE: u32 = 500;
/// Two seconds of the pace: so long, the machine may let all of them wait and nothing is lost.
const BURST: u32 = 1_000;
/// No child lives longer, whatever happens to its parent.
const PATIENCE: Duration = Duration::from_secs(40);

/// What one process, or all of them, got.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Got {
    allowed: u64,
    limited: u64,
    failed: u64,
    longest_ms: u64,
}

impl std::ops::AddAssign for Got {
    fn add_assign(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.limited += other.limited;
        self.failed += other.failed;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

/// Not a test by itself: what a child process runs. Without the variable it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_of_another_test_takes_what_it_can_get() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let parts: Vec<&str> = role.split(' ').collect();
    let [url, millis, patience] = parts[..] else { panic!("{role}") };
    let store = if patience == "hasty" { hasty(url) } else { store(url) };
    let config = RateLimitConfig::new(Quota::per_second(RATE).burst(BURST))
        .store_failure(StoreFailure::Reject);
    let limiter = RedisRateLimiter::new("shared", config, &store).unwrap();
    store.ping().await.unwrap();
    answer("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let end = Instant::now() + Duration::from_millis(millis.parse().unwrap());
    let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(take(limiter.clone(), end))).collect();
    let mut got = Got::default();
    for task in tasks {
        got += timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    answer(&format!("{} {} {} {}", got.allowed, got.limited, got.failed, got.longest_ms));
}

fn answer(text: &str) {
    use std::io::Write as _;

    // The runner may have begun a line of its own.
    let mut out = std::io::stdout().lock();
    write!(out, "\n{MARK}{text}\n").and_then(|()| out.flush()).unwrap();
}

async fn take(limiter: RedisRateLimiter, end: Instant) -> Got {
    let mut got = Got::default();
    while Instant::now() < end {
        let begun = Instant::now();
        let checked = limiter.check("key").await;
        got.longest_ms = got.longest_ms.max(begun.elapsed().as_millis() as u64);
        match checked {
            Ok(Some(decision)) if decision.is_allowed() => got.allowed += 1,
            Ok(Some(_)) => {
                got.limited += 1;
                sleep(Duration::from_millis(1)).await;
            }
            Ok(None) => panic!("it fails closed"),
            Err(_) => {
                got.failed += 1;
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
    got
}

struct Client {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// A process that is ready. It is killed when this is dropped, and ends by itself when we do.
    async fn start(url: &str, time: Duration, patience: &str) -> Self {
        let name = "redis::processes::a_child_of_another_test_takes_what_it_can_get";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(ROLE, format!("{url} {} {patience}", time.as_millis()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut client = Self { child, answers };
        assert_eq!(client.answer().await, "ready");
        client
    }

    async fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    }

    async fn answer(&mut self) -> String {
        loop {
            let line = timeout(PATIENCE, self.answers.next_line()).await.unwrap().unwrap();
            let line = line.expect("the child has not ended before");
            if let Some(answer) = line.strip_prefix(MARK) {
                return answer.to_owned();
            }
        }
    }

    async fn got(mut self) -> Got {
        let text = self.answer().await;
        let figures: Vec<u64> = text.split(' ').map(|figure| figure.parse().unwrap()).collect();
        let [allowed, limited, failed, longest_ms] = figures[..] else { panic!("{text}") };
        self.child.wait().await.unwrap();
        Got { allowed, limited, failed, longest_ms }
    }
}

async fn clients(redis: &Redis, time: Duration, patience: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..PROCESSES {
        clients.push(Client::start(&redis.url(), time, patience).await);
    }
    clients
}

/// Seconds by the server's clock.
async fn clock(redis: &Redis) -> f64 {
    let time = redis.cli(&["TIME"]).await.unwrap();
    let (seconds, micros) = time.trim().split_once('\n').unwrap();
    seconds.parse::<f64>().unwrap() + micros.parse::<f64>().unwrap() / 1e6
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_one_key_get_the_exact_total() {
    let redis = Redis::start().await.unwrap();
    let mut clients = clients(&redis, Duration::from_secs(10), "patient").await;
    let begun = clock(&redis).await;
    for client in &mut clients {
        client.go().await;
    }
    let mut total = Got::default();
    for client in clients {
        let got = client.got().await;
        assert!(got.allowed > 0, "{got:?}: nobody is shut out by the others");
        total += got;
    }
    let most = f64::from(BURST) + (clock(&redis).await - begun) * f64::from(RATE);
    println!("{total:?} of at most {most:.1}");
    assert_eq!(total.failed, 0, "{total:?}");
    assert!(total.limited > 0 && total.allowed as f64 <= most, "{total:?} of at most {most}");
    assert!(total.allowed as f64 >= most - f64::from(BURST), "{total:?} of {most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_redis_no_process_waits_longer_or_gets_more() {
    let redis = Redis::builder().append_only(true).start().await.unwrap();
    let mut clients = clients(&redis, Duration::from_secs(8), "hasty").await;
    let begun = clock(&redis).await;
    for client in &mut clients {
        client.go().await;
    }
    let pause = || sleep(Duration::from_millis(700));
    pause().await;
    redis.freeze().unwrap();
    pause().await;
    redis.thaw().unwrap();
    pause().await;
    redis.cli(&["SCRIPT", "FLUSH"]).await.unwrap();
    pause().await;
    redis.kill().unwrap();
    pause().await;
    redis.restart().await.unwrap();
    pause().await;
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    let mut total = Got::default();
    for client in clients {
        total += client.got().await;
    }
    // What a question cost whose answer was lost, it cost: the total is at most this.
    let most = f64::from(BURST) + (clock(&redis).await - begun) * f64::from(RATE);
    println!("{total:?} of at most {most:.1}");
    assert!(total.allowed as f64 <= most, "{total:?} of at most {most}");
    assert!(total.failed > 0, "{total:?}");
    assert!(total.allowed > u64::from(BURST), "{total:?}: it went on");
    let longest = Duration::from_millis(total.longest_ms);
    assert!(longest < TIMEOUT + SLACK, "{longest:?}");
}
