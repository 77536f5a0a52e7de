//! A process with a cache on a Redis, told line by line what to do: this one, or a child that
//! runs the same test binary.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use escala_cache::{Cache, Coherence, Entry, LoadError, Previous, RedisStore};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::config;
use crate::support::{Source, builder};

/// After this, a process knows of what others removed.
pub(super) const BOUND: Duration = Duration::from_millis(300);
const HEARTBEAT: Duration = Duration::from_millis(100);

/// No answer takes longer, and no child lives much longer.
const PATIENCE: Duration = Duration::from_secs(40);

/// Holds the URL of the Redis and the time of the lock in milliseconds, zero for none.
const ROLE: &str = "ESCALA_CACHE_TEST_PLAYER";
/// Begins each line that is an answer, among those that the test runner prints.
const MARK: &str = "> ";

/// Not a test by itself: what a child process runs. Without the variable it has nothing to do.
#[tokio::test]
async fn a_child_of_another_test_obeys_it() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (url, lock_ms) = role.split_once(' ').unwrap();
    let mut player = Player::new(url, Duration::from_millis(lock_ms.parse().unwrap())).await;
    let (sender, mut commands) = mpsc::unbounded_channel();
    // A thread, since a read of standard input cannot be given up; it ends with the process.
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
    });
    let obey = async {
        // The end of the commands is the end of the parent.
        while let Some(command) = commands.recv().await {
            let answer = player.obey(&command).await;
            // The runner may have begun a line of its own.
            let mut out = std::io::stdout().lock();
            write!(out, "\n{MARK}{answer}\n").and_then(|()| out.flush()).unwrap();
        }
    };
    timeout(2 * PATIENCE, obey).await.ok();
}

/// One process that plays a part in a race.
pub(super) enum Process {
    Here(Box<Player>),
    There(Box<Elsewhere>),
}

impl Process {
    /// This process, with a cache and a connection of its own.
    pub(super) async fn here(url: &str, lock: Duration) -> Self {
        Self::Here(Box::new(Player::new(url, lock).await))
    }

