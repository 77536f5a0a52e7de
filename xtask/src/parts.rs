//! The parts of `cargo xtask test` that check the code.
//!
//! The build is the dear part, so commands agree in profile and features wherever they can:
//! lint, unit, bench-smoke and doc all take the whole workspace with all features. None sets
//! `RUSTFLAGS`, which would rebuild everything; warnings are denied by an argument to clippy.

use anyhow::bail;
use xtask::{tidy, workspace};

use crate::invocation::Invocation;
use crate::session::Session;

pub(crate) fn fmt(session: &Session) -> anyhow::Result<()> {
    session.run(&Invocation::new("cargo fmt --all --check"))
}

pub(crate) fn tidy(session: &Session) -> anyhow::Result<()> {
    let sources = workspace::sources(workspace::root())?;
    let findings = tidy::check(&sources);
    for finding in &findings {
        session.say(&finding.to_string());
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    session.say(&format!("{} files keep the rules", sources.len()));
    Ok(())
}

pub(crate) fn lint(session: &Session) -> anyhow::Result<()> {
    session.run(&Invocation::new(
        "cargo clippy --locked --workspace --all-targets --all-features -- -D warnings",
    ))
}

pub(crate) fn unit(session: &Session) -> anyhow::Result<()> {
    session.run(&Invocation::new("cargo nextest run --locked --workspace --all-features"))
}

pub(crate) fn doc(session: &Session) -> anyhow::Result<()> {
    session.run(&Invocation::new("cargo test --locked --workspace --all-features --doc"))?;
    session.run(
        &Invocation::new("cargo doc --locked --workspace --all-features --no-deps")
            .variable("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Each bench once: criterion does not measure when it is started by `cargo test`.
///
/// By pattern over the whole workspace, so that features and thus artifacts are those of `unit`;
/// `--benches` would also run every library's unit tests once more.
pub(crate) fn benches(session: &Session) -> anyhow::Result<()> {
    let command = Invocation::new("cargo test --locked --workspace --all-features --bench *");
    session.run(&command)
}

pub(crate) fn features(session: &Session) -> anyhow::Result<()> {
    let sources = workspace::sources(workspace::root())?;
    for package in workspace::packages(&sources).into_iter().filter(|p| p.published) {
        for features in combinations(&package.features) {
            session.run(&feature_check(&package.name, &features))?;
        }
    }
    Ok(())
}

/// None, each alone, all together.
fn combinations(features: &[String]) -> Vec<String> {
    let mut sets = vec![String::new()];
    sets.extend(features.iter().cloned());
    if features.len() > 1 {
        sets.push(features.join(","));
    }
    sets
}

/// The library alone, as a stranger's build has it: its tests' dependencies would lend it
/// features of tokio that it forgot to ask for.
fn feature_check(package: &str, features: &str) -> Invocation {
    let line = format!("cargo clippy --locked -p {package} --lib --no-default-features");
    let mut command = Invocation::new(&line);
    if !features.is_empty() {
        command = command.arg("--features").arg(features);
    }
    command.arg("--").arg("-D").arg("warnings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_none_each_and_all() {
        let check = |features: &[&str], expected: &[&str]| {
            let features: Vec<String> = features.iter().map(ToString::to_string).collect();
            assert_eq!(combinations(&features), expected);
        };
        check(&[], &[""]);
        check(&["a"], &["", "a"]);
        check(&["a", "b"], &["", "a", "b", "a,b"]);
    }

    #[test]
    fn a_feature_check_takes_the_library_alone() {
        let none = "cargo clippy --locked -p x --lib --no-default-features -- -D warnings";
        assert_eq!(feature_check("x", "").to_string(), none);
        let two =
            "cargo clippy --locked -p x --lib --no-default-features --features a,b -- -D warnings";
        assert_eq!(feature_check("x", "a,b").to_string(), two);
    }
}
