//! One command line: run it, or show it so that it can be pasted into a shell.

use std::fmt;
use std::process::Command;

/// A program, its arguments, and the variables set for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    variables: Vec<(&'static str, &'static str)>,
    program: String,
    arguments: Vec<String>,
}

impl Invocation {
    /// Splits the line at blanks; an argument that has one is added by [`arg`](Self::arg).
    pub(crate) fn new(line: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        let program = words.next().unwrap_or_default();
        Self { variables: Vec::new(), program, arguments: words.collect() }
    }

    pub(crate) fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// The process, not started. `cargo` is the one that runs us, whatever `PATH` says.
    pub(crate) fn command(&self) -> Command {
        let cargo = (self.program == "cargo").then(|| std::env::var_os("CARGO")).flatten();
        let mut command = Command::new(cargo.unwrap_or_else(|| self.program.clone().into()));
        command.args(&self.arguments).envs(self.variables.iter().copied());
        command
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={} ", quoted(value))?;
        }
        f.write_str(&self.program)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(argument)))
    }
}

/// The word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_itself_as_a_shell_takes_it() {
        let doc = Invocation::new("cargo doc --no-deps").variable("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(doc.to_string(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
        let odd = Invocation::new("echo").arg("it's").arg("").arg("a=b");
        assert_eq!(odd.to_string(), r"echo 'it'\''s' '' a=b");
    }

    #[test]
    fn it_runs_what_it_shows() {
        let shell = Invocation::new("sh -c").arg("test \"$A\" = 1 && test $# = 1").arg("sh");
        let status = |i: Invocation| i.command().status().expect("there is a shell").success();
        assert!(status(shell.clone().variable("A", "1").arg("x")));
        assert!(!status(shell.variable("A", "1")));
    }
}