    /// Another process. It is killed when this is dropped, and ends by itself when we do.
    pub(super) fn there(url: &str, lock: Duration) -> Self {
        let program = std::env::current_exe().unwrap();
        let name = "redis::player::a_child_of_another_test_obeys_it";
        let mut child = Command::new(program)
            .args([name, "--exact", "--nocapture"])
            .env(ROLE, format!("{url} {}", lock.as_millis()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self::There(Box::new(Elsewhere { child, commands, answers }))
    }

    /// Gives a command and waits for its answer.
    pub(super) async fn ask(&mut self, command: &str) -> String {
        let answer = async {
            match self {
                Self::Here(player) => player.obey(command).await,
                Self::There(there) => there.ask(command).await,
            }
        };
        let answer = timeout(PATIENCE, answer).await;
        answer.unwrap_or_else(|_| panic!("no answer to {command:?}"))
    }

    /// Kills another process (SIGKILL) and waits until it is gone.
    pub(super) async fn kill(self) {
        if let Self::There(mut there) = self {
            there.child.kill().await.unwrap();
        }
    }
}

pub(super) struct Elsewhere {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Elsewhere {
    async fn ask(&mut self, command: &str) -> String {
        use tokio::io::AsyncWriteExt as _;

        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        loop {
            let line = self.answers.next_line().await.unwrap();
            let line = line.expect("the child lives until it is told to end");
            if let Some(answer) = line.strip_prefix(MARK) {
                return answer.to_owned();
            }
        }
    }
}

/// A cache, and callers that wait for it.
pub(super) struct Player {
    cache: Cache<String, u64>,
    value: u64,
    /// Its loads read the value, then wait until they are let through.
    source: Source,
    callers: Vec<JoinHandle<String>>,
}

impl Player {
    async fn new(url: &str, lock: Duration) -> Self {
        // These tests are about order, not times.
        let config = config(url).operation_timeout(Duration::from_secs(10));
        let store = RedisStore::connect(config).await.unwrap();
        let coherence = Coherence::default().heartbeat(HEARTBEAT);
        let mut builder = builder("race").coherence(coherence).shared(store);
        if !lock.is_zero() {
            builder = builder.load_lock(lock);
        }
        let cache = builder.build().unwrap();
        // It listens before it reads.
        assert_eq!(cache.get("nothing").await, None);
        Self { cache, value: 0, source: Source::gated(0), callers: Vec::new() }
    }

    /// Does what a line says, and answers.
    async fn obey(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        let removal = match words[..] {
            ["set", value] => {
                self.value = value.parse().unwrap();
                self.source.set(self.value);
                return String::new();
            }
            ["call", count, key] => return self.call(count, key, Kind::Patient).await,
            ["impatient", count, key] => return self.call(count, key, Kind::Impatient).await,
            ["fail", count, key] => return self.call(count, key, Kind::Failing).await,
            ["begun"] => {
                self.source.begun().await;
                return String::new();
            }
            ["abandon"] => {
                let leader = self.callers.remove(0);
                leader.abort();
                return leader.await.unwrap_err().is_cancelled().to_string();
            }
            ["open"] => {
                self.source.let_through(100_000);
                return String::new();
            }
            ["close"] => {
                self.source = Source::gated(self.value);
                return String::new();
            }
            ["wait"] => return self.wait().await,
            ["loads"] => return self.source.loads().to_string(),
            ["get", key] => return text(self.cache.get(key).await),
            ["read", key] => {
                return Source::new(self.value).read(&self.cache, key).await.to_string();
            }
            ["insert", key, value] => {
                let entry = Entry::new(value.parse().unwrap()).tag("t");
                self.cache.insert_with(key.to_owned(), entry).await;
                return "true".to_owned();
            }
            ["remove", key] => self.cache.remove(key).await,
            ["remove_tag", tag] => self.cache.remove_tag(tag).await,
            ["remove_matching", pattern] => self.cache.remove_matching(pattern).await,
            ["clear"] => self.cache.clear().await,
            _ => panic!("no such command: {command}"),
        };
        removal.is_complete().to_string()
    }

    /// Starts callers; they have all asked when it answers.
    async fn call(&mut self, count: &str, key: &str, kind: Kind) -> String {
        for caller in 0..count.parse().unwrap() {
            let (cache, source, key) = (self.cache.clone(), self.source.clone(), key.to_owned());
            self.callers.push(tokio::spawn(async move {
                match kind {
                    Kind::Patient => load(&cache, &source, &key).await,
                    Kind::Impatient => {
                        let patience = Duration::from_millis(20 + caller % 50);
                        let outcome = timeout(patience, load(&cache, &source, &key)).await;
                        outcome.unwrap_or_else(|_| "gone".to_owned())
                    }
                    Kind::Failing if caller % 2 == 0 => {
                        let load = async move || {
                            source.load().await.ok();
                            Err::<u64, _>("text".to_owned())
                        };
                        outcome(&cache.get_or_load(key.as_str(), load).await)
                    }
                    Kind::Failing => {
                        let load = async move || {
                            source.load().await.ok();
                            Err::<u64, _>(std::fmt::Error)
                        };
                        outcome(&cache.get_or_load(key.as_str(), load).await)
                    }
                }
            }));
        }
        yield_now().await;
        String::new()
    }

    /// Waits for all callers and says how many had which outcome.
    async fn wait(&mut self) -> String {
        let mut outcomes = BTreeMap::<String, usize>::new();
        for caller in self.callers.drain(..) {
            *outcomes.entry(caller.await.unwrap()).or_default() += 1;
        }
        let outcomes = outcomes.into_iter().map(|(outcome, count)| format!("{outcome}*{count}"));
        outcomes.collect::<Vec<_>>().join(" ")
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Patient,
    Impatient,
    /// Their loads fail, with one error type or another by turns.
    Failing,
}

async fn load(cache: &Cache<String, u64>, source: &Source, key: &str) -> String {
    let source = source.clone();
    let load = async move |_: Previous<u64>| {
        source.load().await.map(|value: u64| Entry::new(value).tag("t"))
    };
    let loaded: Result<Option<u64>, LoadError<Infallible>> =
        cache.get_or_load_with(key, load).await;
    outcome(&loaded.map(Option::unwrap))
}

fn outcome<E>(loaded: &Result<u64, LoadError<E>>) -> String {
    match loaded {
        Ok(value) => value.to_string(),
        Err(LoadError::Source(_)) => "own".to_owned(),
        Err(LoadError::Foreign { .. }) => "foreign".to_owned(),
        Err(_) => "unexpected".to_owned(),
    }
}

fn text(value: Option<u64>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}
