//! Child processes that cannot outlive the test: spawned with a parent death signal, signalled
//! with all their descendants, and reaped.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;
use crate::wait;

/// How long the kernel may need to stop or end a process that got SIGSTOP or SIGKILL: it ends
/// a write to a busy disk first.
const SIGNAL: Duration = Duration::from_secs(10);

/// A running child. Dropping it kills it and its descendants and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts the command, which should begin with `setpriv --pdeathsig` (see `server`).
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        // Its own process group: Ctrl-C and the like are for the test, not for its servers.
        command.process_group(0);
        spawn_from_lasting_thread(command).map(|child| Self { child })
    }

    /// The process id. It stays ours until the child is reaped, so signalling it is safe.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The exit status if the child has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal to the child alone.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid(), signal)?)
    }

    /// Stops the child and all its descendants. Returns them when all have stopped.
    pub(crate) fn freeze(&self) -> io::Result<Vec<Pid>> {
        self.signal(Signal::STOP)?;
        await_all(&[self.pid()], is_stopped)?;
        let mut frozen = Vec::new();
        loop {
            // A descendant may fork while its parent is being stopped: until nobody new comes.
            let mut new = descendants(self.pid())?;
            new.retain(|pid| !frozen.contains(pid));
            if new.is_empty() {
                return Ok(frozen);
            }
            signal_all(&new, Signal::STOP);
            await_all(&new, is_stopped)?;
            frozen.append(&mut new);
        }
    }

    /// Lets the descendants and then the child go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        signal_all(&descendants(self.pid())?, Signal::CONT);
        self.signal(Signal::CONT)
    }

    /// Kills the child and its descendants, as a machine that loses power, and reaps it.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        // Stopped first: a process that forks while it is being killed would leave orphans. One
        // that does not stop in time is killed all the same.
        let offspring = self.freeze().or_else(|_| descendants(self.pid()))?;
        self.signal(Signal::KILL)?;
        signal_all(&offspring, Signal::KILL);
        self.child.wait()?;
        // An orphan that is not gone yet holds shared memory, and the restart would fail.
        await_all(&offspring, is_gone)
    }

    /// Asks the child to end by a signal, waits, and kills it when it takes longer.
    pub(crate) fn stop(&mut self, signal: Signal, patience: Duration) -> io::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.thaw()?;
        self.signal(signal)?;
        if !wait::until(patience, || Ok::<_, io::Error>(self.ended()?.is_some()))? {
            self.kill()?;
        }
        Ok(())
    }

    /// Signals the descendant whose command line contains this text; `false` if there is none.
    /// After SIGSTOP it returns when that one has stopped.
    pub(crate) fn signal_descendant(&self, text: &str, signal: Signal) -> io::Result<bool> {
        self.signal_one(signal, |pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text)
        })
    }

    /// The same for the descendant with this process id.
    pub(crate) fn signal_descendant_id(&self, id: i32, signal: Signal) -> io::Result<bool> {
        self.signal_one(signal, |pid| pid.as_raw_nonzero().get() == id)
    }

    fn signal_one(&self, signal: Signal, is_it: impl Fn(Pid) -> bool) -> io::Result<bool> {
        let found = descendants(self.pid())?.into_iter().find(|pid| is_it(*pid));
        let Some(pid) = found else { return Ok(false) };
        kill_process(pid, signal)?;
        if signal == Signal::STOP {
            await_all(&[pid], is_stopped)?;
        }
        Ok(true)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing better can be done with a failure here: the parent death signal remains.
        let _ = self.kill();
    }
}

/// Sends a signal to each; one that has ended meanwhile is no failure.
fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill_process(*pid, signal);
    }
}

/// All living descendants of a process, parents before children.
fn descendants(root: Pid) -> io::Result<Vec<Pid>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(pid) = Pid::from_raw(pid) else { continue };
        if let Some((state, parent)) = status(pid)
            && state != 'Z'
        {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        let children = parents.iter().filter(|(_, of)| *of == Pid::as_raw(Some(parent)));
        family.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    family.remove(0);
    Ok(family)
}

/// Waits until the kernel has done to all of them what a signal told it.
fn await_all(pids: &[Pid], done: fn(Pid) -> bool) -> io::Result<()> {
    let all = wait::until(SIGNAL, || Ok::<_, io::Error>(pids.iter().all(|pid| done(*pid))))?;
    if all { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// Whether a process has stopped, or ended before it could.
fn is_stopped(pid: Pid) -> bool {
    status(pid).is_none_or(|(state, _)| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// Whether a process has ended. An orphan may stay a zombie where process 1 does not reap.
fn is_gone(pid: Pid) -> bool {
    status(pid).is_none_or(|(state, _)| state == 'Z')
}

/// State letter and parent of a process, from `/proc/PID/stat`.
fn status(pid: Pid) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in brackets, may hold anything; the rest follows its end.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// Runs a helper program to its end and returns what it wrote to its standard output.
pub(crate) fn run(tool: &str, command: &mut Command) -> Result<String, Error> {
    let output = command.output().map_err(Error::io(format!("run {tool}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Tool {
        tool: tool.to_owned(),
        status: output.status.to_string(),
        output: last_lines(&String::from_utf8_lossy(&output.stderr)),
    })
}

/// The end of a text, enough to see why a server failed.
pub(crate) fn last_lines(text: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Spawns from a thread that lasts as long as this process.
///
/// Linux sends the parent death signal when the *thread* that spawned the child ends. The
/// threads of a test harness and of a runtime end early, and would take the servers with them.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static JOBS: OnceLock<Option<mpsc::Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let work = move || {
            for (mut command, reply) in inbox {
                // The asker always waits; if not, dropping the handle loses only the reply.
                let _ = reply.send(command.spawn());
            }
        };
        thread::Builder::new().name("testkit-spawn".into()).spawn(work).ok().map(|_| jobs)
    });
    let ended = || io::Error::other("the thread that spawns servers does not run");
    let (reply, answer) = mpsc::channel();
    jobs.as_ref().ok_or_else(ended)?.send((command, reply)).map_err(|_| ended())?;
    answer.recv().map_err(|_| ended())?
}
