//! `cargo xtask`: the project's own commands. `cargo xtask --help` lists them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks there")]

mod invocation;
mod parts;
mod session;
mod setup;

use std::process::ExitCode;

use session::Session;

/// Something that can be asked for by name.
struct Part {
    name: &'static str,
    about: &'static str,
    run: fn(&Session) -> anyhow::Result<()>,
}

/// In the order in which `test` runs them: what is quick first, then the checks that share
/// cargo's metadata, then what shares its compiled code.
const PARTS: [Part; 8] = [
    Part { name: "setup", about: "install the servers and tools the tests need", run: setup::run },
    Part { name: "fmt", about: "formatting, changing nothing", run: parts::fmt },
    Part { name: "tidy", about: "the rules of the house", run: parts::tidy },
    Part { name: "lint", about: "clippy on everything, warnings denied", run: parts::lint },
    Part {
        name: "features",
        about: "clippy on each library with no, each and all features",
        run: parts::features,
    },
    Part { name: "unit", about: "all tests, by nextest", run: parts::unit },
    Part { name: "bench-smoke", about: "each bench once, without measuring", run: parts::benches },
    Part { name: "doc", about: "doctests, and rustdoc with broken links denied", run: parts::doc },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["--help" | "-h" | "help"] => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        ["test"] => session::run_all(&PARTS),
        [name] => match PARTS.iter().find(|part| part.name == name) {
            Some(part) => session::run_all(std::slice::from_ref(part)),
            None => Err(anyhow::anyhow!("there is no command `{name}`\n\n{}", help())),
        },
        _ => Err(anyhow::anyhow!("one command at a time\n\n{}", help())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let mut text = String::from("The project's own commands: `cargo xtask COMMAND`.\n\n");
    let all = ("test", "all of the following, in this order; stops at the first failure");
    for (name, about) in [all].into_iter().chain(PARTS.iter().map(|p| (p.name, p.about))) {
        text += &format!("  {name:<12} {about}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_command() {
        let help = help();
        for part in PARTS {
            let line = format!("\n  {:<12} {}\n", part.name, part.about);
            assert!(help.contains(&line), "{} is missing in:\n{help}", part.name);
        }
    }
}
