//! Processes that follow each other on one listening socket, under load.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const RESTARTS: usize = 20;
const CONNECTIONS: &str = "200";

/// Time under load between two restarts.
const BREATH: Duration = Duration::from_millis(100);

/// The example `inherited`, which cargo builds along with the tests.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Returns once it serves.
    fn start(socket: &TcpListener) -> Self {
        let socket = OwnedFd::from(socket.try_clone().expect("a descriptor"));
        let mut child = Command::new(program())
            .stdin(Stdio::from(socket))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example `inherited` is built");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, output };
        assert_eq!(process.line(), "ready\n");
        process
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line
    }

    /// Its report, after it has ended by itself.
    fn stop(mut self) -> String {
        signal(&self.child, Signal::TERM);
        let report = self.line();
        assert!(self.child.wait().expect("waited for").success(), "{report}");
        report
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("known");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    folder.join("examples").join("inherited")
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, signal).expect("it has not been waited for");
}

/// What `wrk` says after the restarts, and what each process says of its end.
fn restart_under_load(path: &str) -> (String, Vec<String>) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}{path}", socket.local_addr().expect("bound"));
    let mut current = Process::start(&socket);
    let mut load = Command::new("wrk")
        .args(["--threads", "2", "--connections", CONNECTIONS, "--timeout", "30s"])
        .args(["--duration", "100s", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("wrk is installed (Debian package wrk, `cargo xtask setup`)");
    let mut reports = Vec::new();
    for _ in 0..RESTARTS {
        std::thread::sleep(BREATH);
        let next = Process::start(&socket);
        reports.push(std::mem::replace(&mut current, next).stop());
    }
    assert!(load.try_wait().expect("waited for").is_none(), "the load ended before the restarts");
    // It ends in good order and says what it has seen.
    signal(&load, Signal::INT);
    let said = load.wait_with_output().expect("waited for");
    current.stop();
    (String::from_utf8(said.stdout).expect("text"), reports)
}

/// The number before or behind a word.
fn requests(said: &str) -> u64 {
    let line = said.lines().find(|line| line.contains(" requests in ")).expect("a line");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn no_request_fails_while_processes_follow_each_other() {
    let (said, reports) = restart_under_load("/");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}\n{reports:#?}");
    assert!(requests(&said) > 1_000, "{said}");
    // Each of them had connections to finish, or nothing was tried.
    let idle = reports.iter().filter(|report| report.contains(" 0 requests")).count();
    assert!(idle < RESTARTS / 2, "{reports:#?}");
}

#[test]
fn no_request_that_is_being_handled_fails_either() {
    let (said, reports) = restart_under_load("/pause");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}\n{reports:#?}");
    assert!(requests(&said) > 1_000, "{said}");
}
